"""
The steps that build a voice from recordings: transcripts, embedding, reference clip, and match or clone.

Takes samples and engines; imports no Django.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from inference.audio.levels import FRAME_S, amplitude_from_db, measure_levels_db, measure_rms
from inference.audio.pcm import Samples, pcm_from_float
from inference.audio.resample import resample
from inference.interfaces import (
    MAX_RECORDING_S,
    Inference,
    InferenceBusy,
    InferenceError,
    InferenceUnavailable,
    SpeakerEmbedding,
    SynthesisOptions,
    VoiceReference,
)
from inference.offline import embed, recognise, speak
from voices.build import matching
from voices.recordings.quality import detect_speech

HEARING_RATE_HZ = 16_000
CLIP_RATE_HZ = 24_000
MAX_CLIP_S = 12.0
#: Of the pauses around the speech of a clip, so much stays.
CLIP_PAUSE_S = 0.1
#: The level of a clip's speech (root mean square, dB below full scale), and its highest peak.
CLIP_LEVEL_DB = -20.0
CLIP_PEAK = 0.89
#: Speakers are counted by embeddings of pieces of this length; those of shorter ones are unreliable.
PIECE_S = 3.0
#: Pieces less similar than this are of two speakers.
OTHER_SPEAKER_BELOW = 0.62

#: Spoken to measure the similarity of a cloned voice.
MEASURING_SENTENCES = {
    "zh": "今天天氣很好，我們一起去公園走走，順便買一杯咖啡。",
    "en": "The weather is lovely today, so let us take a walk in the park and have a cup of coffee.",
}


class NoSpeech(Exception):
    """The encoder finds no speech in the recordings."""


@dataclass(frozen=True, slots=True)
class Source:
    """A recording: samples at any rate, and its quality."""

    samples: Samples
    sample_rate_hz: int
    snr_db: float
    clipped_share: float


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a step; `share` is of all steps, 0 to 1."""

    step: str
    share: float


@dataclass(frozen=True, slots=True)
class StockMeasured:
    """The embeddings of the stock voices by this encoder. They took a while: cache them."""

    stock: Mapping[str, tuple[float, ...]]
    encoder: str


@dataclass(frozen=True, slots=True)
class Heard:
    """What the engines find in one recording."""

    transcript: str
    language: str
    speaker_count: int


@dataclass(frozen=True, slots=True)
class BuiltVoice:
    """The result. `engine_voice` is empty when the engine clones the clip."""

    heard: tuple[Heard, ...]
    language: str
    embedding: SpeakerEmbedding
    clip: Samples
    clip_transcript: str
    engine_voice: str
    similarity: float
    is_cloned: bool


async def build_voice(
    sources: Sequence[Source],
    *,
    inference: Inference,
    language: str,
    stock: StockMeasured | None,
    report: Callable[[Progress | StockMeasured], None],
) -> BuiltVoice:
    """
    Build a voice from recordings of one person.

    `language` is empty when the owner chose none. `stock` are cached embeddings of the stock voices; without them, or
    with those of another encoder, each is measured, a second or two per voice. Raises NoSpeech, and what engines raise.
    """
    clones = (await inference.status()).clones
    audible = [_trim_pauses(source) for source in sources]

    transcripts = []
    for number, samples in enumerate(audible):
        report(Progress("recognising", 0.3 * number / len(sources)))
        transcripts.append(await recognise(inference.stt, pcm_from_float(samples)))
    language = language or _choose_language(transcripts) or "zh"

    embeddings, counts = [], []
    for number, samples in enumerate(audible):
        progress = Progress("embedding", 0.3 + 0.2 * number / len(sources))
        report(progress)
        embeddings.append(await _embed(inference, samples))
        # Each response of an engine renews the lease, even where the progress stays.
        counts.append(await _count_speakers(inference, samples, on_answer=partial(report, progress)))
    target = average(embeddings, weights=[len(samples) for samples in audible])

    report(Progress("clip", 0.5))
    best = max(range(len(sources)), key=lambda each: _rank_for_clip(sources[each], counts[each]))
    clip = cut_clip(sources[best].samples, sources[best].sample_rate_hz)
    clip_transcript, _ = await recognise(inference.stt, pcm_from_float(resample(clip, CLIP_RATE_HZ, HEARING_RATE_HZ)))

    report(Progress("matching", 0.6))
    if clones and clip_transcript:
        reference = VoiceReference(pcm_from_float(clip), CLIP_RATE_HZ, clip_transcript)
        engine_voice, similarity = "", await _measure_clone(inference, reference, target, language)
    else:
        engine_voice, similarity = await _match(inference, target, language, stock, report)
    return BuiltVoice(
        heard=tuple(Heard(text, spoken, count) for (text, spoken), count in zip(transcripts, counts, strict=True)),
        language=language,
        embedding=target,
        clip=clip,
        clip_transcript=clip_transcript,
        engine_voice=engine_voice,
        similarity=similarity,
        is_cloned=not engine_voice,
    )


