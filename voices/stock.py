"""The stock voices. Their ids are computed, so that they are the same on every machine."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from voices.models import VoiceProfile


class StockVoice(NamedTuple):
    key: str
    name: str
    language: str
    gender: str

    @property
    def id(self) -> uuid.UUID:
        return uuid.uuid5(uuid.NAMESPACE_URL, f"avatar:stock-voice:{self.key}")


STOCK_VOICES = (
    StockVoice("zf_xiaoxiao", "曉曉", "zh", "female"),
    StockVoice("zf_xiaoni", "曉妮", "zh", "female"),
    StockVoice("zf_xiaoyi", "曉怡", "zh", "female"),
    StockVoice("zf_xiaobei", "曉北", "zh", "female"),
    StockVoice("zm_yunxi", "雲希", "zh", "male"),
    StockVoice("zm_yunyang", "雲揚", "zh", "male"),
    StockVoice("zm_yunjian", "雲健", "zh", "male"),
    StockVoice("zm_yunxia", "雲夏", "zh", "male"),
    StockVoice("af_heart", "Heart", "en", "female"),
    StockVoice("af_bella", "Bella", "en", "female"),
    StockVoice("am_michael", "Michael", "en", "male"),
    StockVoice("am_fenrir", "Fenrir", "en", "male"),
    StockVoice("bf_emma", "Emma", "en", "female"),
    StockVoice("bm_george", "George", "en", "male"),
)


def write_stock_voices(model: type[VoiceProfile]) -> None:
    """
    Create or update the rows of the stock voices. A disabled one stays disabled.

    Takes the model, because a migration has its own.
    """
    for voice in STOCK_VOICES:
        fields = {
            "owner": None,
            "kind": "stock",
            "name": voice.name,
            "language": voice.language,
            "gender": voice.gender,
            "engine_voice": voice.key,
        }
        model.objects.update_or_create(pk=voice.id, defaults=fields)
