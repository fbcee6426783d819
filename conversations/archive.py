"""
The export of conversations: a ZIP of Markdown, JSON and audio, made while it is sent.

Holds a piece of audio and a page of turns in memory, and no transaction or cursor while a client reads.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import uuid
import zipfile
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from typing import IO, Any, cast

from asgiref.sync import sync_to_async
from django.utils import timezone

from avatar_site.lib.text import clean_line, strip_unseen
from conversations.models import Conversation, Speaker, Turn

logger = logging.getLogger(__name__)

PAGE = 200
PIECE_BYTES = 256 * 1024
NAME_CHARACTERS = 50
#: Characters that some file system or archive program does not take in a name.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff<>:"/\\|?*]+')


class _Outlet:
    """A write-only file, from which the zip is taken piece by piece."""

    def __init__(self) -> None:
        self._pieces = bytearray()

    def write(self, data: bytes) -> int:
        self._pieces += data
        return len(data)

    def flush(self) -> None:
        """Do nothing: there is no buffer below."""

    def __len__(self) -> int:
        return len(self._pieces)

    def take(self) -> bytes:
        data = bytes(self._pieces)
        self._pieces.clear()
        return data


async def stream_archive(conversation_ids: Sequence[uuid.UUID]) -> AsyncIterator[bytes]:
    """Make the archive piece by piece in the request's thread, as fast as the client reads."""
    pieces = write_archive(conversation_ids)
    try:
        while piece := await sync_to_async(lambda: next(pieces, b""))():
            yield piece
    finally:
        # The client has left: close the open file in the thread that opened it.
        await sync_to_async(pieces.close)()


def write_archive(conversation_ids: Sequence[uuid.UUID]) -> Generator[bytes, None, None]:
    """Yield a ZIP of the conversations, except those deleted since. Never yields an empty piece."""
    outlet = _Outlet()
    # Stored: audio is compressed already, and the rest is small.
    with zipfile.ZipFile(cast(IO[bytes], outlet), "w", zipfile.ZIP_STORED) as archive:
        for conversation_id in conversation_ids:
            conversation = Conversation.objects.filter(pk=conversation_id).first()
            if conversation is None:
                continue
            for _ in _write_conversation(archive, conversation):
                if len(outlet) >= PIECE_BYTES:
                    yield outlet.take()
    yield outlet.take()


def _write_conversation(archive: zipfile.ZipFile, conversation: Conversation) -> Iterator[None]:
    folder = make_folder_name(conversation)
    written_at = timezone.localtime(conversation.last_turn_at or conversation.created_at)
    with archive.open(_describe_entry(f"{folder}/conversation.md", written_at), "w", force_zip64=True) as file:
        file.write(_write_heading(conversation).encode())
        for turn in _read_turns(conversation):
            file.write(_write_paragraph(turn).encode())
            yield
    with archive.open(_describe_entry(f"{folder}/conversation.json", written_at), "w", force_zip64=True) as file:
        head = json.dumps(_describe_conversation(conversation), ensure_ascii=False, indent=1)
        file.write(f'{head[:-2]},\n "turns": ['.encode())
        separator = "\n"
        for turn in _read_turns(conversation):
            file.write((separator + json.dumps(_describe_turn(turn), ensure_ascii=False)).encode())
            separator = ",\n"
            yield
        file.write(b"\n]}\n")
    for turn in _read_turns(conversation):
        if not turn.audio:
            continue
        try:
            source = turn.audio.open("rb")
        except FileNotFoundError:
            logger.warning("audio of turn %s is gone: left out of an export", turn.pk)
            continue
        entry = _describe_entry(f"{folder}/{make_audio_name(turn)}", timezone.localtime(turn.created_at))
        with source, archive.open(entry, "w", force_zip64=True) as file:
            while data := source.read(PIECE_BYTES):
                file.write(data)
                yield
    yield


def _describe_entry(name: str, written_at: dt.datetime) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=written_at.timetuple()[:6])
    entry.external_attr = 0o600 << 16
    return entry


def _read_turns(conversation: Conversation) -> Iterator[Turn]:
    last = 0
    while page := list(conversation.turns.filter(sequence__gt=last).in_order()[:PAGE]):
        yield from page
        last = page[-1].sequence


def make_folder_name(conversation: Conversation) -> str:
    """Return a name that is unique to the conversation and valid on every file system."""
    day = timezone.localtime(conversation.created_at).date().isoformat()
    title = " ".join(_UNSAFE.sub(" ", conversation.title).split())[:NAME_CHARACTERS].strip(". ")
    return " ".join(part for part in (day, title, str(conversation.pk)[:8]) if part)


def make_audio_name(turn: Turn) -> str:
    return f"audio/{turn.sequence:04}-{turn.speaker}.{turn.audio_name.rpartition('.')[2]}"


def _write_heading(conversation: Conversation) -> str:
    began_at = timezone.localtime(conversation.created_at)
    title = clean_line(conversation.title) or str(conversation.pk)
    return f"# {_escape(title)}\n\n{began_at:%Y-%m-%d %H:%M:%S %z}\n"


def _write_paragraph(turn: Turn) -> str:
    who = "You" if turn.speaker == Speaker.USER else "AVATAR"
    notes = [f"{timezone.localtime(turn.created_at):%Y-%m-%d %H:%M:%S}"]
    if turn.voice_name:
        notes.append(clean_line(turn.voice_name))
    if turn.was_interrupted:
        notes.append("interrupted")
    if turn.is_superseded:
        notes.append("replaced by a later answer")
    lines = [f"\n**{who}** ({_escape(', '.join(notes))})"]
    if turn.audio:
        lines[0] += f" [audio]({make_audio_name(turn)})"
    lines.append("\n".join(f"> {_escape(line)}" for line in strip_unseen(turn.text).splitlines()) or ">")
    if turn.heard_text:
        lines.append(f"(heard as: {_escape(clean_line(turn.heard_text))})")
    return "\n\n".join(lines) + "\n"


def _escape(text: str) -> str:
    """Escape what Markdown would read as markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text)


def _describe_conversation(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": str(conversation.pk),
        "title": conversation.title,
        "is_pinned": conversation.is_pinned,
        "created_at": conversation.created_at.isoformat(),
        "last_turn_at": conversation.last_turn_at.isoformat() if conversation.last_turn_at else None,
    }


def _describe_turn(turn: Turn) -> dict[str, Any]:
    return {
        "id": str(turn.pk),
        "sequence": turn.sequence,
        "speaker": turn.speaker,
        "text": turn.text,
        "heard_text": turn.heard_text,
        "corrected_at": turn.corrected_at.isoformat() if turn.corrected_at else None,
        "is_superseded": turn.is_superseded,
        "language": turn.language,
        "created_at": turn.created_at.isoformat(),
        "was_interrupted": turn.was_interrupted,
        "voice": turn.voice_name,
        "quality": turn.quality,
        "latency_ms": turn.latency,
        "audio": make_audio_name(turn) if turn.audio else None,
        "audio_duration_ms": turn.audio_duration_ms,
    }