def average(embeddings: Sequence[SpeakerEmbedding], *, weights: Sequence[float]) -> SpeakerEmbedding:
    """Return the weighted mean of embeddings, of unit length."""
    values = np.average([embedding.values for embedding in embeddings], axis=0, weights=weights)
    values = values / np.linalg.norm(values)
    return SpeakerEmbedding(tuple(float(value) for value in values), embeddings[0].encoder)


def cut_clip(samples: Samples, sample_rate_hz: int) -> Samples:
    """
    Cut a reference clip: mono at 24 kHz, at most 12 s, its speech at -20 dB, silence around it trimmed.

    Takes the part with the most speech that begins and ends in pauses, where there are any.
    """
    levels = measure_levels_db(samples, sample_rate_hz)
    spoken = detect_speech(levels)
    start, end = _choose_part(spoken, round(MAX_CLIP_S / FRAME_S))
    margin = round(CLIP_PAUSE_S / FRAME_S)
    limit = round(MAX_CLIP_S / FRAME_S)
    start = max(start - margin, 0)
    end = min(end + margin, len(levels), start + limit)
    size = round(sample_rate_hz * FRAME_S)
    clip = resample(samples[start * size : end * size], sample_rate_hz, CLIP_RATE_HZ)[
        : round(MAX_CLIP_S * CLIP_RATE_HZ)
    ]
    return _level(clip, spoken[start:end])


