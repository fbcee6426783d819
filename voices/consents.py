"""The consent that a person gives with a recording: its wordings, and the SHA-256 that tells which one was shown."""

from __future__ import annotations

import hashlib

from django.conf import settings
from django.utils import translation
from django.utils.translation import gettext_lazy as _

from avatar_site.lib.problems import ProblemError
from voices.models import Attestation

CONSENTS = {
    Attestation.OWN_VOICE: _(
        "This is my own voice. I agree that AVATAR makes a voice profile from this recording and speaks with it in my "
        "conversations, until I delete it."
    ),
    Attestation.PERMISSION: _(
        "The person who speaks in this recording has given me permission to make a voice profile from it and to have "
        "AVATAR speak with it, until I delete it. I can prove this permission when asked."
    ),
}


def word_consent(attestation: str) -> tuple[str, str]:
    """Return the wording of a consent in the active language, and its SHA-256."""
    text = str(CONSENTS[Attestation(attestation)])
    return text, hashlib.sha256(text.encode()).hexdigest()


def find_consent(attestation: str, text_sha256: str) -> tuple[str, str]:
    """
    Return the wording that was shown, in either language, by its SHA-256. With an empty one, as `word_consent`.

    Raises ProblemError for a SHA-256 of no wording, or of another attestation's.
    """
    wordings = [word_consent(attestation)]
    for language, _name in settings.LANGUAGES:
        with translation.override(language):
            wordings.append(word_consent(attestation))
    for text, digest in wordings:
        if text_sha256 in ("", digest):
            return text, digest
    raise ProblemError("consent_invalid", field="consent_text_sha256")
