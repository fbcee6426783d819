"""
`make bench-recognition`: errors of recognition in everyday sentences, and the time from end of speech to transcript.

Makes the table of docs/measurements.md. 64 Mandarin sentences, each by one of Kokoro's eight Mandarin voices in turn,
and eight English ones by four voices; the recordings of real people are rows of their own. Every clip is recognised
through `transcribe()` with endpointing, as in a call. `before` and `after` receive the end of a clip in real time, so
that `stt` (end of speech to final transcript, the pause of 600 ms included) is what a user would wait; the full windows
are there for their errors, and run as fast as they can, after those two. Configurations take turns clip by clip, so
that other load on the machine affects all alike.

The audio is made once and kept in `--folder`; so are the results, and a run that was stopped is resumed from them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import re
import statistics
import sys
import time
import unicodedata
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.config import InferenceConfig
from inference.engines import faster_whisper, kokoro
from inference.engines.chinese_script import to_simplified
from inference.engines.transcript_checks import extract_loop
from inference.interfaces import FinalTranscript, TranscriptionInput, TranscriptionOptions
from inference.models.store import model_dir
from tests.inference.engines.speech import FRAME_BYTES, count_edits, say, silence
from tests.recordings import read_recordings

MANDARIN_VOICES = (
    "zf_xiaobei",
    "zm_yunxi",
    "zf_xiaoni",
    "zm_yunjian",
    "zf_xiaoxiao",
    "zm_yunxia",
    "zf_xiaoyi",
    "zm_yunyang",
)
ENGLISH_VOICES = ("af_heart", "am_michael", "af_bella", "bm_george")

MANDARIN = (
    # sums
    "一百二十五加三百七十八等於多少？",
    "三十六減十九是多少？",
    "十二乘以八等於多少？",
    "一百四十四除以十二是多少？",
    "一杯珍珠奶茶六十五元，三杯多少錢？",
    "兩千三百五十元打八折是多少？",
    "七加八再加九是多少？",
    "五百減掉一百二十還剩多少？",
    "九乘九是多少？",
    "三個人平分一千兩百元，一個人多少錢？",
    # times, dates, numbers
    "現在幾點了？",
    "明天早上七點半叫我起床。",
    "今天是星期幾？",
    "會議改到下午三點十五分。",
    "我的生日是十月二十三號。",
    "從台北到高雄坐高鐵要多久？",
    "三公里走路大概要幾分鐘？",
    "我家的電話號碼是零二二三四五六七八九。",
    "二零二六年十二月二十五號是星期幾？",
    "他今年四十二歲，身高一百七十五公分。",
    "這班公車每隔二十分鐘一班。",
    "百分之二十的折扣是多少？",
    # names and places
    "我叫王小明，住在台中。",
    "請問台北車站怎麼走？",
    "陳美玲是我的國小老師。",
    "你去過日月潭嗎？",
    "花蓮有什麼好玩的地方？",
    "林先生明天會來拜訪我們。",
    "玉山有多高？",
    "我下個月要去墾丁玩三天。",
    # questions
    "你覺得我今天要帶雨傘嗎？",
    "晚上睡不著怎麼辦？",
    "肚子痛的時候該吃什麼？",
    "可以推薦一本好看的書嗎？",
    "怎麼煮一鍋好吃的白飯？",
    "貓為什麼怕水？",
    "感冒了可以運動嗎？",
    "為什麼天空是藍色的？",
    "你會說台語嗎？",
    "一年有幾個季節？",
    "要怎麼跟小孩說明死亡？",
    "冰箱裡的剩菜可以放幾天？",
    # small talk
    "早安，你今天好嗎？",
    "謝謝你，再見。",
    "我今天心情不太好。",
    "等一下，我先接個電話。",
    "不好意思，你可以再說一次嗎？",
    "好，沒問題。",
    "對啊，我也這麼覺得。",
    "我剛剛吃過午餐了。",
    "今天的晚餐我想吃牛肉麵。",
    "週末我跟家人去爬山。",
    "我女兒考上大學了，我好高興。",
    "最近工作壓力很大，常常加班。",
    # English inside
    "我的 email 收不到信，怎麼辦？",
    "請幫我打開 Google 地圖。",
    "這個 App 要怎麼下載？",
    "我明天要跟老闆 meeting。",
    # longer
    "我想學做菜，可是我只有一個小電鍋，有什麼簡單的料理可以教我嗎？",
    "上個星期我在公園遇到一個老朋友，我們已經二十年沒有見面了。",
    "如果明天下雨，我們就不去動物園，改成去看電影好不好？",
    "我媽媽血壓有點高，醫生說要少吃鹽，早餐應該吃什麼比較好？",
    "垃圾車每個星期一、三、五晚上七點會經過我家門口。",
    "請你用簡單的話跟我解釋什麼是通貨膨脹。",
)
ENGLISH = (
    "Good morning, how are you today?",
    "What is twelve times eight?",
    "Please remind me to call my mother at half past six.",
    "Could you tell me what the capital of France is?",
    "I live in Taipei, but I was born in Kaohsiung.",
    "How many minutes does it take to boil an egg?",
    "Can you say that again, please?",
    "I would like to learn Mandarin, but I only have half an hour a day.",
)
#: Seconds of a clip's end that are heard in real time: what is unfinished when the pause begins would be in a call.
LAST_S = 0.6
#: Silence after the clip: the pause that ends an utterance, and the ear's lag.
SILENCE_MS = 800


@dataclass(frozen=True, slots=True)
class Clip:
    name: str
    language: str
    text: str
    pcm: bytes
    is_recording: bool = False


@dataclass(frozen=True, slots=True)
class Recognition:
    """What one configuration made of a clip. `stt_s`: from the end of the clip's speech to the final transcript."""

    clip: str
    configuration: str
    text: str
    language: str
    stt_s: float | None
    utterances: int
    has_second_pass: bool