def _choose_part(spoken: npt.NDArray[np.bool_], longest: int) -> tuple[int, int]:
    """Return the frames between two pauses, at most `longest`, with the most speech in them."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], spoken.astype(np.int8), [0]))))
    starts, ends = edges[::2].tolist(), edges[1::2].tolist()
    parts = [(start, end) for start in starts for end in ends if start < end <= start + longest]
    if not parts:
        # No pause within the limit: cut at the limit.
        start = starts[0] if starts else 0
        return start, min(start + longest, len(spoken))
    return max(parts, key=lambda part: (int(spoken[part[0] : part[1]].sum()), -part[0]))


def _level(clip: Samples, spoken: npt.NDArray[np.bool_]) -> Samples:
    size = round(CLIP_RATE_HZ * FRAME_S)
    is_speech = np.repeat(spoken, size)[: len(clip)]
    speech = clip[: len(is_speech)][is_speech] if is_speech.any() else clip
    rms = measure_rms(speech)
    peak = float(np.abs(clip).max(initial=0.0))
    if not rms or not peak:
        return clip
    gain = min(amplitude_from_db(CLIP_LEVEL_DB) / rms, CLIP_PEAK / peak)
    return (clip * gain).astype(np.float32)


def _trim_pauses(source: Source) -> Samples:
    """Return a recording at 16 kHz with its pauses shortened, no longer than an encoder takes."""
    spoken = detect_speech(measure_levels_db(source.samples, source.sample_rate_hz))
    # Half a second of each pause stays, as a word boundary.
    margin = round(0.25 / FRAME_S)
    kept = np.convolve(spoken, np.ones(2 * margin + 1), mode="same") > 0
    size = round(source.sample_rate_hz * FRAME_S)
    whole = source.samples[: len(spoken) * size]
    samples = resample(whole[np.repeat(kept, size)[: len(whole)]], source.sample_rate_hz, HEARING_RATE_HZ)
    return samples[: round(MAX_RECORDING_S * HEARING_RATE_HZ)]


def _choose_language(transcripts: Sequence[tuple[str, str]]) -> str:
    lengths = {language: 0 for _, language in transcripts if language in MEASURING_SENTENCES}
    for text, language in transcripts:
        if language in lengths:
            # A Chinese character counts as about three letters.
            lengths[language] += len(text) * (3 if language == "zh" else 1)
    return max(lengths, key=lambda each: lengths[each]) if lengths else ""


async def _embed(inference: Inference, samples: Samples) -> SpeakerEmbedding:
    try:
        return await embed(inference.encoder, pcm_from_float(samples), sample_rate_hz=HEARING_RATE_HZ)
    except (InferenceUnavailable, InferenceBusy):
        raise
    except InferenceError as error:
        raise NoSpeech(str(error)) from error


async def _count_speakers(inference: Inference, samples: Samples, *, on_answer: Callable[[], None]) -> int:
    """Count speakers by clustering embeddings of pieces of the recording. A hint, not a proof."""
    size = round(PIECE_S * HEARING_RATE_HZ)
    pieces = [samples[start : start + size] for start in range(0, len(samples) - size + 1, size)]
    if len(pieces) < 2:
        return 1
    embeddings = []
    for piece in pieces:
        try:
            embeddings.append((await _embed(inference, piece)).values)
        except NoSpeech:
            continue
        finally:
            on_answer()
    return count_clusters(np.array(embeddings)) if embeddings else 1


def count_clusters(embeddings: npt.NDArray[np.float64]) -> int:
    """Count clusters by average linkage down to `OTHER_SPEAKER_BELOW`. A cluster of one is noise."""
    groups = [[number] for number in range(len(embeddings))]
    alike = embeddings @ embeddings.T
    while len(groups) > 1:
        pairs = [(a, b) for a in range(len(groups)) for b in range(a)]
        a, b = max(pairs, key=lambda pair: alike[np.ix_(groups[pair[0]], groups[pair[1]])].mean())
        if alike[np.ix_(groups[a], groups[b])].mean() < OTHER_SPEAKER_BELOW:
            break
        groups[b] += groups.pop(a)
    least = 1 if len(embeddings) < 4 else 2
    return max(1, sum(len(group) >= least for group in groups))


def _rank_for_clip(source: Source, speaker_count: int) -> tuple[bool, bool, float]:
    return speaker_count == 1, source.clipped_share < 0.0005, min(source.snr_db, 30.0) + len(source.samples) / 1e9


async def _match(
    inference: Inference,
    target: SpeakerEmbedding,
    language: str,
    measured: StockMeasured | None,
    report: Callable[[Progress | StockMeasured], None],
) -> tuple[str, float]:
    if measured is None or measured.encoder != target.encoder:
        stock = await matching.embed_stock_voices(
            tts=inference.tts,
            encoder=inference.encoder,
            voices=await inference.tts.list_voices(),
            on_progress=lambda done, of: report(Progress("matching", 0.6 + 0.25 * done / of)),
        )
        measured = StockMeasured(stock, target.encoder)
        report(measured)
    match = await matching.match_voice(
        tts=inference.tts,
        encoder=inference.encoder,
        target=target.values,
        language=language,
        stock=measured.stock,
        on_progress=lambda done, of: report(Progress("matching", 0.85 + 0.14 * done / of)),
    )
    return match.voice, match.similarity


async def _measure_clone(
    inference: Inference, reference: VoiceReference, target: SpeakerEmbedding, language: str
) -> float:
    options = SynthesisOptions(reference=reference, is_background=True)
    spoken = await speak(inference.tts, [MEASURING_SENTENCES[language]], options)
    measured = await embed(inference.encoder, spoken.pcm, sample_rate_hz=spoken.sample_rate_hz)
    return float(np.dot(measured.values, target.values))
