from __future__ import annotations

import pytest
from django.utils import translation

from avatar_site.monitoring.health_words import describe_reason

CODES = {
    "database_unavailable": "The database does not answer.",
    "inference_unreachable": "The process that holds the models does not answer.",
    "stt_unavailable": "Speech recognition is unavailable.",
    "llm_loading": "The language model is being loaded.",
    "tts_on_fallback": "The voice engine runs on its fallback.",
    "encoder_warming": "The speaker encoder is being warmed up.",
    "worker_down": "The process worker does not run or does not answer.",
    "vram_short": "The GPU’s memory is short.",
}


class TestDescribeReason:
    @pytest.mark.parametrize(("code", "sentence"), CODES.items(), ids=list(CODES))
    def test_is_a_sentence_in_both_languages(self, code: str, sentence: str) -> None:
        with translation.override("en"):
            assert describe_reason(code) == sentence
        with translation.override("zh-hant"):
            assert describe_reason(code) not in (code, sentence)

    def test_is_the_code_of_a_reason_that_is_new(self) -> None:
        assert describe_reason("moon_full") == "moon_full"
