"""What an alert says, in the reader's language. Made when it is read: a row has its figures only."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.functional import Promise
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

#: By the key of the condition.
TITLES: Mapping[str, Promise] = {
    "memory": _("Memory is short"),
    "error_rate": _("Many replies fail"),
    "latency": _("Replies are slow"),
    "lost_turns": _("Turns were lost"),
    "process_down": _("A process is down"),
    "model_down": _("A model is unavailable"),
    "role_on_fallback": _("A role is on its fallback"),
    "restart_loop": _("A process is restarted again and again"),
    "disk_space": _("The disk is almost full"),
    "log_folder": _("The logs are too large"),
    "backup_stale": _("The backup is too old"),
    "backup_unverified": _("A backup is not verified"),
    "retention_unfinished": _("The retention did not finish"),
    "sweep_refused": _("The sweep of orphans was refused"),
    "queue_stuck": _("A queue is stuck"),
    "certificate": _("The certificate expires"),
    "secret_age": _("A secret is old"),
    "monitoring_stalled": _("Nothing is watched"),
    "database_away": _("The database is away"),
}

#: What a subject is called, where that is not its own name.
_SUBJECTS: Mapping[str, Promise] = {
    "ram": _("the machine's memory"),
    "kv_cache": _("the language model's KV cache"),
    "stt": _("speech recognition"),
    "llm": _("the language model"),
    "tts": _("the voice engine"),
    "encoder": _("the speaker encoder"),
    "data": _("the disk of the data folder"),
    "backups": _("the disk of the backups"),
}


def find_title(condition: str) -> str:
    """Return the title of a condition; the key of one that this version does not have."""
    return str(TITLES.get(condition, condition))


def describe(condition: str, subject: str, figures: Mapping[str, Any]) -> str:
    """Return a sentence in the current language and time zone. Figures of another version cost its details only."""
    maker = _SENTENCES.get(condition)
    title = f"{find_title(condition)}{f' ({subject})' if subject else ''}"
    try:
        return maker(subject, figures) if maker else title
    except (KeyError, TypeError, ValueError):
        return title


def _name(subject: str) -> str:
    if subject.startswith("gpu"):
        return gettext("memory of GPU {number}").format(number=subject.removeprefix("gpu"))
    return str(_SUBJECTS.get(subject, subject))


def _number(value: float, decimals: int = 1) -> str:
    return number_format(value, 0 if float(value).is_integer() else decimals)


def _moment(text: str) -> str:
    return date_format(timezone.localtime(dt.datetime.fromisoformat(text)), "Y-m-d H:i")


def _add(sentence: str, problem: object) -> str:
    """Append what an engine or a process said, which is in English."""
    return (
        gettext("{sentence}: {problem}").format(sentence=sentence.rstrip(".。"), problem=problem)
        if problem
        else sentence
    )


def _memory(subject: str, figures: Mapping[str, Any]) -> str:
    template = gettext("{percent}% of {memory} is used; the limit is {limit}%.")
    return template.format(
        percent=_number(figures["percent"]), memory=_name(subject), limit=_number(figures["limit_percent"])
    )


def _error_rate(subject: str, figures: Mapping[str, Any]) -> str:
    count = int(figures["errors"])
    return ngettext(
        "{percent}% of replies failed in the last ten minutes ({count} error).",
        "{percent}% of replies failed in the last ten minutes ({count} errors).",
        count,
    ).format(percent=_number(figures["percent"]), count=count)


def _latency(subject: str, figures: Mapping[str, Any]) -> str:
    return gettext(
        "One in twenty replies begins after {seconds} s or later (P95 of ten minutes); the limit is {limit} s."
    ).format(seconds=_number(figures["p95_s"], 2), limit=_number(figures["limit_s"]))


def _lost_turns(subject: str, figures: Mapping[str, Any]) -> str:
    count = int(figures["turns"])
    return ngettext(
        "{count} turn could not be kept in the last ten minutes.",
        "{count} turns could not be kept in the last ten minutes.",
        count,
    ).format(count=count)


def _process_down(subject: str, figures: Mapping[str, Any]) -> str:
    return _add(gettext("The process {name} does not run or does not answer.").format(name=subject), figures["problem"])


def _model_down(subject: str, figures: Mapping[str, Any]) -> str:
    if minutes := figures.get("loading_minutes"):
        template = gettext("After {minutes} minutes there is no engine yet for {role}.")
        return template.format(role=_name(subject), minutes=_number(minutes))
    return _add(gettext("There is no engine for {role}.").format(role=_name(subject)), figures["problem"])


def _role_on_fallback(subject: str, figures: Mapping[str, Any]) -> str:
    template = gettext("The fallback {engine} does the work of {role}.")
    engine = f"{figures['engine']} {figures['model']}".strip()
    return _add(template.format(role=_name(subject), engine=engine), figures["problem"])


def _restart_loop(subject: str, figures: Mapping[str, Any]) -> str:
    template = gettext("The process {name} was restarted {count} times in {minutes} minutes.")
    return _add(
        template.format(name=subject, count=int(figures["restarts"]), minutes=_number(figures["minutes"])),
        figures["problem"],
    )


def _disk_space(subject: str, figures: Mapping[str, Any]) -> str:
    template = gettext("{free} are free on {disk}; the limit is {limit}.")
    return template.format(
        free=filesizeformat(figures["free_bytes"]), disk=_name(subject), limit=filesizeformat(figures["limit_bytes"])
    )


def _log_folder(subject: str, figures: Mapping[str, Any]) -> str:
    template = gettext("The logs take {size}; the limit is {limit}.")
    return template.format(size=filesizeformat(figures["bytes"]), limit=filesizeformat(figures["limit_bytes"]))


def _backup_stale(subject: str, figures: Mapping[str, Any]) -> str:
    hours = _number(figures["hours"], 0)
    if not figures["backed_up_at"]:
        return gettext("There is no verified backup, {hours} hours after the site began.").format(hours=hours)
    template = gettext("The newest verified backup is of {moment}, {hours} hours ago.")
    return template.format(moment=_moment(figures["backed_up_at"]), hours=hours)


def _backup_unverified(subject: str, figures: Mapping[str, Any]) -> str:
    return gettext("Backup {name} could not be verified.").format(name=figures["name"])


def _retention_unfinished(subject: str, figures: Mapping[str, Any]) -> str:
    if not figures["started_at"]:
        return gettext("The retention has never run.")
    moment = _moment(figures["started_at"])
    if figures["is_finished"]:
        return gettext("The retention has not run since {moment}.").format(moment=moment)
    return gettext("The retention that began at {moment} did not finish.").format(moment=moment)


def _sweep_refused(subject: str, figures: Mapping[str, Any]) -> str:
    if subject == "restore":
        return gettext("A restore is not confirmed yet: until then, no audio without a row is removed.")
    if subject == "voices":
        template = gettext("{files} of {count} files of voices belong to no voice: is this another database?")
        return template.format(files=int(figures["files_without_voice"]), count=int(figures["files"]))
    return gettext(
        "{files} files belong to no turn, and {turns} turns miss their file: is the storage the right one, and there?"
    ).format(files=int(figures["files_without_turn"]), turns=int(figures["turns_without_file"]))


def _queue_stuck(subject: str, figures: Mapping[str, Any]) -> str:
    template = gettext("The oldest task in queue {name} has waited for {minutes} minutes ({count} wait).")
    return template.format(name=subject, minutes=_number(figures["minutes"]), count=int(figures["messages"]))


def _certificate(subject: str, figures: Mapping[str, Any]) -> str:
    if not figures.get("expires_at"):
        template = gettext("The certificate of {name} cannot be read.")
        return _add(template.format(name=figures["name"]), figures["problem"])
    template = gettext("The certificate of {name} expires at {moment}.")
    return template.format(name=figures["name"], moment=_moment(figures["expires_at"]))


def _secret_age(subject: str, figures: Mapping[str, Any]) -> str:
    template = gettext("{name} has been in use for {days} days: replace it.")
    return template.format(name=subject, days=int(figures["days"]))


def _stalled(subject: str, figures: Mapping[str, Any]) -> str:
    return gettext(
        "Nothing has been examined since {moment}: maintenance or beat does not run, or all its threads are busy."
    ).format(moment=_moment(figures["since"]))


def _database_away(subject: str, figures: Mapping[str, Any]) -> str:
    template = gettext("The database has not taken anything since {moment}.")
    return _add(template.format(moment=_moment(figures["since"])), figures["problem"])


_SENTENCES: Mapping[str, Callable[[str, Mapping[str, Any]], str]] = {
    "memory": _memory,
    "error_rate": _error_rate,
    "latency": _latency,
    "lost_turns": _lost_turns,
    "process_down": _process_down,
    "model_down": _model_down,
    "role_on_fallback": _role_on_fallback,
    "restart_loop": _restart_loop,
    "disk_space": _disk_space,
    "log_folder": _log_folder,
    "backup_stale": _backup_stale,
    "backup_unverified": _backup_unverified,
    "retention_unfinished": _retention_unfinished,
    "sweep_refused": _sweep_refused,
    "queue_stuck": _queue_stuck,
    "certificate": _certificate,
    "secret_age": _secret_age,
    "monitoring_stalled": _stalled,
    "database_away": _database_away,
}
