"""
Tracks the played-out position of a reply. Pure: the time is passed in; imports no Django, Channels or gRPC.

Two questions are answered: may more audio be sent yet, and what text has been heard. The client's reports are believed;
between reports, and without any, sound is assumed to play as fast as the clock goes.
"""

from __future__ import annotations

from dataclasses import dataclass

from realtime.clauses import Clause, measure

#: How long a unit of text takes to say, until a clause of this reply has shown it.
DEFAULT_MS_PER_UNIT = 200.0


_SENTENCE_ENDS = tuple("。！？；….!?;")
_CLOSING = "」』）》”’)\"'"


def _ends_sentence(text: str) -> bool:
    return text.endswith("\n") or text.rstrip().rstrip(_CLOSING).endswith(_SENTENCE_ENDS)


@dataclass(slots=True)
class _Sent:
    """A clause of which audio has been sent, from `start_ms` in the reply's audio on."""

    clause: Clause
    start_ms: float
    audio_ms: float = 0.0
    is_complete: bool = False


class Playout:
    """
    Follows one reply. Times are seconds of any clock that never goes back.

    At most `max_ahead_ms` of audio is sent beyond what has been played.
    """

    def __init__(self, *, max_ahead_ms: int = 2000) -> None:
        self.max_ahead_ms = max_ahead_ms
        self.sent_ms = 0.0
        self._sent: list[_Sent] = []
        self._played_ms = 0.0
        self._known_at = 0.0
        self._is_finished = False

    def start_clause(self, clause: Clause) -> None:
        """Say which clause the audio that is sent next belongs to."""
        self._sent.append(_Sent(clause, self.sent_ms))

    def end_clause(self) -> None:
        """Say that the last clause has all its audio."""
        self._sent[-1].is_complete = True

    def add(self, audio_ms: float, now: float) -> None:
        """Count audio of the last clause as sent."""
        self._played_ms = self.estimate_played_ms(now)
        self._known_at = now
        self._is_finished = False
        self.sent_ms += audio_ms
        self._sent[-1].audio_ms += audio_ms

    def report(self, played_ms: float, now: float, *, is_finished: bool = False) -> None:
        """Believe the client. `is_finished` means that it has played all that it was sent."""
        self._played_ms = min(float(played_ms), self.sent_ms)
        self._known_at = now
        self._is_finished = is_finished

    def estimate_played_ms(self, now: float) -> float:
        if self._is_finished:
            return self._played_ms
        return min(self.sent_ms, self._played_ms + (now - self._known_at) * 1000)

    def compute_delay_s(self, audio_ms: float, now: float) -> float:
        """Return how long to wait before sending `audio_ms` more; 0 means now."""
        ahead_ms = self.sent_ms + audio_ms - self.estimate_played_ms(now)
        return max(0.0, (ahead_ms - self.max_ahead_ms) / 1000)

    def compute_rest_s(self, now: float) -> float:
        """Return how long what was sent still plays."""
        if self._is_finished:
            return 0.0
        return (self.sent_ms - self.estimate_played_ms(now)) / 1000

    def compute_gap_s(self, now: float) -> float:
        """Return how long nothing has sounded although the reply goes on; 0 before its first sound."""
        if not self.sent_ms:
            return 0.0
        return max(0.0, now - self._known_at - (self.sent_ms - self._played_ms) / 1000)

    def find_sentence_end_ms(self, after_ms: float) -> float | None:
        """Return where the sentence ends that is heard at `after_ms`; None while not all of its audio was sent."""
        for sent in self._sent:
            end_ms = sent.start_ms + sent.audio_ms
            if sent.is_complete and end_ms >= after_ms and _ends_sentence(sent.clause.display):
                return end_ms
        return None

    def read_heard(self, heard_ms: float) -> str:
        """Return the displayed text whose sound lies before `heard_ms`: whole clauses, then a part of one."""
        if heard_ms <= 0:
            return ""
        heard = ""
        for sent in self._sent:
            if heard_ms < sent.start_ms:
                break
            total_ms = sent.audio_ms if sent.is_complete else self._guess_total_ms(sent)
            fraction = (heard_ms - sent.start_ms) / total_ms if total_ms > 0 else 1.0
            part = sent.clause.read_heard(fraction)
            heard += part
            if part != sent.clause.display:
                break
        return heard.rstrip()

    def _guess_total_ms(self, sent: _Sent) -> float:
        """Return how long a clause will be whose audio is not complete."""
        complete = [s for s in self._sent if s.is_complete and s.audio_ms > 0 and measure(s.clause.spoken) > 0]
        units = sum(measure(s.clause.spoken) for s in complete)
        ms_per_unit = sum(s.audio_ms for s in complete) / units if units else DEFAULT_MS_PER_UNIT
        return max(sent.audio_ms, measure(sent.clause.spoken) * ms_per_unit)