# --- configurations ---


class Counting(faster_whisper.FasterWhisper):
    """Counts second passs. As it is: `after`."""

    second_passes = 0
    is_timed = True

    def _second_pass(self, *arguments: Any, **options: Any) -> Any:
        self.second_passes += 1
        return super()._second_pass(*arguments, **options)


class Before(Counting):
    """As it was up to 3eaa83f: a draft's window, a beam of two, a second pass at guesses below -1.0 and at loops."""

    def _first_pass(self, samples: Any, language: str | None, *, is_wide: bool = True) -> Any:
        (decoding,) = self._decode([samples], language, beam_size=2)
        is_hurried = decoding.tokens > 6 * decoding.duration_s
        if decoding.log_probability < -1.0 or (is_hurried and extract_loop(decoding.text)):
            self.second_passes += 1
            full = faster_whisper.MAX_WINDOW_FRAMES
            (decoding,) = self._decode([samples], decoding.language, beam_size=2, window_frames=full)
        return Unchecked(decoding)

    def _operator_tokens(self, *, in_words: bool) -> list[int]:
        return []


class Full(Counting):
    """The window of 30 s for everything, greedily."""

    beam_size = 1
    is_timed = False

    def _first_pass(self, samples: Any, language: str | None, *, is_wide: bool = True) -> Any:
        full = faster_whisper.MAX_WINDOW_FRAMES
        (decoding,) = self._decode([samples], language, beam_size=self.beam_size, window_frames=full)
        return Unchecked(decoding)

    def _operator_tokens(self, *, in_words: bool) -> list[int]:
        return []


