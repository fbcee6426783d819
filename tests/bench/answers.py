"""
`make bench-answers`: everyday questions to the language model of the cpu profile, and how many it answers rightly.

Questions and rules are in answers.toml and answers_held_out.toml. They are asked in calls, each with the history of its
call, of the engine as a call asks it, typed and not spoken. Two settings are compared on the same weights in one
run: `before` is how AVATAR asked before it had examples and facts (kept here), `after` is how it asks now.
The answers of the held-out part are not printed unless asked for: prompt and settings are tuned without reading them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import sys
import time
import tomllib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import opencc

from inference.config import InferenceConfig
from inference.engines import llama_cpp
from inference.interfaces import GenerationEvent, GenerationOptions, Message, TextDelta
from inference.models.store import model_dir
from realtime.call.prompt import (
    ANSWER_IN_CHINESE,
    ANSWER_IN_ENGLISH,
    EXAMPLES,
    SYSTEM_PROMPT,
    Scene,
    choose_reply_language,
    compose,
    is_chinese,
)
from realtime.reply_language import generate_in

FOLDER = Path(__file__).parent
PARTS = {"open": FOLDER / "answers.toml", "held out": FOLDER / "answers_held_out.toml"}
NOW = datetime(2026, 3, 12, 14, 25, tzinfo=ZoneInfo("Asia/Taipei"))
MODEL = "qwen2.5-coder-1.5b"

_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
_HAN = re.compile(r"[\u3400-\u9fff]")
_FOREIGN = re.compile(f"[{llama_cpp.FOREIGN_SCRIPTS}]")


@dataclass(frozen=True, slots=True)
class Answer:
    setting: str
    part: str
    call: str
    kind: str
    question: str
    answer: str
    faults: list[str]
    language: str
    ttft_ms: int


@dataclass(frozen=True, slots=True)
class Setting:
    """How a question is put to the engine."""

    name: str
    compose: Callable[[Sequence[Message], str], list[Message]]
    options: GenerationOptions
    grammar: str
    is_language_watched: bool

    def ask(
        self, llm: llama_cpp.LlamaCpp, history: Sequence[Message], question: str, seed: int
    ) -> AsyncGenerator[GenerationEvent, None]:
        options = GenerationOptions(
            self.options.max_tokens, self.options.temperature, seed, self.options.repeat_penalty
        )
        language = choose_reply_language(question) if self.is_language_watched else None
        return generate_in(language, llm, self.compose(history, question), options)


# --- as it was before ---

SYSTEM_PROMPT_BEFORE = (
    "你是 AVATAR，台灣的語音助理，正在和人聊天。用台灣的繁體中文回答；對方說英文就用英文。"
    "你的話會被唸出來：簡短自然，一到三句，第一句要短，不用條列、Markdown、表情符號或網址。不知道就說不知道。"
)


def compose_before(history: Sequence[Message], question: str) -> list[Message]:
    messages = [Message("system", SYSTEM_PROMPT_BEFORE)]
    is_expected_chinese = True
    for message in [*history, Message("user", question)] if question else history:
        content = message.content
        if message.role == "user" and not is_chinese(content):
            content = ANSWER_IN_ENGLISH + content
            is_expected_chinese = False
        elif message.role == "user" and not is_expected_chinese:
            content = ANSWER_IN_CHINESE + content
            is_expected_chinese = True
        messages.append(Message(message.role, content))
    return messages


BEFORE = Setting("before", compose_before, GenerationOptions(256, 0.6, None, 1.1), "", False)


# --- as it is ---


def make_after(temperature: float, repeat_penalty: float) -> Setting:
    scene = Scene(SYSTEM_PROMPT, EXAMPLES, "台灣台北", lambda: NOW)
    return Setting(
        "after",
        lambda history, question: compose(scene, history, question),
        GenerationOptions(256, temperature, None, repeat_penalty),
        llama_cpp.GRAMMAR,
        True,
    )


# --- asking ---


Calls = Sequence[tuple[str, dict[str, Any]]]


async def ask_all(llm: llama_cpp.LlamaCpp, settings: Sequence[Setting], options: argparse.Namespace) -> list[Answer]:
    """Ask some calls at once, under one setting after the other, then the next calls, until the time is over."""
    began = time.perf_counter()
    answers = read_answers([options.json]) if options.json else []
    done = {(answer.part, answer.call, answer.setting) for answer in answers}
    calls = read_calls(options.parts, options.calls)
    for start in range(0, len(calls), options.at_once):
        if time.perf_counter() - began > options.seconds:
            print("the time is over: run it again, with the same --json, for the rest")
            break
        for setting in settings:
            group = [
                (part, call)
                for part, call in calls[start : start + options.at_once]
                if (part, call["name"], setting.name) not in done
            ]
            answers += await ask_group(llm, setting, group, options)
    return answers


async def ask_group(
    llm: llama_cpp.LlamaCpp, setting: Setting, calls: Calls, options: argparse.Namespace
) -> list[Answer]:
    llm.grammar = setting.grammar
    rules = tomllib.loads(PARTS["open"].read_text())
    asked = await asyncio.gather(*(ask_call(llm, setting, part, rules, call, options.seed) for part, call in calls))
    answers = [answer for answers in asked for answer in answers]
    for answer in answers:
        tell(answer, options)
    return answers


def read_answers(paths: Sequence[Path]) -> list[Answer]:
    lines = [line for path in paths if path.exists() for line in path.read_text(encoding="utf-8").splitlines()]
    return [Answer(**json.loads(line)) for line in lines]


def read_calls(parts: Sequence[str], names: Sequence[str]) -> Calls:
    calls = [(part, call) for part in parts for call in tomllib.loads(PARTS[part].read_text())["call"]]
    if not names:
        return calls
    return sorted(
        ((part, call) for part, call in calls if call["name"] in names), key=lambda each: names.index(each[1]["name"])
    )


def tell(answer: Answer, options: argparse.Namespace) -> None:
    if options.show_held_out or (options.show and answer.part == "open"):
        mark = "; ".join(answer.faults) or "right"
        print(f"{answer.setting:7} {answer.call}: {answer.question} → {answer.answer!r} [{mark}]", flush=True)
    if options.json:
        with options.json.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(answer), ensure_ascii=False) + "\n")


async def ask_call(
    llm: llama_cpp.LlamaCpp, setting: Setting, part: str, rules: dict[str, Any], call: dict[str, Any], seed: int
) -> list[Answer]:
    history: list[Message] = []
    answers = []
    for turn in call["turns"]:
        # As a call does when a reply is over: what is asked next then has only its own words to be read.
        await llm.prefill(setting.compose(history, ""))
        began, first_s, text = time.perf_counter(), 0.0, ""
        async with aclosing(cast(Any, setting.ask(llm, history, turn["say"], seed + len(history)))) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    first_s = first_s or time.perf_counter() - began
                    text += event.text
        text = text.strip()
        history += [Message("user", turn["say"]), Message("assistant", text)]
        language = turn.get("language") or ("zh" if is_chinese(turn["say"]) else "en")
        answers.append(
            Answer(
                setting.name,
                part,
                call["name"],
                turn["kind"],
                turn["say"],
                text,
                judge(text, turn, rules, language),
                language,
                round(first_s * 1000),
            )
        )
    return answers


# --- judging ---


def judge(answer: str, turn: dict[str, Any], rules: dict[str, Any], language: str) -> list[str]:
    """Return what is wrong with an answer."""
    faults = [f"lacks {pattern}" for pattern in turn.get("must", ()) if not re.search(pattern, answer, re.IGNORECASE)]
    faults += [f"has {pattern}" for pattern in turn.get("must_not", ()) if re.search(pattern, answer, re.IGNORECASE)]
    if is_drift(answer, language):
        faults.append("language")
    if simplified := find_simplified(answer):
        faults.append(f"simplified {simplified}")
    if _FOREIGN.search(answer):
        faults.append("foreign script")
    if len(answer) > rules["max_characters"] if is_chinese(answer) else len(_WORD.findall(answer)) > rules["max_words"]:
        faults.append("long")
    return faults


def is_drift(answer: str, language: str) -> bool:
    """Whether most of an answer is in another language than its question."""
    han, words = len(_HAN.findall(answer)), len(_WORD.findall(answer))
    if language == "zh":
        return words > han / 2
    return language == "en" and han / 2 > words


def find_simplified(text: str) -> str:
    """Return the characters that are written so in Simplified Chinese only: not in Big5, and others in Traditional."""
    convert = opencc.OpenCC("s2t").convert
    return "".join(c for c in sorted(set(text)) if convert(c) != c and not _is_in_big5(c))


def _is_in_big5(character: str) -> bool:
    try:
        character.encode("cp950")
    except UnicodeEncodeError:
        return False
    return True


# --- telling ---


def report(answers: Sequence[Answer], names: Sequence[str]) -> None:
    parts = list(dict.fromkeys(answer.part for answer in answers))
    print(f"{'':24}" + "".join(f"{name:>14}" for name in names))
    for part in parts:
        _print_row(f"right, {part}", [answer for answer in answers if answer.part == part], names)
    _print_row("right, all", answers, names)
    for kind in dict.fromkeys(answer.kind for answer in answers):
        _print_row(f"  {kind}", [answer for answer in answers if answer.kind == kind], names)
    for label, fault in (("language drifts", "language"), ("Simplified", "simplified"), ("foreign scripts", "foreign")):
        counts = (sum(any(f.startswith(fault) for f in a.faults) for a in answers if a.setting == n) for n in names)
        print(f"{label:24}" + "".join(f"{count:>14}" for count in counts))
    chinese = {n: [len(a.answer) for a in answers if a.setting == n and is_chinese(a.answer)] for n in names}
    english = {
        n: [len(_WORD.findall(a.answer)) for a in answers if a.setting == n and not is_chinese(a.answer)] for n in names
    }
    print(f"{'median characters, zh':24}" + "".join(f"{statistics.median(chinese[n] or [0]):>14g}" for n in names))
    print(f"{'median words, en':24}" + "".join(f"{statistics.median(english[n] or [0]):>14g}" for n in names))
    ttft = {n: statistics.median(a.ttft_ms for a in answers if a.setting == n) for n in names}
    print(f"{'median ms to first word':24}" + "".join(f"{ttft[n]:>14.0f}" for n in names))


def _print_row(label: str, answers: Sequence[Answer], names: Sequence[str]) -> None:
    row = f"{label:24}"
    for name in names:
        counted = [answer for answer in answers if answer.setting == name]
        row += f"{f'{sum(not answer.faults for answer in counted)} of {len(counted)}':>14}"
    print(row)


async def run(options: argparse.Namespace) -> list[Answer]:
    config = InferenceConfig.from_env()
    llama_cpp.BACKGROUND_NICENESS = 0  # nobody waits for a voice here
    llm = llama_cpp.LlamaCpp(
        model_dir(config.models_dir, MODEL) / "model.gguf",
        name=MODEL,
        threads=config.threads,
        context_tokens=config.context_tokens,
        slots=max(2, options.at_once),
    )
    try:
        await llm.warm_up()
        settings = [BEFORE, make_after(options.temperature, options.repeat_penalty)]
        answers = await ask_all(llm, [each for each in settings if each.name in options.settings], options)
        return answers
    finally:
        await llm.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--calls", nargs="+", default=[], help="names of calls; all without")
    parser.add_argument("--settings", nargs="+", choices=("before", "after"), default=["before", "after"])
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument("--repeat-penalty", type=float, default=1.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no call after so long")
    parser.add_argument("--at-once", type=int, default=2, help="calls at the same time")
    parser.add_argument("--show", action="store_true", help="print the answers of the open part")
    parser.add_argument("--show-held-out", action="store_true", help="print the held-out answers, too")
    parser.add_argument("--json", type=Path, help="append every answer here; what is there is not asked again")
    parser.add_argument("--report", nargs="+", type=Path, help="ask nothing: report what --json has written")
    options = parser.parse_args()
    if options.report:
        report(read_answers(options.report), options.settings)
        return 0
    began = time.perf_counter()
    answers = asyncio.run(run(options))
    report(answers, options.settings)
    print(f"{time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
