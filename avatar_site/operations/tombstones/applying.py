"""
Applies tombstones to the database that Django has: to a copy that is prepared to take the place of the live one.

By the verbs of the domain: what belongs to a deleted voice, conversation or user goes with it, and its name from the
turns. The last value of a column wins. Applying twice changes nothing more.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
from django.contrib.auth.models import Group, Permission, User
from django.db import models, transaction
from django.utils.dateparse import parse_datetime

from avatar_site.lib import sqlite_erasure
from avatar_site.lib.stored_files import delete_or_leave
from avatar_site.operations.backups.manifest import NAME
from avatar_site.operations.models import Restore
from avatar_site.operations.tombstones import log
from avatar_site.operations.tombstones.log import Entry
from conversations import deletion
from conversations import services as conversations
from conversations.models import Conversation, RetentionChoice, Turn
from voices import services as voices
from voices.models import Availability, Consent, Preview, Recording, VoiceProfile

#: Entries this much older than the snapshot are applied as well: a trigger notes the time of its statement, and the
#: transaction may have been committed after the snapshot. To apply one that is in the snapshot changes nothing.
MARGIN = dt.timedelta(hours=1)
#: A difference to the present database that deletes more rows than this, and more than this share of a table, beyond
#: what the tombstones say, means that the present database is not what became of the backup.
FEW_ROWS = 10
MAX_SHARE = 0.5
BATCH = 500


#: Of tables, for operators.
NAMES = {
    "auth_user": "users",
    "auth_group": "groups",
    "auth_group_permissions": "permissions of groups",
    "auth_user_groups": "memberships of groups",
    "auth_user_user_permissions": "permissions of users",
    "voices_voiceprofile": "voices",
    "voices_recording": "recordings",
    "voices_preview": "previews",
    "voices_consent": "consents",
    "conversations_conversation": "conversations",
    "conversations_turn": "turns",
    "conversations_retentionchoice": "choices of a retention",
}


class UserState(msgspec.Struct, frozen=True):
    """What a user may do now."""

    id: int
    username: str
    date_joined: dt.datetime
    password: str
    is_active: bool
    is_staff: bool
    is_superuser: bool
    #: Names; of permissions as app.codename.
    groups: tuple[str, ...]
    permissions: tuple[str, ...]


class VoiceState(msgspec.Struct, frozen=True):
    """Whether a voice may be used now."""

    id: str
    availability: str
    is_shared: bool


class PresentKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the live database, to be compared with a copy that is older."""

    users: tuple[UserState, ...]
    voices: tuple[VoiceState, ...]
    #: Of each other table, the keys of its rows.
    keys: dict[str, list[str]]
    #: The backups that it was restored from, and when: name and time.
    restores: tuple[tuple[str, dt.datetime], ...] = ()


@dataclass(slots=True)
class Applied:
    """What was done to the copy, by table: rows that were deleted, rows that were changed."""

    deleted: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    #: Rows that were deleted because the present database has them no more, and no tombstone says why.
    missing: Counter[str] = field(default_factory=Counter)
    #: Why the present database was not compared; empty: it was, or there is none.
    refusal: str = ""

    def describe(self) -> list[str]:
        """Return sentences for the operator; none: nothing was done."""
        lines = []
        for title, counts in (
            ("Deleted again", self.deleted),
            ("Deleted, because the present database has them no more", self.missing),
            ("Changed again", self.changed),
        ):
            if counts:
                counted = sorted((NAMES.get(table, table), count) for table, count in counts.items())
                lines.append(f"{title}: {', '.join(f'{count} {name}' for name, count in counted)}.")
        if self.refusal:
            lines.append(f"The present database was not compared: {self.refusal}.")
        return lines


def encode_entries(entries: Sequence[Entry]) -> bytes:
    return msgspec.json.encode(entries)


def decode_entries(data: bytes) -> list[Entry]:
    return msgspec.json.decode(data, type=list[Entry])


def encode_present(present: PresentKeys) -> bytes:
    return msgspec.json.encode(present)


def decode_present(data: bytes) -> PresentKeys:
    return msgspec.json.decode(data, type=PresentKeys)


#: Tables with UUIDs for keys, in the order in which rows are deleted: what goes with others first.
_MODELS: dict[str, type[models.Model]] = {
    "voices_voiceprofile": VoiceProfile,
    "conversations_conversation": Conversation,
    "conversations_turn": Turn,
    "voices_recording": Recording,
    "voices_preview": Preview,
    "voices_consent": Consent,
}
_USERS = "auth_user"


