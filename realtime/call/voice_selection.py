"""Which voice a call speaks in: the one chosen last that could be found. Pure."""

from __future__ import annotations

from uuid import UUID

from realtime.call.events import ChangeVoice, Effect, HoldSpeech, LookUpVoice, SendEvent, VoiceFound
from realtime.call.voice import Voice
from realtime.messages import ErrorCode, ErrorMessage


class VoiceSelection:
    """
    Keeps the voice in use, and looks voices up: one that was chosen, and the one in use when it may have changed.

    While a choice is looked up, no reply begins to be spoken: it is meant for the next one. A reply that is being
    spoken goes on, and changes its voice at its next clause.
    """

    def __init__(self, voice: Voice) -> None:
        self.current = voice
        self._gone: set[UUID | None] = set()
        self._lookups = 0
        self._choice: LookUpVoice | None = None
        self._renewal: LookUpVoice | None = None
        #: The last one could not be done: the database or the storage was away.
        self._is_renewal_due = False

    def choose(self, voice_profile_id: UUID | None) -> list[Effect]:
        """Handle the client's choice. The last one counts."""
        was_pending, self._choice = self._choice is not None, None
        if voice_profile_id == self.current.profile_id:
            return [HoldSpeech(False)] if was_pending else []
        self._choice = self._make_lookup(voice_profile_id, is_choice=True)
        return [HoldSpeech(True), self._choice]

    def renew(self, voice_profile_id: UUID) -> list[Effect]:
        """Look a voice up again if it is chosen or in use: its profile has changed."""
        effects: list[Effect] = []
        if self._choice is not None and self._choice.voice_profile_id == voice_profile_id:
            self._choice = self._make_lookup(voice_profile_id, is_choice=True)
            effects.append(self._choice)
        if self.current.profile_id == voice_profile_id:
            self._is_renewal_due = False
            self._renewal = self._make_lookup(voice_profile_id, is_choice=False)
            effects.append(self._renewal)
        return effects

    def retry_renewal(self) -> list[Effect]:
        """Look the voice in use up again if that failed. To be called now and then, before it is spoken in."""
        return self.renew(self.current.profile_id) if self._is_renewal_due and self.current.profile_id else []

    def _make_lookup(self, voice_profile_id: UUID | None, *, is_choice: bool) -> LookUpVoice:
        self._lookups += 1
        return LookUpVoice(self._lookups, voice_profile_id, is_choice)

    def handle_found(self, found: VoiceFound) -> list[Effect]:
        """Speak in the voice that was found. The result of a lookup that was replaced changes nothing."""
        if found.lookup == self._choice:
            self._choice = None
            return [*self._handle_chosen(found), HoldSpeech(False)]
        if found.lookup == self._renewal:
            self._renewal = None
            return self._handle_renewed(found)
        return []

    def _handle_chosen(self, found: VoiceFound) -> list[Effect]:
        match found.outcome:
            case Voice() as voice:
                return self._change(voice)
            case None:
                return [_make_gone(found.lookup.voice_profile_id)]
            case Exception():
                detail = "voice_profile_id: cannot be read now"
                return [SendEvent(ErrorMessage(code=ErrorCode.PROCESSING_ERROR, error="", detail=detail))]

    def _handle_renewed(self, found: VoiceFound) -> list[Effect]:
        if found.lookup.voice_profile_id != self.current.profile_id:
            return []
        match found.outcome:
            case Voice() as voice:
                return [] if voice.version == self.current.version else self._change(voice)
            case None:
                self._gone.add(self.current.profile_id)
                gone = _make_gone(self.current.profile_id)
                return [*self._change(Voice()), gone]
            case Exception():
                self._is_renewal_due = True
                return []

    def _change(self, voice: Voice) -> list[Effect]:
        self.current = voice
        return [ChangeVoice(voice)]

    def name_speaker(self, spoken_in: tuple[UUID | None, ...]) -> UUID | None:
        """
        Return whose voice a turn is said to be in: the one in use.

        If a part of it was spoken in a voice that is gone, that one: it must not be forgotten.
        """
        return next((each for each in reversed(spoken_in) if each in self._gone), self.current.profile_id)


def _make_gone(voice_profile_id: UUID | None) -> SendEvent:
    return SendEvent(ErrorMessage(code=ErrorCode.VOICE_GONE, error="", voice_profile_id=voice_profile_id))
