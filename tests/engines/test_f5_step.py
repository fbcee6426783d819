"""The quick transformer step against the library's own, with random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from f5_tts.model import DiT
from torch.testing import assert_close

from inference.engines.f5_step import QuickDiT, quicken
from tests.engines.tiny_f5 import ARCHITECTURE

WORDS = 40


def make_transformer(**options: Any) -> DiT:
    torch.manual_seed(5)
    made = DiT(**ARCHITECTURE | {"attn_mask_enabled": True} | options, text_num_embeds=WORDS, mel_dim=100).eval()
    for parameter in made.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return made


def make_inputs(*lengths: int) -> dict[str, Any]:
    torch.manual_seed(len(lengths))
    count, frames = len(lengths), max(lengths)
    mask = torch.arange(frames)[None] < torch.tensor(lengths)[:, None]
    cond = torch.randn(count, frames, 100)
    cond[:, frames // 2 :] = 0
    return {
        "x": torch.randn(count, frames, 100),
        "cond": cond,
        "text": torch.randint(0, WORDS - 1, (count, 20)),
        "time": torch.tensor(0.3),
        "mask": mask if count > 1 else None,
    }


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    with torch.inference_mode():
        yield


class TestQuickDiT:
    @pytest.mark.parametrize("lengths", [(150,), (200, 90, 131)])
    def test_predicts_what_the_library_predicts(self, lengths: tuple[int, ...]) -> None:
        inputs, library = make_inputs(*lengths), make_transformer()
        expected = library(**inputs, cfg_infer=True, cache=True)
        quick = quicken(make_transformer())

        first = quick(**inputs, cfg_infer=True, cache=True)
        again = quick(**inputs, cfg_infer=True, cache=True)

        assert isinstance(quick, QuickDiT)
        is_sound = (
            torch.ones(len(lengths), max(lengths), dtype=torch.bool) if inputs["mask"] is None else inputs["mask"]
        )
        is_sound = torch.cat((is_sound, is_sound))
        assert_close(first[is_sound], expected[is_sound], rtol=1e-4, atol=1e-5)
        assert_close(again, first, rtol=0, atol=0)

    def test_predicts_without_guidance(self) -> None:
        inputs = make_inputs(80)
        options = {"drop_audio_cond": False, "drop_text": False, "cache": False}
        expected = make_transformer()(**inputs, **options)

        assert_close(quicken(make_transformer())(**inputs, **options), expected, rtol=1e-4, atol=1e-5)

    def test_forgets_a_text_when_told_to(self) -> None:
        inputs, quick = make_inputs(80), quicken(make_transformer())
        other = inputs | {"text": (inputs["text"] + 7) % (WORDS - 1)}
        alone = quick(**other, cfg_infer=True, cache=True)

        quick.clear_cache()
        quick(**inputs, cfg_infer=True, cache=True)
        quick.clear_cache()

        assert_close(quick(**other, cfg_infer=True, cache=True), alone, rtol=0, atol=0)

    def test_knows_positions_exactly_in_half_precision(self) -> None:
        transformer = make_transformer().half()
        exact = torch.arange(2800, dtype=torch.float64)[:, None] * 10_000.0 ** -(torch.arange(32).double() / 32)
        theirs = transformer.rotary_embed.forward_from_seq_len(2800)[0][0, :, ::2].double()

        quick = quicken(transformer)
        assert isinstance(quick, QuickDiT)
        ours = quick._compute_rotations(2800, torch.device("cpu"))[:, 0]

        assert float((theirs.cos() - exact.cos()).abs().max()) > 0.5
        assert float((ours.real - exact.cos()).abs().max()) < 1e-6


class TestQuicken:
    @pytest.mark.parametrize("options", [{"qk_norm": "rms_norm"}, {"long_skip_connection": True}, {"pe_attn_head": 1}])
    def test_leaves_other_architectures_alone(self, options: dict[str, Any]) -> None:
        transformer = make_transformer(**options)

        assert quicken(transformer) is transformer