def read_present_keys() -> PresentKeys:
    """Read what the live database has. Takes 40 bytes of memory a row. Raises DatabaseError."""
    people = []
    for user in User.objects.prefetch_related("groups", "user_permissions__content_type").order_by("pk"):
        people.append(
            UserState(
                id=user.pk,
                username=user.username,
                date_joined=user.date_joined,
                password=user.password,
                is_active=user.is_active,
                is_staff=user.is_staff,
                is_superuser=user.is_superuser,
                groups=tuple(group.name for group in user.groups.all()),
                permissions=tuple(map(_name_permission, user.user_permissions.all())),
            )
        )
    return PresentKeys(
        users=tuple(people),
        voices=tuple(
            VoiceState(str(pk), availability, is_shared)
            for pk, availability, is_shared in VoiceProfile.objects.order_by("pk").values_list(
                "pk", "availability", "is_shared"
            )
        ),
        keys={
            table: [str(pk) for pk in _manager(model).order_by("pk").values_list("pk", flat=True)]
            for table, model in _MODELS.items()
        },
        restores=tuple(Restore.objects.order_by("restored_at", "pk").values_list("name", "restored_at")),
    )


def apply(entries: Iterable[Entry], *, since: dt.datetime, present: PresentKeys | None) -> Applied:
    """
    Delete and revoke what was deleted and revoked since a moment, the time of the copy's snapshot.

    `present` is the live database, if it can be read: what it has no more is deleted as well, and what it forbids is
    forbidden. It is not used where it may not be what became of the backup: no user in common, restored since from an
    older backup, or so much missing that `FEW_ROWS` and `MAX_SHARE` are exceeded; `Applied.refusal` says so.

    All or nothing. Left to the caller: erasing deleted rows from the file, and draining the tombstones that this itself
    writes, which has to wait until the copy is live.
    """
    applied = Applied()
    wanted = log.compact(entry for entry in entries if entry.at >= since - MARGIN)
    with log.suspended(), sqlite_erasure.left_to_caller(), transaction.atomic():
        deletions: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in wanted:
            if entry.is_deletion:
                deletions[entry.table].append(entry)
        _delete_users(_find_users(deletions.pop(_USERS, [])), applied.deleted)
        _delete_rows({table: [entry.key for entry in found] for table, found in deletions.items()}, applied.deleted)
        for entry in deletions.pop("auth_group", []):
            applied.deleted["auth_group"] += Group.objects.filter(pk=entry.key, name=entry.values["name"]).delete()[0]
        for entry in wanted:
            if entry.table in log.MEMBERSHIPS:
                _remove_membership(entry, applied.deleted)
            elif not entry.is_deletion:
                _change(entry, applied.changed)
        if present is not None:
            _apply_present(present, applied, since=since)
    return applied


def _apply_present(present: PresentKeys, applied: Applied, *, since: dt.datetime) -> None:
    if reason := _find_reason_against(present, since=since):
        applied.refusal = reason
        return
    known = {user.id: user for user in present.users}
    users = [user for user in User.objects.order_by("pk") if not _is_known(user, known)]
    rows = {table: _find_missing(table, present.keys.get(table, [])) for table in _MODELS}
    counts = {_USERS: (len(users), User.objects.count())}
    counts |= {table: (len(missing), _manager(_MODELS[table]).count()) for table, missing in rows.items()}
    for table, (missing, count) in counts.items():
        if missing > FEW_ROWS and missing > count * MAX_SHARE:
            applied.refusal = f"{missing} of {count} {NAMES[table]} are missing there, and no tombstone says why"
            return
    _delete_users(users, applied.missing)
    _delete_rows(rows, applied.missing)
    for user in User.objects.order_by("pk"):
        _tighten_user(user, known[user.pk], applied.changed)
    voices_now = {uuid.UUID(state.id): state for state in present.voices}
    for profile in VoiceProfile.objects.order_by("pk"):
        # A stock voice may be newer than the live database.
        if state := voices_now.get(profile.pk):
            _tighten_voice(profile, state, applied.changed)


def _find_reason_against(present: PresentKeys, *, since: dt.datetime) -> str:
    """Say why the present database may not be what became of the backup; empty: it is."""
    found = {(user.pk, user.username, _round(user.date_joined)) for user in User.objects.all()}
    if not found & {(user.id, user.username, _round(user.date_joined)) for user in present.users}:
        return "it has no user in common with the backup"
    for name, restored_at in present.restores:
        if restored_at > since and _read_time(name) < since.replace(microsecond=0):
            return f"it was restored since, from {name}, which is older than the backup"
    return ""


