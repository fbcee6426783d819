from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from inference.client import InferenceClient
from inference.engines.fake import FakeLanguageModel
from inference.proto import inference_pb2 as pb
from inference.proto import inference_pb2_grpc as rpc
from inference.telemetry import tracing
from inference.telemetry.context import PREFIX, make_trace_id
from realtime import messages
from tests.fakes import open_call
from tests.inference.calls import generate
from tests.inference.conftest import eventually
from tests.otlp import Receiver, receive_traces


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Receives the spans of this process, once tracing is shut down."""
    with receive_traces() as (address, receiver):
        monkeypatch.setenv(tracing.ENDPOINT, address)
        assert tracing.configure("test")
        yield receiver
        tracing.shut_down()


@pytest.fixture
def trace_id() -> str:
    return make_trace_id(uuid4())


class TestExport:
    def test_sends_one_tree_with_the_turns_id(self, receiver: Receiver, trace_id: str) -> None:
        tracing.record("llm", trace_id, began_s=11.0, ended_s=12.5, attributes={"tokens": 3})
        tracing.record_turn(trace_id, began_s=10.0, ended_s=13.0)
        tracing.record("tts", trace_id, began_s=12.0, ended_s=12.25)
        tracing.shut_down()

        assert set(receiver.paths) == {"/v1/traces"}
        (turn,), (llm,), (tts,) = (receiver.find(name) for name in ("turn", "llm", "tts"))
        assert {span.trace_id for span in receiver.spans} == {trace_id}
        assert (turn.parent_id, turn.span_id) == ("", trace_id[16:])
        assert {llm.parent_id, tts.parent_id} == {turn.span_id}
        assert len({turn.span_id, llm.span_id, tts.span_id}) == 3
        assert (llm.service, llm.attributes) == ("avatar-test", {"tokens": 3})
        assert llm.began_at - turn.began_at == pytest.approx(1.0)
        assert llm.ended_at - llm.began_at == pytest.approx(1.5)

    def test_dates_spans_by_the_clock(self, receiver: Receiver, trace_id: str) -> None:
        import time

        now, epoch = time.monotonic(), time.time()
        tracing.record("stt", trace_id, began_s=now - 1, ended_s=now)
        tracing.shut_down()

        (stt,) = receiver.spans
        assert stt.ended_at == pytest.approx(epoch, abs=0.5)

    def test_has_a_span_of_what_failed(self, receiver: Receiver, trace_id: str) -> None:
        with pytest.raises(ValueError, match="broken"), tracing.span("work", trace_id):
            raise ValueError("broken")
        tracing.shut_down()

        assert [span.name for span in receiver.spans] == ["work"]

    def test_has_none_of_what_belongs_to_no_turn(self, receiver: Receiver) -> None:
        with tracing.span("work", None):
            pass
        tracing.shut_down()

        assert receiver.spans == []

    def test_outlives_a_receiver_that_is_away(self, monkeypatch: pytest.MonkeyPatch, trace_id: str) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
        with receive_traces() as (address, _):
            monkeypatch.setenv(tracing.ENDPOINT, address)
        assert tracing.configure("test")

        tracing.record_turn(trace_id, began_s=1.0, ended_s=2.0)
        tracing.shut_down()

        assert not tracing.is_on()


class TestInferenceProcess:
    async def test_adds_its_work_to_the_turn_that_metadata_names(
        self, client: InferenceClient, receiver: Receiver, trace_id: str
    ) -> None:
        metadata = [*client.metadata, (f"{PREFIX}trace-id", trace_id)]
        request = pb.SynthesiseRequest(text="芝麻開門", quality="fast", speed=1.0)
        async for _ in rpc.TextToSpeechStub(client.channel()).Synthesise(request, metadata=metadata):
            pass
        await rpc.LanguageModelStub(client.channel()).Prefill(pb.PrefillRequest(), metadata=metadata)
        tracing.shut_down()

        assert {(span.name, span.trace_id, span.parent_id) for span in receiver.spans} == {
            ("inference synthesise", trace_id, trace_id[16:]),
            ("inference prefill", trace_id, trace_id[16:]),
        }
        assert receiver.find("inference synthesise")[0].attributes == {"engine": "scripted", "role": "tts"}
        assert "芝麻".encode() not in b"".join(receiver.bodies)

    async def test_adds_the_reply_of_a_call_to_the_turn(
        self, client: InferenceClient, llm: FakeLanguageModel, receiver: Receiver
    ) -> None:
        """Over real gRPC: the page knows the id of its turn, and both halves of the trace have it."""
        engines: Any = SimpleNamespace(stt=client.stt, llm=client.llm, tts=client.tts, active_calls=0)
        async with open_call(engines) as call:
            await eventually(lambda: len(llm.prefills) == 1)
            call.send(messages.TextMessage(text="你好"))
            said = await call.wait_for(messages.Transcription)
            await call.wait_for(messages.TurnEnd)
            await call.wait_until_listening()
            # Read ahead for the next turn, which has no id yet.
            await eventually(lambda: len(llm.prefills) == 2)
        tracing.shut_down()

        assert {span.trace_id for span in receiver.spans} == {said.turn_id.hex}
        assert receiver.find("inference prefill") == []
        (turn,) = receiver.find("turn")
        assert {"inference generate", "inference synthesise", "llm", "tts"} <= {span.name for span in receiver.spans}
        assert {span.parent_id for span in receiver.spans} == {"", turn.span_id}

    async def test_adds_nothing_for_a_call_of_no_turn(self, client: InferenceClient, receiver: Receiver) -> None:
        await generate(client)
        tracing.shut_down()

        assert receiver.spans == []


class TestWithoutAnEndpoint:
    @pytest.mark.parametrize("value", ["", " "])
    def test_is_off(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv(tracing.ENDPOINT, value)

        assert not tracing.configure("test")
        assert not tracing.is_on()
        tracing.record("llm", make_trace_id(), began_s=0, ended_s=1)

    @pytest.mark.parametrize("module", ["inference.host", "avatar_site.asgi"])
    def test_imports_no_opentelemetry(self, module: str) -> None:
        code = f"""
import {module}, sys
from inference.telemetry import tracing
tracing.configure("test")
print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
"""
        environment: dict[str, Any] = {**os.environ, "DJANGO_SETTINGS_MODULE": "avatar_site.settings.test"}
        environment.pop(tracing.ENDPOINT, None)
        run = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
        )

        assert run.stdout.strip() == "[]"
