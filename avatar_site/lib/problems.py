"""
The table of problems: for each code, its HTTP status and its sentence in both languages.

Codes are stable and for programs (docs/api.md, docs/protocol.md); sentences are for people and say what to do. Codes in
lower case are those of the HTTP API and of failed jobs, those in upper case are the voice socket's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of the table."""

    #: None: no HTTP response has this code; it is the result of a job, or sent by the voice socket.
    status: HTTPStatus | None
    #: May have places for values, as `str.format` fills them in.
    sentence: str | Promise
    #: Where it differs from the key: a code with a second sentence of its own.
    code: str = ""


PROBLEMS: dict[str, Problem] = {
    "consent_required": Problem(
        HTTPStatus.BAD_REQUEST,
        _("Please say first whose voice this is: nothing is kept without consent."),
    ),
    "consent_invalid": Problem(
        HTTPStatus.BAD_REQUEST,
        _("Please choose one of the two declarations about whose voice this is."),
    ),
    "name_required": Problem(HTTPStatus.BAD_REQUEST, _("Please give the voice a name.")),
    "name_too_long": Problem(HTTPStatus.BAD_REQUEST, _("Please choose a shorter name: at most 80 characters.")),
    "language_unknown": Problem(HTTPStatus.BAD_REQUEST, _("Please choose Mandarin or English.")),
    "quality_unknown": Problem(HTTPStatus.BAD_REQUEST, _("Please choose fast or high quality.")),
    "text_required": Problem(HTTPStatus.BAD_REQUEST, _("Please write the sentence that you would like to hear.")),
    "text_too_long": Problem(HTTPStatus.BAD_REQUEST, _("Please write a shorter sentence: at most 200 characters.")),
    "audio_required": Problem(HTTPStatus.BAD_REQUEST, _("Please record something, or choose a file.")),
    "audio_unsupported": Problem(
        HTTPStatus.BAD_REQUEST,
        _("This is not a recording that can be read. Please use WAV, MP3, FLAC, OGG, M4A or WebM, or record it here."),
    ),
    "audio_damaged": Problem(
        HTTPStatus.BAD_REQUEST,
        _("The recording is damaged or incomplete. Please export it once more and upload it again, or record it here."),
    ),
    "audio_too_large": Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        _("The file is larger than 20 MB. Please use a shorter recording, or save it as MP3 or FLAC."),
    ),
    "audio_too_short": Problem(
        HTTPStatus.BAD_REQUEST,
        _("There is too little speech in it. Please record at least 3 seconds; 15 seconds are best."),
    ),
    "audio_too_long": Problem(
        HTTPStatus.BAD_REQUEST,
        _("The recording is too long. Please cut it to at most 60 seconds of speech."),
    ),
    "audio_silent": Problem(
        HTTPStatus.BAD_REQUEST,
        _("Nothing can be heard in it. Please check the microphone and record it again."),
    ),
    "audio_clipped": Problem(
        HTTPStatus.BAD_REQUEST,
        _("The recording is too loud and distorted. Please record it again with more distance."),
    ),
    "audio_noisy": Problem(
        HTTPStatus.BAD_REQUEST,
        _("Only noise can be made out, no speech. Please record it again in a quiet place."),
    ),
    "quota_exceeded": Problem(
        HTTPStatus.CONFLICT,
        _("You have no room left for recordings. Please delete a voice or a recording that you don’t need."),
    ),
    "storage_full": Problem(
        HTTPStatus.INSUFFICIENT_STORAGE,
        _("The disk is full: nothing new can be stored. Please tell the operator, and try again later."),
    ),
    "storage_unavailable": Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        _("The files cannot be reached just now. Nothing was lost; please try again in a moment."),
    ),
    "too_many_recordings": Problem(
        HTTPStatus.CONFLICT,
        _("A voice has at most 20 recordings. Please remove one first."),
    ),
    "voice_too_large": Problem(
        HTTPStatus.CONFLICT,
        _("The recordings of this voice are too large together. Please remove one first, or use shorter ones."),
    ),
    "last_recording": Problem(
        HTTPStatus.CONFLICT,
        _("This is the only recording of the voice. To remove it, delete the voice."),
    ),
    "not_ready": Problem(HTTPStatus.CONFLICT, _("This voice is not ready yet. Please try again in a moment.")),
    "not_failed": Problem(HTTPStatus.CONFLICT, _("Nothing has failed here: there is nothing to try again.")),
    "disabled": Problem(HTTPStatus.CONFLICT, _("This voice has been disabled by the operator.")),
    "deleting": Problem(HTTPStatus.CONFLICT, _("This voice is being deleted.")),
    "deletion_unfinished": Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        _(
            "Nobody is answered in this voice any more, but its files cannot be reached just now. They are deleted as "
            "soon as they can be; you can also delete the voice again."
        ),
    ),
    "operators_only": Problem(HTTPStatus.FORBIDDEN, _("Only operators may share a voice with everybody.")),
    "stock_voice": Problem(HTTPStatus.FORBIDDEN, _("This voice comes with AVATAR and cannot be changed.")),
    "fitting_impossible": Problem(
        HTTPStatus.CONFLICT,
        _("This voice cannot be brought closer with the engine that is running."),
    ),
    "fitting_no_better": Problem(None, _("Nothing closer was found; the voice stays as it was.")),
    "archive_unreadable": Problem(
        HTTPStatus.BAD_REQUEST,
        _("This is not a voice exported from AVATAR, or it is damaged. Please export it once more."),
    ),
    "archive_too_large": Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        _(
            "The file is larger than 100 MB, which no voice exported from AVATAR is. Please check that it is the right "
            "one."
        ),
    ),
    "no_speech": Problem(
        None,
        _("No speech could be recognised in the recording. Please record a few sentences in a quiet place."),
    ),
    "inference_unavailable": Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        _("The part that listens and speaks is not reachable. Nothing was lost; please try again in a moment."),
    ),
    "inference_busy": Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        _("Others are talking just now. Nothing was lost; please try again in a moment."),
    ),
    "inference_failed": Problem(
        HTTPStatus.BAD_GATEWAY,
        _("Making the voice did not work. The recording is kept; please try again."),
    ),
    "recording_missing": Problem(
        HTTPStatus.CONFLICT,
        _("The recording is gone from the storage. Please delete the voice and record it again."),
    ),
    "worker_lost": Problem(
        None,
        _("Making the voice was interrupted several times. The recording is kept; please try again."),
    ),
    "internal": Problem(None, _("Something went wrong on our side. The recording is kept; please try again.")),
    "server_error": Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        _("Something went wrong on our side. Please try again in a moment."),
    ),
    "range_invalid": Problem(
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        _("This part of the sound does not exist: it is shorter."),
    ),
    "invalid": Problem(HTTPStatus.BAD_REQUEST, _("This request could not be understood.")),
    "request_too_large": Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        _("This is more than can be sent here. Nothing of it was kept."),
    ),
    "not_found": Problem(HTTPStatus.NOT_FOUND, _("This does not exist, or not any more.")),
    "not_logged_in": Problem(HTTPStatus.FORBIDDEN, _("Please log in.")),
    "forbidden": Problem(HTTPStatus.FORBIDDEN, _("You are not allowed to do this.")),
    "method_not_allowed": Problem(HTTPStatus.METHOD_NOT_ALLOWED, _("This cannot be done here.")),
    "too_many_requests": Problem(HTTPStatus.TOO_MANY_REQUESTS, _("Too many requests. Please try again in a moment.")),
    "not_correctable": Problem(HTTPStatus.CONFLICT, _("Only what you said can be corrected.")),
    "longer_than_site": Problem(HTTPStatus.BAD_REQUEST, _("Nothing is kept here for longer than {days} days.")),
    "not_all_deleted": Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        _(
            "The recordings cannot be reached just now, so not everything could be deleted. What is left is still in "
            "your list; please try again in a moment."
        ),
        code="storage_unavailable",
    ),
    # Of the voice socket.
    "SERVER_FULL": Problem(None, _("All lines are busy. Please try again in a moment.")),
    "TOO_MANY_CALLS": Problem(
        None, _("You are in as many conversations as one person can have at once. Please end one of them first.")
    ),
    "OVERLOADED": Problem(None, _("The server has too much to do just now. Please try again in a moment.")),
    "ALREADY_PROCESSING": Problem(None, _("I am still answering. Stop the answer first.")),
    "NO_AUDIO_DATA": Problem(None, _("No sound arrived. Please check your microphone.")),
    "BUFFER_LIMIT_EXCEEDED": Problem(None, _("That was too long. Please say it in shorter pieces.")),
    "UNSUPPORTED_FORMAT": Problem(None, _("This kind of audio cannot be read. WAV and WebM can.")),
    "VOICE_GONE": Problem(None, _("The voice you chose is not available any more. Another one speaks now.")),
    "FELL_BEHIND": Problem(
        None, _("I cannot keep up just now: answers come late, or are left out. Please try again in a moment.")
    ),
    "NOT_KEPT": Problem(None, _("Not everything of this conversation can be kept just now.")),
    "KEPT_AGAIN": Problem(None, _("Keeping works again. What you say is kept.")),
    "CONVERSATION_GONE": Problem(
        None, _("This conversation has been deleted. You can go on talking, but nothing of it is kept any more.")
    ),
    "VALIDATION_ERROR": Problem(None, _("The browser sent something that was not understood.")),
    "JSON_DECODE_ERROR": Problem(None, _("The browser sent something that could not be read.")),
    "UNKNOWN_MESSAGE_TYPE": Problem(None, _("The browser sent something unknown. Please reload the page.")),
    "PROCESSING_ERROR": Problem(None, _("Something went wrong with this answer. Please try again.")),
    "INFERENCE_UNAVAILABLE": Problem(None, _("The voice models cannot be reached just now. Please try again soon.")),
    "FATAL_ERROR": Problem(None, _("Something went wrong and the call has ended. Please call again.")),
}


