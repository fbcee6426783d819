"""
F5-TTS's transformer step with fewer kernels and exact positions; the weights and the results are the library's.

The library launches 1400 kernels a step, most of them shorter than the time Python takes to launch the next, so the GPU
idles for half of the step. Here the projections of an attention are one product, the rotary embedding is one complex
product, and both halves of classifier-free guidance share one input embedding: 650 kernels.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from f5_tts.model import DiT
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

ROTARY_BASE = 10_000.0
EPSILON = 1e-6
#: All but cuDNN, PyTorch's first choice on Hopper, which compiles a plan for each new length (35 ms on an H200).
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def quicken(transformer: DiT) -> torch.nn.Module:
    """Wrap a transformer of the published architecture; return any other unchanged."""
    is_known = (
        transformer.long_skip_connection is None
        and all(isinstance(block.dwconv, torch.nn.Conv1d) for block in _list_text_blocks(transformer))
        and all(
            block.attn.q_norm is None and block.attn.k_norm is None and block.attn.processor.pe_attn_head is None
            for block in transformer.transformer_blocks
        )
    )
    return QuickDiT(transformer) if is_known else transformer


class QuickDiT(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """
    Drop-in for the library's `DiT` at inference, for one thread at a time.

    Positions are rotated in float32, as in training. The library casts the rotary frequencies to half precision along
    with the weights, which is off by up to a radian towards the end of 30 s.
    """

    def __init__(self, transformer: DiT) -> None:
        super().__init__()
        self.transformer = transformer
        for block in _list_text_blocks(transformer):
            block.dwconv = _DepthwiseConvolution(block.dwconv)
        for block in transformer.transformer_blocks:
            _join_projections(block.attn)
        #: Constant over the steps of one call: reference spectrogram and text embedding, with and without guidance.
        self._cond: torch.Tensor | None = None
        self._text: torch.Tensor | None = None
        self._rotations = torch.empty(0)

    def clear_cache(self) -> None:
        self._cond = self._text = None
        self.transformer.clear_cache()

    def forward(
        self,
        x: torch.Tensor,
        cond: torch.Tensor,
        text: torch.Tensor,
        time: torch.Tensor,
        mask: torch.Tensor | None = None,
        cfg_infer: bool = False,
        **options: Any,
    ) -> torch.Tensor:
        """Return the predicted flow, conditional and unconditional, concatenated along the batch."""
        dit = self.transformer
        if not cfg_infer:
            predicted: torch.Tensor = dit(x=x, cond=cond, text=text, time=time, mask=mask, **options)
            return predicted
        if self._cond is None or self._text is None:
            lengths = x.shape[1] if mask is None else mask.sum(dim=1)
            texts = [dit.text_embed(text, seq_len=lengths, drop_text=is_dropped) for is_dropped in (False, True)]
            self._text, self._cond = torch.cat(texts), torch.cat((cond, torch.zeros_like(cond)))
        both = None if mask is None else torch.cat((mask, mask))
        # One row for all heads and queries: expanded, as the library does it, four clauses take 0.8 GB.
        bias = None if both is None else torch.where(both, 0.0, float("-inf")).to(x.dtype)[:, None, None]
        # All of a batch are at the same time, so the modulation is computed once.
        moment = F.silu(dit.time_embed(time.reshape(-1)[:1]))
        rotations = self._compute_rotations(x.shape[1], x.device)
        x = dit.input_embed(torch.cat((x, x)), self._cond, self._text, audio_mask=both)
        with sdpa_kernel(BACKENDS) if bias is None else nullcontext():
            for block in dit.transformer_blocks:
                shift, scale, gate, ff_shift, ff_scale, ff_gate = block.attn_norm.linear(moment).chunk(6, dim=1)
                x = torch.addcmul(x, gate, _attend(block.attn, _modulate(x, shift, scale), rotations, bias))
                x = torch.addcmul(x, ff_gate, block.ff(_modulate(x, ff_shift, ff_scale)))
        scale, shift = dit.norm_out.linear(moment).chunk(2, dim=1)
        flow: torch.Tensor = dit.proj_out(_modulate(x, shift, scale))
        return flow

    def _compute_rotations(self, frames: int, device: torch.device) -> torch.Tensor:
        """Return the rotary embedding as complex factors: frames × 1 × half of a head."""
        if len(self._rotations) < frames or self._rotations.device != device:
            size = self.transformer.rotary_embed.inv_freq.numel()
            frequencies = ROTARY_BASE ** -(torch.arange(size, dtype=torch.float64) / size)
            angles = torch.outer(torch.arange(frames, dtype=torch.float64), frequencies)
            self._rotations = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)[:, None].to(device)
        return self._rotations[:frames]


class _DepthwiseConvolution(torch.nn.Module):  # type: ignore[misc]
    """A depthwise convolution without cuDNN, which compiles a kernel for each new length (130 ms on an H200)."""

    def __init__(self, convolution: torch.nn.Conv1d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.convolution
        (size,), (padding,), (dilation,) = layer.kernel_size, layer.padding, layer.dilation
        padded = F.pad(x, (padding, padding))
        frames = padded.shape[-1] - (size - 1) * dilation
        taps = [padded[..., number * dilation :][..., :frames] for number in range(size)]
        return (torch.stack(taps, dim=-1) * layer.weight).sum(dim=-1) + layer.bias[:, None]


def _list_text_blocks(transformer: DiT) -> list[Any]:
    return list(transformer.text_embed.text_blocks) if transformer.text_embed.extra_modeling else []


def _join_projections(attention: Any) -> None:
    """Let one product make queries, keys and values; the library's three layers become views of its weights."""
    layers = [attention.to_q, attention.to_k, attention.to_v]
    attention.joined_weight = torch.cat([layer.weight.detach() for layer in layers])
    attention.joined_bias = torch.cat([layer.bias.detach() for layer in layers])
    for layer, weight, bias in zip(
        layers, attention.joined_weight.chunk(3), attention.joined_bias.chunk(3), strict=True
    ):
        layer.weight, layer.bias = (torch.nn.Parameter(part, requires_grad=False) for part in (weight, bias))


def _modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPSILON), 1 + scale)


def _attend(attention: Any, x: torch.Tensor, rotations: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    heads = attention.heads
    joined = F.linear(x, attention.joined_weight, attention.joined_bias)
    size = joined.shape[-1] // 3
    query_key, value = joined.split((2 * size, size), dim=-1)
    pairs = torch.view_as_complex(query_key.float().unflatten(-1, (2 * heads, -1, 2)))
    query, key = torch.view_as_real(pairs * rotations).flatten(-2).to(x.dtype).chunk(2, dim=2)
    found = F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.unflatten(-1, (heads, -1)).transpose(1, 2), attn_mask=bias
    )
    attended: torch.Tensor = attention.to_out[0](found.transpose(1, 2).flatten(2))
    return attended