class FullBeam(Full):
    beam_size = 5


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A decoding that gets no second pass but the one that its configuration gave it."""

    decoding: Any

    def check(self) -> None:
        return None

    def settle(self) -> Any:
        return self.decoding.settle()


CONFIGURATIONS = {"before": Before, "after": Counting, "full window, greedy": Full, "full window, beam 5": FullBeam}


# --- clips ---


async def make_clips(folder: Path, config: InferenceConfig) -> list[Clip]:
    """Return all clips; speak those that are not in `folder` yet."""
    sentences = [("zh", MANDARIN_VOICES[i % len(MANDARIN_VOICES)], text) for i, text in enumerate(MANDARIN)]
    sentences += [("en", ENGLISH_VOICES[i % len(ENGLISH_VOICES)], text) for i, text in enumerate(ENGLISH)]
    tts: Any = None
    clips = []
    for index, (language, voice, text) in enumerate(sentences):
        path = folder / f"{hashlib.sha256(f'{voice}{text}'.encode()).hexdigest()[:16]}.pcm"
        if not path.exists():
            if tts is None:
                tts = kokoro.create_tts(model="kokoro-82m", config=config)
                await tts.warm_up()
            path.write_bytes(trim(await say(tts, text, voice)))
        clips.append(Clip(f"{index:02} {voice}", language, text, path.read_bytes()))
    if tts is not None:
        await tts.close()
    for recording in read_recordings():
        pcm = trim(recording.microphone_pcm)
        clips.append(Clip(recording.speaker, recording.language, recording.transcript, pcm, is_recording=True))
    return clips


def trim(pcm: bytes) -> bytes:
    """Leave out the silence around the speech: `stt` counts from the last sound."""
    samples = np.frombuffer(pcm, "<i2")
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 300)
    return samples[loud[0] : loud[-1] + 1].tobytes() if len(loud) else pcm


# --- recognition ---


async def recognise(engine: Any, name: str, clip: Clip) -> Recognition:
    ended_at = 0.0
    second_passes = engine.second_passes

    async def audio() -> AsyncIterator[TranscriptionInput]:
        nonlocal ended_at
        stream = silence(500) + clip.pcm
        last = max(0, len(stream) - int(LAST_S * 32_000))
        for start in range(0, last, FRAME_BYTES):
            yield stream[start : min(last, start + FRAME_BYTES)]
        began = time.perf_counter()
        tail = stream[last:] + silence(SILENCE_MS)
        for start in range(0, len(tail), FRAME_BYTES):
            yield tail[start : start + FRAME_BYTES]
            if engine.is_timed:
                await asyncio.sleep(max(0.0, began + (start + FRAME_BYTES) / 32_000 - time.perf_counter()))
        ended_at = began + (len(stream) - last) / 32_000

    heard: list[tuple[FinalTranscript, float]] = []
    async for event in engine.transcribe(audio(), TranscriptionOptions()):
        if isinstance(event, FinalTranscript):
            heard.append((event, time.perf_counter()))
    text = " ".join(final.text for final, _ in heard)
    stt_s = heard[-1][1] - ended_at if heard and engine.is_timed else None
    language = heard[-1][0].language if heard else ""
    return Recognition(clip.name, name, text, language, stt_s, len(heard), engine.second_passes > second_passes)


# --- comparing ---

ENGLISH_NUMERALS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    )
}
_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "兩": 2, "两": 2}
_UNITS = {"十": 10, "百": 100, "千": 1000}
_BIG = {"萬": 10_000, "万": 10_000, "億": 100_000_000, "亿": 100_000_000}
_NUMBER = re.compile(r"[0-9零〇一二兩两三四五六七八九十百千萬万億亿]+")


def normalise(text: str, language: str) -> str:
    """
    Bring a transcript into the form in which transcripts are compared: NFKC, numerals as digits, no punctuation.

    "125", "一百二十五" and "１２５" are the same, as are "7:30", "七點半" and "七點三十分", "20%" and "百分之二十". An
    operator symbol stays: "×" is not 乘.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    if language == "en":
        return re.sub(r"[a-z]+", lambda m: ENGLISH_NUMERALS.get(m[0], m[0]), text)
    text = re.sub(r"(\d+)%", r"百分之\1", text)
    text = re.sub(r"(\d+):(\d\d)", lambda m: f"{m[1]}點{int(m[2])}分" if int(m[2]) else f"{m[1]}點", text)
    text = re.sub(r"(?<=\d)\.(?=\d)", "點", text)
    text = _NUMBER.sub(lambda m: read_number(m[0]), text)
    text = re.sub(r"[點点]半", "點30分", text)
    text = re.sub(r"(?<=[點点])(\d+)(?!\d|分)", r"\1分", text)
    return to_simplified(text)


def read_number(text: str) -> str:
    """Return a numeral's digits: "三百五十" and "3百50" are "350", "二零二六" is "2026"."""
    if not any(character in _UNITS or character in _BIG for character in text):
        return "".join(str(_DIGITS.get(character, character)) for character in text)
    total = section = 0
    digits = ""
    for character in text:
        if character in _UNITS:
            section += int(digits or 1) * _UNITS[character]
            digits = ""
        elif character in _BIG:
            total += (section + int(digits or 0) or 1) * _BIG[character]
            section, digits = 0, ""
        else:
            digits += str(_DIGITS.get(character, character))
    return str(total + section + int(digits or 0))


def to_units(text: str, language: str) -> list[str]:
    """Characters of Mandarin, words of English. Operator symbols count."""
    text = normalise(text, language)
    if language == "en":
        return re.findall(r"[a-z0-9']+|[×÷+=*/]", text)
    return [character for character in text if character.isalnum() or unicodedata.category(character) == "Sm"]


def has_operator(text: str) -> bool:
    return bool(re.search(r"[×÷+=*/−]|\d\s*[-xX]\s*\d", text))