class ProblemError(Exception):
    """
    A request that cannot be met, or a job that failed, for a reason in the table.

    `problem` is a key of PROBLEMS, `field` the field of the request that was wrong, `detail` is for the log. `values`
    fill the places in the sentence.
    """

    def __init__(
        self, problem: str, *, field: str = "", detail: str = "", values: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(f"{problem}: {detail}" if detail else problem)
        self.problem = problem
        self.field = field
        self.values = dict(values or {})

    @property
    def code(self) -> str:
        """The code that programs are told."""
        return code_of(self.problem)

    @property
    def sentence(self) -> str:
        """What to tell the person, in the active language."""
        return sentence_of(self.problem, **self.values)


def code_of(problem: str) -> str:
    known = PROBLEMS.get(problem)
    return (known and known.code) or problem


def status_of(problem: str) -> HTTPStatus:
    """Return the HTTP status; 400 for problems of jobs, should one be a response."""
    return PROBLEMS[problem].status or HTTPStatus.BAD_REQUEST


def sentence_of(problem: str, **values: Any) -> str:
    """Return the sentence in the active language. A code that older rows have and the table has not is `internal`."""
    sentence = str(PROBLEMS.get(problem, PROBLEMS["internal"]).sentence)
    return sentence.format_map(values) if values else sentence


def describe(problem: str, *, field: str = "", detail: str = "", **values: Any) -> dict[str, str]:
    """Return the body of a refusal, as JSON has it. `detail` replaces the table's sentence."""
    body = {"code": code_of(problem), "detail": detail or sentence_of(problem, **values)}
    return body | ({"field": field} if field else {})