def _read_time(backup_name: str) -> dt.datetime:
    if not NAME.fullmatch(backup_name):
        return dt.datetime.min.replace(tzinfo=dt.UTC)
    return dt.datetime.strptime(backup_name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)


def _is_known(user: User, known: Mapping[int, UserState]) -> bool:
    """Whether it is the same user, whose name or whose time of joining may have been changed since."""
    state = known.get(user.pk)
    return state is not None and (
        user.username == state.username or _round(user.date_joined) == _round(state.date_joined)
    )


def _find_missing(table: str, present: Sequence[str]) -> list[str]:
    known = set(present)
    return [key for pk in _manager(_MODELS[table]).values_list("pk", flat=True) if (key := str(pk)) not in known]


# --- deletions ---


def _find_users(entries: Iterable[Entry]) -> list[User]:
    found = [_find_user(entry.key, entry.values) for entry in entries]
    return [user for user in found if user is not None]


def _find_user(key: str | int, values: Mapping[str, Any]) -> User | None:
    """
    Return the user of this id who joined at the same second.

    The id may have been given to another since, so may the name; another site that shares the target has an "admin".
    """
    user = User.objects.filter(pk=key).first()
    joined_at = _read_time_of(values.get("date_joined"))
    return user if user is not None and _round(user.date_joined) == joined_at else None


def _round(at: dt.datetime) -> dt.datetime:
    # As the admin's form does with every user that it saves.
    return at.replace(microsecond=0)


def _delete_users(users: Iterable[User], counts: Counter[str]) -> None:
    for user in users:
        user.delete()
        counts[_USERS] += 1


def _delete_rows(keys: Mapping[str, Sequence[str]], counts: Counter[str]) -> None:
    """Delete rows by the verbs of their apps, voices and conversations before their parts."""
    for table in _MODELS:
        ids = [uuid.UUID(key) for key in keys.get(table, ())]
        for start in range(0, len(ids), BATCH):
            if count := _DELETE[table](ids[start : start + BATCH]):
                counts[table] += count


def _delete_voices(ids: Collection[uuid.UUID]) -> int:
    # Stock voices come and go with releases.
    profiles = list(VoiceProfile.objects.filter(pk__in=ids, owner__isnull=False).order_by("pk"))
    for profile in profiles:
        voices.delete_voice_profile(profile=profile)
    return len(profiles)


def _delete_conversations(ids: Collection[uuid.UUID]) -> int:
    found = Conversation.objects.filter(pk__in=ids)
    count = found.count()
    deletion.delete_rows_of_conversations(conversations=found)
    return count


_DELETE: dict[str, Callable[[Collection[uuid.UUID]], int]] = {
    "voices_voiceprofile": _delete_voices,
    "conversations_conversation": _delete_conversations,
    "conversations_turn": lambda ids: conversations.delete_turns(turns=Turn.objects.filter(pk__in=ids)),
    "voices_recording": lambda ids: voices.delete_recordings(ids=ids),
    "voices_preview": lambda ids: voices.delete_previews(ids=ids),
    "voices_consent": lambda ids: voices.delete_unused_consents(ids=ids),
}


def _remove_membership(entry: Entry, counts: Counter[str]) -> None:
    if not entry.is_deletion:
        # The last that happened to it; it is not given to anybody who has not got it.
        return
    permission = _find_permission(str(entry.values.get("permission", "")))
    if entry.table == "auth_group_permissions":
        held: Any = Group.permissions.through.objects.filter(group=_find_group(entry), permission=permission)
    else:
        user = _find_user(entry.values["user_id"], entry.values)
        if entry.table == "auth_user_groups":
            held = User.groups.through.objects.filter(user=user, group=_find_group(entry))
        else:
            held = User.user_permissions.through.objects.filter(user=user, permission=permission)
    if count := held.delete()[0]:
        counts[entry.table] += count


def _find_group(entry: Entry) -> Group | None:
    return Group.objects.filter(name=entry.values.get("group")).first()


def _find_permission(name: str) -> Permission | None:
    app_label, _, codename = name.partition(".")
    return Permission.objects.filter(content_type__app_label=app_label, codename=codename).first()


def _name_permission(permission: Permission) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"


# --- changed values ---

#: The models of tables whose rows change.
_CHANGED: dict[str, type[models.Model]] = {
    _USERS: User,
    "voices_voiceprofile": VoiceProfile,
    "conversations_conversation": Conversation,
    "conversations_turn": Turn,
    "conversations_retentionchoice": RetentionChoice,
}