def report(clips: Sequence[Clip], heard: Sequence[Recognition]) -> None:
    by_name = {clip.name: clip for clip in clips}
    print(
        "| | Mandarin, CER | English, WER | people, errors | operators | doubled | `stt` median | p90 | worst | again |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name in CONFIGURATIONS:
        rows = [(by_name[each.clip], each) for each in heard if each.configuration == name and each.clip in by_name]
        if not rows:
            continue
        waits = sorted(each.stt_s * 1000 for _, each in rows if each.stt_s is not None)
        quantiles = (statistics.median(waits), waits[int(0.9 * len(waits))], waits[-1]) if waits else ()
        kinds = [
            compute_rate([row for row in rows if row[0].is_recording is is_recording and row[0].language in languages])
            for is_recording, languages in ((False, "zh"), (False, "en"), (True, ("zh", "en")))
        ]
        operators = sum(has_operator(each.text) for _, each in rows)
        doubled = sum(
            len(to_units(each.text, clip.language)) > 1.6 * len(to_units(clip.text, clip.language))
            for clip, each in rows
        )
        again = sum(each.has_second_pass for _, each in rows)
        print(
            f"| {name} | {' | '.join(f'{100 * rate:.1f} %' for rate in kinds)} | {operators} | {doubled} "
            f"| {' | '.join(f'{wait:.0f}' for wait in quantiles) or ' | | '} "
            f"| {again} of {len(rows)} |"
        )


def compute_rate(rows: Sequence[tuple[Clip, Recognition]]) -> float:
    """Edits for each unit expected, over all of them together."""
    expected = [to_units(clip.text, clip.language) for clip, _ in rows]
    edits = sum(
        count_edits(units, to_units(each.text, clip.language))
        for units, (clip, each) in zip(expected, rows, strict=True)
    )
    return edits / max(1, sum(map(len, expected)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("var/bench-recognition"), help="audio and results")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this long; go on the next time")
    parser.add_argument("--only", nargs="*", choices=tuple(CONFIGURATIONS), help="configurations")
    parser.add_argument("--restart", action="store_true", help="discard earlier results")
    parser.add_argument("--texts", action="store_true", help="print what was understood wrongly")
    options = parser.parse_args()
    return asyncio.run(measure(options))


async def measure(options: argparse.Namespace) -> int:
    began = time.monotonic()
    options.folder.mkdir(parents=True, exist_ok=True)
    config = InferenceConfig.from_env({**os.environ, "AVATAR_PROFILE": "cpu"})
    clips = await make_clips(options.folder, config)
    results = options.folder / "results.jsonl"
    if options.restart:
        results.unlink(missing_ok=True)
    heard = [Recognition(**json.loads(line)) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(each.clip, each.configuration) for each in heard}
    names = options.only or list(CONFIGURATIONS)
    engines: dict[str, Any] = {}
    for name in names:
        if any((clip.name, name) not in done for clip in clips):
            engines[name] = create(CONFIGURATIONS[name], config)
            await engines[name].warm_up()
            engines[name].second_passes = 0
    timed = [name for name in names if CONFIGURATIONS[name].is_timed]
    rounds = (timed, [name for name in names if name not in timed])
    is_complete = True
    with results.open("a") as file:
        for turns, (index, clip) in itertools.product(rounds, enumerate(clips)):
            if time.monotonic() - began > options.seconds:
                is_complete = False
                break
            # Another is first each time.
            first = index % max(1, len(turns))
            for name in turns[first:] + turns[:first]:
                if (clip.name, name) not in done:
                    heard.append(await recognise(engines[name], name, clip))
                    print(json.dumps(asdict(heard[-1]), ensure_ascii=False), file=file, flush=True)
    for engine in engines.values():
        await engine.close()
    if options.texts:
        for clip in clips:
            print_texts(clip, [each for each in heard if each.clip == clip.name])
    report(clips, heard)
    print(
        f"{len(clips)} clips; {'complete' if is_complete else 'to be continued'}; load average {os.getloadavg()[0]:.1f}"
    )
    return 0


def print_texts(clip: Clip, heard: Sequence[Recognition]) -> None:
    expected = to_units(clip.text, clip.language)
    wrong = [(each, count_edits(expected, to_units(each.text, clip.language))) for each in heard]
    if any(edits for _, edits in wrong):
        print(f"{clip.name}  {clip.text}")
        for each, edits in wrong:
            print(f"    {edits:2} {each.configuration:20} {'*' if each.has_second_pass else ' '} {each.text}")


def create(kind: Any, config: InferenceConfig) -> Any:
    folder = model_dir(config.models_dir, "whisper-base")
    return kind(folder, threads=config.threads)


if __name__ == "__main__":
    sys.exit(main())
