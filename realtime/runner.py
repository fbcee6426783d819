"""
Runs one call. Knows no Django, no Channels and no gRPC: engines, outlets and the clock go in.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from realtime.call.voice import Voice, VoiceUnreadable
from realtime.pipeline import CallOverrun, VoicePipeline, _VoiceRenewed

__all__ = ["CallOverrun", "CallRunner"]


class CallRunner(VoicePipeline):
    """A call. `push_frame` and `push_message` take what the client sends and never wait; `run` is the call itself."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(renew_voice=self._keep_voice, **parts)

    async def _keep_voice(self, voice: Voice) -> Voice:
        return voice

    def notify_voice(self, voice_profile_id: UUID) -> None:
        """Look a voice up again that was changed, disabled or deleted, if it is the one in use."""
        if voice_profile_id == self._voice.profile_id:
            self._spawn(self._look_again(self._voice))

    async def _look_again(self, before: Voice) -> None:
        try:
            after = await self._find_voice(before.profile_id)
        except VoiceUnreadable:
            return
        if after is None or after.version != before.version:
            await self._inbox.put(_VoiceRenewed(before, after))
