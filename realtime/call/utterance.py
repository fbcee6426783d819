"""What the user is saying: limits, uploads, positions. Pure."""

from __future__ import annotations


class AudioDecodingError(Exception):
    """Uploaded audio is not what its format says, or holds no audio."""


class AudioTooLong(Exception):
    """Uploaded audio is longer than an utterance may be."""
