"""Every value of the border, with every field changed in turn, survives both directions."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, get_args, get_origin

import pytest

from inference import wire
from inference.interfaces import (
    EMBEDDING_VALUES,
    STYLE_VALUES,
    AudioChunk,
    DeviceMemory,
    DiscardUtterance,
    EndOfUtterance,
    FinalTranscript,
    GenerationFinished,
    GenerationOptions,
    InferenceError,
    InferenceStatus,
    Message,
    PartialTranscript,
    ProvisionalTranscript,
    RoleStatus,
    SpeakerEmbedding,
    SpeechResumed,
    SpeechStarted,
    SynthesisOptions,
    TextDelta,
    TranscriptEvent,
    TranscriptionInput,
    TranscriptionOptions,
    VoiceInfo,
    VoiceReference,
)
from inference.proto import inference_pb2 as pb

#: Fields that not every value of their type may be in.
VALUES: dict[tuple[type, str], list[Any]] = {
    (TranscriptionOptions, "language"): [None, "zh", "en"],
    (SynthesisOptions, "style"): [b"\1\2\3\4" * STYLE_VALUES, b""],
    (SpeakerEmbedding, "values"): [(0.1,) * EMBEDDING_VALUES],
}


def list_values(hint: Any) -> list[Any]:
    """A few values of a type, first one that protobuf does not assume for a missing field."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return [value for option in arguments for value in list_values(option)]
    if origin is Literal:
        return list(arguments)
    if origin is tuple:
        return [tuple(list_values(arguments[0])), ()]
    if origin is Mapping:
        return [dict.fromkeys(("one", "two"), list_values(arguments[1])[0]), {}]
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return list(hint)
    if dataclasses.is_dataclass(hint):
        return list_variants(typing.cast(type, hint))
    # Of floats those that 32 bits hold exactly.
    known: dict[Any, list[Any]] = {
        bool: [True, False],
        int: [7, 2**31 - 1],
        float: [0.25, 1.5],
        str: ["一 two", "x"],
        bytes: [b"\1\2\3\4", b"\xff\xfe"],
        types.NoneType: [None],
    }
    return known[hint]


def list_variants(kind: type) -> list[Any]:
    """One instance, and for each field one more for each value that it may have."""
    hints = typing.get_type_hints(kind)
    values = {
        f.name: VALUES.get((kind, f.name)) or list_values(hints[f.name])
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]  # mypy takes no type for a dataclass
    }
    first = kind(**{name: options[0] for name, options in values.items()})
    changes = [(name, option) for name, options in values.items() for option in options[1:]]
    return [first, *(dataclasses.replace(first, **{name: option}) for name, option in changes)]


def survives(value: Any, there: Callable[[Any], Any], back: Callable[[Any], Any]) -> None:
    sent = there(value)

    received = back(type(sent).FromString(sent.SerializeToString()))

    assert type(received) is type(value)
    assert received == value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Fields that are left out of comparisons, too.
        assert dataclasses.asdict(received) == dataclasses.asdict(value)


INPUTS: Sequence[TranscriptionInput] = [
    b"\1\2" * 320,
    EndOfUtterance(),
    DiscardUtterance(),
    *list_variants(TranscriptionOptions),
]
EVENTS: Sequence[TranscriptEvent] = [
    event
    for kind in (SpeechStarted, PartialTranscript, ProvisionalTranscript, SpeechResumed, FinalTranscript)
    for event in list_variants(kind)
]


class TestRoundTrip:
    @pytest.mark.parametrize("item", INPUTS)
    def test_of_what_goes_into_a_transcription(self, item: TranscriptionInput) -> None:
        survives(item, wire.transcription_input_to_proto, wire.transcription_input_from_proto)

    @pytest.mark.parametrize("event", EVENTS)
    def test_of_what_a_transcription_yields(self, event: TranscriptEvent) -> None:
        survives(event, wire.transcript_event_to_proto, wire.transcript_event_from_proto)

    @pytest.mark.parametrize("options", list_variants(GenerationOptions))
    def test_of_a_request_for_a_reply(self, options: GenerationOptions) -> None:
        messages = list_variants(Message)
        request = wire.generation_to_proto(messages, options)

        received = wire.generation_from_proto(pb.GenerateRequest.FromString(request.SerializeToString()))

        assert received == (messages, options)
        assert [message.is_shared for message in received[0]] == [message.is_shared for message in messages]

    @pytest.mark.parametrize("event", [*list_variants(TextDelta), *list_variants(GenerationFinished)])
    def test_of_what_a_generation_yields(self, event: Any) -> None:
        survives(event, wire.generation_event_to_proto, wire.generation_event_from_proto)

    @pytest.mark.parametrize("options", [*list_variants(SynthesisOptions), SynthesisOptions()])
    def test_of_a_request_for_speech(self, options: SynthesisOptions) -> None:
        request = wire.synthesis_to_proto("你好", options)

        received = wire.synthesis_from_proto(pb.SynthesiseRequest.FromString(request.SerializeToString()))

        assert received == ("你好", options)

    @pytest.mark.parametrize("chunk", list_variants(AudioChunk))
    def test_of_audio(self, chunk: AudioChunk) -> None:
        survives(chunk, wire.audio_chunk_to_proto, wire.audio_chunk_from_proto)

    def test_of_voices_and_styles(self) -> None:
        survives(tuple(list_variants(VoiceInfo)), wire.voices_to_proto, wire.voices_from_proto)
        survives({"zf_xiaoxiao": b"\1\2", "zm_yunxi": b""}, wire.styles_to_proto, wire.styles_from_proto)

    @pytest.mark.parametrize("embedding", list_variants(SpeakerEmbedding))
    def test_of_an_embedding_and_its_recording(self, embedding: SpeakerEmbedding) -> None:
        survives(embedding, wire.embedding_to_proto, wire.embedding_from_proto)
        assert wire.recording_from_proto(wire.recording_to_proto(b"\1\2", 48_000)) == (b"\1\2", 48_000)

    @pytest.mark.parametrize("status", list_variants(InferenceStatus))
    def test_of_the_status(self, status: InferenceStatus) -> None:
        survives(status, wire.status_to_proto, wire.status_from_proto)

    def test_is_of_every_field(self) -> None:
        """A field that is added to a value is in these tests without being named in them."""
        for kind in (RoleStatus, DeviceMemory, VoiceReference, GenerationFinished):
            names = [f.name for f in dataclasses.fields(kind)]
            first, *others = list_variants(kind)
            changed = {name for other in others for name in names if getattr(other, name) != getattr(first, name)}

            assert changed == set(names)


class TestRefusals:
    def test_of_a_request_of_another_version(self) -> None:
        with pytest.raises(wire.InvalidRequest, match="differ in version"):
            wire.transcription_input_from_proto(pb.TranscribeRequest())

    def test_of_an_event_of_another_version(self) -> None:
        with pytest.raises(InferenceError, match="differ in version"):
            wire.transcript_event_from_proto(pb.TranscribeResponse())

    def test_are_none_of_what_an_older_client_leaves_out(self) -> None:
        messages, options = wire.generation_from_proto(pb.GenerateRequest(max_tokens=10))
        text, synthesis = wire.synthesis_from_proto(pb.SynthesiseRequest(text="hi"))

        assert (messages, options.repeat_penalty, options.seed) == ([], 1.0, None)
        assert (text, synthesis.speed, synthesis.quality) == ("hi", 1.0, "fast")
        assert wire.recording_from_proto(pb.EmbedRequest(pcm=b"\1\2")) == (b"\1\2", 16_000)
