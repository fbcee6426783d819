"""Counts what happens in a call, from what its machine receives and decides. Imports no Django, Channels or gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from avatar_site.lib import metrics
from avatar_site.lib.metrics import Stage
from inference.interfaces import Quality
from realtime import messages
from realtime.call import events

#: Why a reply had less than was asked for.
FAST_QUALITY = "fast_quality"
INCOMPLETE = "incomplete"
WITHOUT_SOUND = "without_sound"

# A counter that first appears with a number in it has not increased, as Prometheus sees it.
for _code in messages.ErrorCode:
    metrics.ERRORS.labels(_code.value)
for _reason in (FAST_QUALITY, INCOMPLETE, WITHOUT_SOUND):
    metrics.DEGRADED_REPLIES.labels(_reason)


class CallMeter:
    """Observes one call. It is told of each event after its effects were performed, and changes nothing."""

    def __init__(self) -> None:
        #: The replies that are being made, and in what quality they were asked for.
        self._asked: dict[UUID, Quality] = {}
        #: A reply whose sound had begun was stopped while the present event was handled.
        self._was_sound_stopped = False

    def note(self, event: events.Input, effects: Sequence[events.Effect]) -> None:
        if isinstance(event, events.FrameReceived):
            return  # fifty a second, and nothing is measured of them
        for effect in effects:
            match effect:
                case events.StartReply():
                    self._asked[effect.turn_id] = effect.quality
                case events.CommitReply():
                    _count_commit(effect)
                case events.CancelReply():
                    self._asked.pop(effect.turn_id, None)
                case events.SendEvent(message=messages.TurnEnd() as end):
                    self._end_reply(end.turn_id, end.latency_ms, end.quality)
        match event:
            case events.ReplyStopped(report=report):
                self._was_sound_stopped = report.audio_ms > 0
                return
            case events.SpeechBegan(received_ms=received_ms) if self._was_sound_stopped:
                metrics.observe_barge_in(received_ms / 1000)
            case events.ReplyFailed(stage=stage) if effects:
                # Without an effect it is a speculation, which is made again when it is wanted.
                metrics.count_degraded_reply(INCOMPLETE if stage is messages.Stage.LLM else WITHOUT_SOUND)
            case events.CallEnded(report=report) if report is not None:
                self._end_reply(report.turn_id, report.latency, report.quality)
        self._was_sound_stopped = False

    def _end_reply(self, turn_id: UUID, latency: messages.LatencyMs, quality: str | None) -> None:
        asked = self._asked.pop(turn_id, None)
        if asked is None:
            return  # it is counted already
        for stage in (Stage.TTFT, Stage.TTFA, Stage.TOTAL):
            if (latency_ms := getattr(latency, stage.value)) is not None:
                metrics.observe_stage(stage, latency_ms / 1000)
        if quality == Quality.FAST and asked is Quality.HIGH_QUALITY:
            metrics.count_degraded_reply(FAST_QUALITY)


def _count_commit(commit: events.CommitReply) -> None:
    metrics.count_turn()
    if commit.stt_ms is not None:
        metrics.observe_stage(Stage.STT, commit.stt_ms / 1000)
    if commit.endpoint_s is not None:
        metrics.observe_stage(Stage.ENDPOINT, commit.endpoint_s)
