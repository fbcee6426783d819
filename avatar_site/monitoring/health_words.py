"""The reasons of `/health` in words, for the operators' first page: there they are codes, for programs."""

from __future__ import annotations

from collections.abc import Mapping

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

_REASONS: Mapping[str, Promise] = {
    "database_unavailable": _("The database does not answer."),
    "database_locked": _("The database takes no writes."),
    "inference_unreachable": _("The process that holds the models does not answer."),
    "vram_short": _("The GPU’s memory is short."),
    "ram_short": _("The machine’s memory is short."),
    "backup_stale": _("There is no verified backup of the last day."),
    "prober_stopped": _("The health of the site is not probed any more."),
}
_ROLES: Mapping[str, Promise] = {
    "stt": _("speech recognition"),
    "llm": _("the language model"),
    "tts": _("the voice engine"),
    "encoder": _("the speaker encoder"),
}
#: What follows the role in a code.
_STATES: Mapping[str, Promise] = {
    "unavailable": _("{role} is unavailable."),
    "loading": _("{role} is being loaded."),
    "warming": _("{role} is being warmed up."),
    "on_fallback": _("{role} runs on its fallback."),
}


def describe_reason(code: str) -> str:
    """Return the sentence of a reason of `status.judge`; the code itself of one that is new."""
    if code in _REASONS:
        return str(_REASONS[code])
    name, _separator, state = code.partition("_")
    if name in _ROLES and state in _STATES:
        sentence = str(_STATES[state]).format(role=_ROLES[name])
        return sentence[:1].upper() + sentence[1:]
    if state == "down":
        return gettext("The process {name} does not run or does not answer.").format(name=name)
    return code