def _change(entry: Entry, counts: Counter[str]) -> None:
    model = _CHANGED.get(entry.table)
    if model is None:
        # Of a newer version, which watches more.
        return
    known = {field.name for field in model._meta.concrete_fields} - log.DESCRIPTIONS
    columns = {name: value for name, value in entry.values.items() if name in known}
    is_changed = False
    match entry.table:
        case "auth_user":
            is_changed = _change_row(_find_user(entry.key, entry.values), columns)
        case "voices_voiceprofile":
            is_changed = _change_voice(VoiceProfile.objects.filter(pk=entry.key).first(), columns)
        case "conversations_conversation":
            is_changed = _change_row(Conversation.objects.filter(pk=entry.key).first(), columns)
        case "conversations_turn":
            is_changed = _change_turn(Turn.objects.filter(pk=entry.key).first(), columns)
        case "conversations_retentionchoice":
            is_changed = _change_retention(_find_user(entry.values["user_id"], entry.values), columns)
    if is_changed:
        counts[entry.table] += 1


def _change_row(row: models.Model | None, columns: Mapping[str, Any]) -> bool:
    """Write values that differ from a row's own. Return whether there were any."""
    if row is None:
        return False
    values = {name: _read_value(row, name, value) for name, value in columns.items()}
    differing = {name: value for name, value in values.items() if getattr(row, name) != value}
    if differing:
        _manager(type(row)).filter(pk=row.pk).update(**differing)
    return bool(differing)


def _read_value(row: models.Model, name: str, value: Any) -> Any:
    # SQLite writes booleans as numbers, and times without a zone.
    field = cast("models.Field[Any, Any]", row._meta.get_field(name))
    return _read_time_of(value) if isinstance(field, models.DateTimeField) else field.to_python(value)


def _read_time_of(value: object) -> dt.datetime | None:
    parsed = parse_datetime(value) if isinstance(value, str) else None
    return parsed.replace(tzinfo=dt.UTC) if parsed is not None and parsed.tzinfo is None else parsed


def _change_voice(profile: VoiceProfile | None, columns: Mapping[str, Any]) -> bool:
    if profile is None or (profile.is_stock and columns.get("availability") == Availability.DELETING):
        return False
    is_changed = "is_shared" in columns and _change_row(profile, {"is_shared": columns["is_shared"]})
    availability = columns.get("availability", profile.availability)
    if availability == profile.availability:
        return is_changed
    if availability == Availability.DELETING:
        voices.delete_voice_profile(profile=profile)
    elif availability == Availability.DISABLED:
        voices.disable(profile=profile)
    else:
        voices.enable(profile=profile)
    return True


def _change_turn(turn: Turn | None, columns: Mapping[str, Any]) -> bool:
    if turn is None:
        return False
    is_changed = _change_row(turn, {name: value for name, value in columns.items() if name != "audio"})
    if is_changed and "text" in columns:
        conversations.index_again(turn_id=turn.pk)
    if "audio" in columns and turn.audio:
        Turn.objects.filter(pk=turn.pk).update(audio="", audio_bytes=0)
        delete_or_leave(turn.audio_name)
        is_changed = True
    return is_changed


def _change_retention(user: User | None, columns: Mapping[str, Any]) -> bool:
    if user is None:
        return False
    choice = RetentionChoice.objects.filter(user=user).first()
    if choice is not None:
        return _change_row(choice, columns)
    RetentionChoice.objects.create(user=user, **columns)
    return True


def _tighten_user(user: User, state: UserState, counts: Counter[str]) -> None:
    """Take from a user of the copy what the same user has not got in the present database."""
    flags = ("is_active", "is_staff", "is_superuser")
    is_changed = _change_row(
        user,
        {"password": state.password} | {name: False for name in flags if not getattr(state, name)},
    )
    lost_groups = user.groups.exclude(name__in=state.groups)
    lost = [each for each in user.user_permissions.all() if _name_permission(each) not in state.permissions]
    if lost_groups or lost:
        user.groups.remove(*lost_groups)
        user.user_permissions.remove(*lost)
        is_changed = True
    if is_changed:
        counts[_USERS] += 1


def _tighten_voice(profile: VoiceProfile, state: VoiceState, counts: Counter[str]) -> None:
    columns: dict[str, Any] = {}
    if state.availability != Availability.AVAILABLE and profile.availability == Availability.AVAILABLE:
        columns["availability"] = state.availability
    if not state.is_shared:
        columns["is_shared"] = False
    if _change_voice(profile, columns):
        counts["voices_voiceprofile"] += 1


def _manager(model: type[models.Model]) -> models.QuerySet[Any]:
    return model._default_manager.all()
