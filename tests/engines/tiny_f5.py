"""A checkpoint of F5-TTS small enough for two cores: the library's own classes, random weights, always the same."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

ARCHITECTURE = {"dim": 64, "depth": 2, "heads": 2, "ff_mult": 2, "text_dim": 32, "conv_layers": 1}

VOCODER = """
feature_extractor:
  class_path: vocos.feature_extractors.MelSpectrogramFeatures
  init_args: {sample_rate: 24000, n_fft: 1024, hop_length: 256, n_mels: 100, padding: center}
backbone:
  class_path: vocos.models.VocosBackbone
  init_args: {input_channels: 100, dim: 64, intermediate_dim: 128, num_layers: 2}
head:
  class_path: vocos.heads.ISTFTHead
  init_args: {dim: 64, n_fft: 1024, hop_length: 256, padding: center}
"""


def write_tiny_f5(folder: Path, *, seed: int = 0) -> Path:
    """Write model.safetensors, config.json and vocoder/ into `folder`, as a fetched model lies there."""
    import torch
    from f5_tts.infer.utils_infer import hop_length, n_fft, n_mel_channels, target_sample_rate, win_length
    from f5_tts.model import CFM, DiT
    from f5_tts.model.utils import get_tokenizer
    from safetensors.torch import save_file
    from vocos import Vocos

    torch.manual_seed(seed)
    vocabulary = files("f5_tts.infer").joinpath("examples/vocab.txt")
    characters, size = get_tokenizer(str(vocabulary), "custom")
    model = CFM(
        transformer=DiT(**ARCHITECTURE, text_num_embeds=size, mel_dim=n_mel_channels),
        mel_spec_kwargs={
            "n_fft": n_fft,
            "hop_length": hop_length,
            "win_length": win_length,
            "n_mel_channels": n_mel_channels,
            "target_sample_rate": target_sample_rate,
            "mel_spec_type": "vocos",
        },
        vocab_char_map=characters,
    )
    # The library begins training with nothing coming out; here something must depend on the text.
    for parameter in model.transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    (folder / "vocoder").mkdir(parents=True)
    save_file({f"ema_model.{name}": value for name, value in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"arch": ARCHITECTURE}))
    (folder / "vocoder" / "config.yaml").write_text(VOCODER)
    vocoder = Vocos.from_hparams(str(folder / "vocoder" / "config.yaml"))
    # Loud enough not to be taken for silence.
    with torch.no_grad():
        vocoder.head.out.bias[: n_fft // 2 + 1] += 1.0
    torch.save(vocoder.state_dict(), folder / "vocoder" / "pytorch_model.bin")
    return folder
