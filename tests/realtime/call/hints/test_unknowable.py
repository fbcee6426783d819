import pytest

from realtime.call.hints.unknowable import find_hint


class TestFindHint:
    @pytest.mark.parametrize(
        ("question", "told"),
        [
            ("今天台北會下雨嗎？", "天氣"),
            ("外面天氣怎麼樣", "天氣"),
            ("今天有什麼新聞？", "新聞"),
            ("台積電現在股價多少？", "價格"),
            ("一百美金換台幣多少？", "匯率"),
            ("你可以幫我打電話給我媽媽嗎？", "沒辦法"),
            ("幫我叫計程車", "沒辦法"),
            ("我頭很痛，可以一次吃四顆普拿疼嗎？", "藥量"),
            ("止痛藥一天可以吃幾顆？", "藥量"),
        ],
    )
    def test_tells_what_cannot_be_known(self, question: str, told: str) -> None:
        hint = find_hint(question, is_chinese=True)

        assert hint
        assert told in hint

    @pytest.mark.parametrize(
        ("question", "told"),
        [
            ("What's the weather like today?", "weather"),
            ("How many pills may I take?", "dose"),
            ("What is the stock price of TSMC?", "prices"),
            ("Please call my mother.", "only talk"),
        ],
    )
    def test_tells_it_in_english(self, question: str, told: str) -> None:
        hint = find_hint(question, is_chinese=False)

        assert hint
        assert told in hint

    @pytest.mark.parametrize(
        "question",
        [
            "我昨天淋了雨，好冷。",
            "你喜歡下雨天嗎？",
            "我今天吃了四顆水餃。",
            "早上吃什麼好？",
            "一杯珍珠奶茶六十五元，三杯多少錢？",
            "我媽媽打電話給我了。",
            "電話是誰發明的？",
            "天氣的英文怎麼說？",
            "What does rain mean?",
            "My sister likes the news.",
        ],
    )
    def test_says_nothing_of_what_may_be_known(self, question: str) -> None:
        assert find_hint(question, is_chinese=True) is None
