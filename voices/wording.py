"""What people are told about their voices: the consent they give, and what went wrong, each as a sentence."""

from __future__ import annotations

import hashlib

from django.conf import settings
from django.utils import translation
from django.utils.translation import gettext_lazy as _

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

#: What went wrong, and what to do. The code is for programs and stays; the sentence is for people.
PROBLEMS = {
    "consent_required": _("Please say first whose voice this is: nothing is kept without consent."),
    "consent_invalid": _("Please choose one of the two declarations about whose voice this is."),
    "name_required": _("Please give the voice a name."),
    "name_too_long": _("Please choose a shorter name: at most 80 characters."),
    "language_unknown": _("Please choose Mandarin or English."),
    "quality_unknown": _("Please choose fast or high quality."),
    "text_required": _("Please write the sentence that you would like to hear."),
    "text_too_long": _("Please write a shorter sentence: at most 200 characters."),
    "audio_required": _("Please record something, or choose a file."),
    "audio_unsupported": _(
        "This is not a recording that can be read. Please use WAV, MP3, FLAC, OGG, M4A or WebM, or record it here."
    ),
    "audio_damaged": _(
        "The recording is damaged or incomplete. Please export it once more and upload it again, or record it here."
    ),
    "audio_too_large": _("The file is larger than 20 MB. Please use a shorter recording, or save it as MP3 or FLAC."),
    "audio_too_short": _("There is too little speech in it. Please record at least 3 seconds; 15 seconds are best."),
    "audio_too_long": _("The recording is too long. Please cut it to at most 60 seconds of speech."),
    "audio_silent": _("Nothing can be heard in it. Please check the microphone and record it again."),
    "audio_clipped": _("The recording is too loud and distorted. Please record it again with more distance."),
    "audio_noisy": _("Only noise can be made out, no speech. Please record it again in a quiet place."),
    "quota_exceeded": _(
        "You have no room left for recordings. Please delete a voice or a recording that you don’t need."
    ),
    "storage_full": _("The disk is full: nothing new can be stored. Please tell the operator, and try again later."),
    "storage_unavailable": _("The files cannot be reached just now. Nothing was lost; please try again in a moment."),
    "too_many_recordings": _("A voice has at most 20 recordings. Please remove one first."),
    "voice_too_large": _(
        "The recordings of this voice are too large together. Please remove one first, or use shorter ones."
    ),
    "last_recording": _("This is the only recording of the voice. To remove it, delete the voice."),
    "not_ready": _("This voice is not ready yet. Please try again in a moment."),
    "not_failed": _("Nothing has failed here: there is nothing to try again."),
    "disabled": _("This voice has been disabled by the operator."),
    "deleting": _("This voice is being deleted."),
    "deletion_unfinished": _(
        "Nobody is answered in this voice any more, but its files cannot be reached just now. They are deleted as soon "
        "as they can be; you can also delete the voice again."
    ),
    "operators_only": _("Only operators may share a voice with everybody."),
    "stock_voice": _("This voice comes with AVATAR and cannot be changed."),
    "fitting_impossible": _("This voice cannot be brought closer with the engine that is running."),
    "fitting_no_better": _("Nothing closer was found; the voice stays as it was."),
    "archive_unreadable": _("This is not a voice exported from AVATAR, or it is damaged. Please export it once more."),
    "archive_too_large": _(
        "The file is larger than 100 MB, which no voice exported from AVATAR is. Please check that it is the right one."
    ),
    "no_speech": _("No speech could be recognised in the recording. Please record a few sentences in a quiet place."),
    "inference_unavailable": _(
        "The part that listens and speaks is not reachable. Nothing was lost; please try again in a moment."
    ),
    "inference_busy": _("Others are talking just now. Nothing was lost; please try again in a moment."),
    "inference_failed": _("Making the voice did not work. The recording is kept; please try again."),
    "recording_missing": _("The recording is gone from the storage. Please delete the voice and record it again."),
    "worker_lost": _("Making the voice was interrupted several times. The recording is kept; please try again."),
    "internal": _("Something went wrong on our side. The recording is kept; please try again."),
    "server_error": _("Something went wrong on our side. Please try again in a moment."),
    "range_invalid": _("This part of the sound does not exist: it is shorter."),
    "invalid": _("This request could not be understood."),
    "request_too_large": _("This is more than can be sent here. Nothing of it was kept."),
    "not_found": _("This does not exist, or not any more."),
    "not_logged_in": _("Please log in."),
    "forbidden": _("You are not allowed to do this."),
    "method_not_allowed": _("This cannot be done here."),
    "too_many_requests": _("Too many requests. Please try again in a moment."),
}


class VoiceProblem(Exception):
    """Something that a person asked for cannot be done. `code` is one of PROBLEMS; `field` is what of it was wrong."""

    def __init__(self, code: str, *, field: str = "", detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.field = field

    @property
    def sentence(self) -> str:
        """What to tell the person, in the active language."""
        return word_problem(self.code)


def word_consent(attestation: str) -> tuple[str, str]:
    """The wording of a consent in the active language, and its SHA-256."""
    text = str(CONSENTS[Attestation(attestation)])
    return text, hashlib.sha256(text.encode()).hexdigest()


def find_consent(attestation: str, text_sha256: str) -> tuple[str, str]:
    """
    The wording of a consent that was shown, in whichever language, told by its SHA-256; without one, as `word_consent`.

    Raises VoiceProblem if it is none of ours, or that of another attestation.
    """
    wordings = [word_consent(attestation)]
    for language, _name in settings.LANGUAGES:
        with translation.override(language):
            wordings.append(word_consent(attestation))
    for text, digest in wordings:
        if text_sha256 in ("", digest):
            return text, digest
    raise VoiceProblem("consent_invalid", field="consent_text_sha256")


def word_problem(code: str) -> str:
    """The sentence of a problem, in the active language."""
    return str(PROBLEMS.get(code, PROBLEMS["internal"]))
