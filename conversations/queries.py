"""Reads conversations and turns for lists, for pages and for the language model."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models import Q
from django.utils import timezone

from conversations import search
from conversations.models import ANY_DELETED_VOICE, Conversation, Turn
from voices.models import VoiceProfile

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from conversations.models import ConversationQuerySet

#: Turns that are read at most to find the matches of one page of conversations.
MAX_CANDIDATES = 2_000

#: Each turn on a page has a player of its own.
TURNS_A_PAGE = 100
#: How many turns follow the one of `around`.
TURNS_BEHIND = 20


@dataclass(frozen=True, slots=True)
class TurnPage:
    """A page of a conversation's turns, in order."""

    turns: list[Turn]
    has_earlier: bool = False
    has_later: bool = False


def find_turns(
    conversation: Conversation,
    *,
    before: int | None = None,
    after: int | None = None,
    around: uuid.UUID | None = None,
) -> TurnPage:
    """
    Return the newest turns; or those before a sequence number, after one, or around a turn.

    Where there are none, or no such turn, the newest.
    """
    turns = conversation.turns.all()
    if around is not None and (sought := turns.filter(pk=around).first()):
        before = sought.sequence + 1 + TURNS_BEHIND
    if after is not None:
        page = list(turns.filter(sequence__gt=after).in_order()[:TURNS_A_PAGE])
    else:
        found = turns if before is None else turns.filter(sequence__lt=before)
        page = list(found.order_by("-sequence", "-pk")[:TURNS_A_PAGE])[::-1]
    if not page:
        return TurnPage([]) if before is None and after is None else find_turns(conversation)
    has_earlier = turns.filter(sequence__lt=page[0].sequence).exists()
    return TurnPage(page, has_earlier, has_later=turns.filter(sequence__gt=page[-1].sequence).exists())


def find_conversations(*, owner: User, wanted: Mapping[str, Any]) -> ConversationQuerySet:
    """Return the conversations of `owner` that match a validated `ListingSerializer`, in order."""
    found = Conversation.objects.owned_by(owner).with_turns()
    found = found.going_on(since=_begin(wanted.get("from")), before=_begin(wanted.get("to"), days_later=1))
    if wanted.get("voice") == ANY_DELETED_VOICE:
        found = found.spoken_by_deleted_voices()
    elif wanted.get("voice"):
        found = found.spoken_by(wanted["voice"])
    if wanted.get("pinned") is not None:
        found = found.filter(is_pinned=wanted["pinned"])
    if wanted.get("q", "").strip():
        found = found.matching(wanted["q"], owner=owner)
    found = found.with_figures()
    return found.oldest_first() if wanted.get("ordering") == "time" else found.newest_first()


def find_voices(user: User) -> list[tuple[uuid.UUID, str]]:
    """
    Return the ids and names of voices to filter by: those that a person can use, then others that spoke to them.

    The name of one that is disabled or no longer shared is that of its last turn.
    """
    usable = list(VoiceProfile.objects.usable_by(user).for_choosing().values_list("pk", "name"))
    spoken = Turn.objects.filter(conversation__owner=user)
    ids = spoken.filter(voice_profile__isnull=False).order_by().values_list("voice_profile", flat=True).distinct()
    names = {}
    for pk in set(ids) - {pk for pk, _ in usable}:
        # Few: disabled ones, and others' that were shared once.
        last = spoken.filter(voice_profile=pk).order_by("-created_at", "-pk").first()
        names[pk] = last.voice_name if last else ""
    return usable + sorted(names.items(), key=lambda each: (each[1], each[0]))


def _begin(day: dt.date | None, *, days_later: int = 0) -> dt.datetime | None:
    if day is None:
        return None
    try:
        moment = dt.datetime.combine(day + dt.timedelta(days=days_later), dt.time.min)
        return timezone.make_aware(moment)
    except OverflowError:
        # The last day of the calendar.
        return None


def add_voices(conversations: Sequence[Conversation]) -> None:
    """Set `voices` of each: one unsaved turn per voice that spoke in it, ordered by name."""
    found: dict[uuid.UUID, dict[tuple[uuid.UUID | None, str], Turn]] = {}
    spoken = Turn.objects.filter(conversation__in=[c.pk for c in conversations]).exclude(voice_name="").order_by()
    for row in spoken.values_list("conversation_id", "voice_profile_id", "voice_name").distinct():
        conversation_id, voice_profile_id, voice_name = row
        turn = Turn(voice_profile_id=voice_profile_id, voice_name=voice_name)
        found.setdefault(conversation_id, {})[voice_profile_id, voice_name] = turn
    for conversation in conversations:
        voices = found.get(conversation.pk, {}).values()
        conversation.voices = sorted(voices, key=lambda turn: turn.voice_name)  # type: ignore[attr-defined]  # ours


def add_matches(conversations: Sequence[Conversation], query: str) -> None:
    """Set `match` of each: an excerpt of the first turn that has all terms of the query, else of the title."""
    terms = search.parse_query(query)
    matches = _find_turns(conversations, terms) if terms else {}
    for conversation in conversations:
        match: dict[str, Any] | None = matches.get(conversation.pk)
        if match is None and query.strip():
            spans = search.find_spans(conversation.title, terms)
            match = {"turn_id": None, "speaker": None, "pieces": search.cut_excerpt(conversation.title, spans)}
        conversation.match = match  # type: ignore[attr-defined]  # ours


def _find_turns(conversations: Sequence[Conversation], terms: Sequence[search.Term]) -> dict[uuid.UUID, dict[str, Any]]:
    # A page's turns are few: reading them is faster than another search.
    has_all = Q()
    for term in terms:
        has_all &= Q(words__text__contains=" ".join(token.key for token in term))
    turns = Turn.objects.filter(has_all, conversation__in=[c.pk for c in conversations])
    rows = turns.in_order().values_list("conversation_id", "pk", "speaker", "text")[:MAX_CANDIDATES]
    matches: dict[uuid.UUID, dict[str, Any]] = {}
    for conversation_id, turn_id, speaker, text in rows:
        if conversation_id in matches:
            continue
        if spans := search.find_spans(text, terms):
            pieces = search.cut_excerpt(text, spans)
            matches[conversation_id] = {"turn_id": turn_id, "speaker": speaker, "pieces": pieces}
    return matches


def read_recent_messages(*, conversation_id: uuid.UUID, limit: int) -> list[tuple[uuid.UUID, str, str]]:
    """Return the last `limit` turns that the language model is told of, oldest first, as (turn id, speaker, text)."""
    turns = Turn.objects.filter(conversation_id=conversation_id).remembered().order_by("-sequence", "pk")
    return list(reversed(turns.values_list("pk", "speaker", "text")[:limit]))


def read_messages_up_to(
    *, conversation_id: uuid.UUID, turn_id: uuid.UUID, limit: int
) -> list[tuple[uuid.UUID, str, str]] | None:
    """Return a turn after up to `limit` earlier ones, as `read_recent_messages`. None if it cannot be corrected."""
    turn = Turn.objects.filter(conversation_id=conversation_id, pk=turn_id).first()
    if turn is None or not turn.can_be_corrected:
        return None
    before = Turn.objects.filter(conversation_id=conversation_id, sequence__lt=turn.sequence).remembered()
    said = list(before.order_by("-sequence", "pk").values_list("pk", "speaker", "text")[:limit])
    return [*reversed(said), (turn.pk, turn.speaker, turn.text)]
