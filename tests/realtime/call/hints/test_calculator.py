from __future__ import annotations

import pytest

from realtime.call.hints.calculator import compute_fact

SUMS = [
    ("一百二十五加三百七十八等於多少", "125 + 378 = 503"),
    ("125+378=?", "125 + 378 = 503"),
    ("12x15", "12 × 15 = 180"),
    ("三百除以四是多少？", "300 ÷ 4 = 75"),
    ("五百四十減兩百一是多少", "540 - 210 = 330"),
    ("二加三乘以四等於多少", "2 + 3 × 4 = 14"),
    ("一百除以零是多少", "100 ÷ 0：不能除以零"),
    ("What is 7 plus 8 times 2?", "7 + 8 × 2 = 23"),
    ("What's twelve times fifteen?", "12 × 15 = 180"),
    # money
    ("一杯珍珠奶茶六十五元，三杯多少錢？", "65 × 3 = 195 元"),
    ("一杯65元,3杯多少錢?", "65 × 3 = 195 元"),
    ("一個三明治三十五元，買四個總共多少", "35 × 4 = 140 元"),
    ("我要買三杯，一杯六十五塊，總共多少錢", "65 × 3 = 195 元"),
    ("If one coffee costs 80 dollars, how much are three?", "80 × 3 = 240"),
    ("我有五百元，買一個一百二十元的便當，還剩多少？", "500 - 120 = 380 元"),
    ("我有一千元，買兩個六十元的麵包，還剩多少錢", "1000 - 120 = 880 元"),
    ("一件外套一千兩百元打八折是多少？", "1200 元打八折 = 960 元"),
    ("三千元打八五折多少", "3000 元打八五折 = 2550 元"),
    ("原價2000元打對折要多少", "2000 元打對折 = 1000 元"),
    ("What is 20% off 1500?", "1500 with 20% off = 1200"),
    ("兩百四的百分之十五是多少", "240 × 15% = 36"),
    ("What is 15 percent of 240?", "240 × 15% = 36"),
    # ways
    ("三公里走路要多久？", "走路每小時約 5 公里，3 公里約 三十六分鐘"),
    ("走八百公尺要幾分鐘", "走路每小時約 5 公里，800 公尺約 十分鐘"),
    ("騎腳踏車三十公里要多久", "騎腳踏車每小時約 15 公里，30 公里約 兩小時"),
    ("How long does it take to walk 3 kilometers?", "walking at 5 km/h, 3 kilometers takes about 36 minutes"),
    # times
    ("3:40 加 50 分鐘", "3:40加 五十分鐘是四點三十分"),
    ("現在三點四十分，五十分鐘以後是幾點？", "三點四十分加 五十分鐘是四點三十分"),
    ("晚上十點半再過三個小時是幾點？", "晚上十點半加 三小時是凌晨一點三十分"),
    ("下午兩點的前半小時是幾點", "下午兩點減 三十分鐘是下午一點三十分"),
    ("我早上八點上班，下午五點半下班，總共幾個小時？", "從 早上八點 到 下午五點半 是 九小時三十分鐘"),
    ("晚上十一點睡到早上六點是幾個小時", "從 晚上十一點 到 早上六點 是 七小時"),
    # units
    ("攝氏三十度是華氏幾度？", "攝氏 30 度 = 華氏 86 度"),
    ("華氏一百度等於攝氏幾度", "華氏 100 度 = 攝氏 37.8 度"),
    ("What is 30 degrees Celsius in Fahrenheit?", "30 degrees Celsius = 86 degrees Fahrenheit"),
    ("一台斤是幾公克？", "1 台斤 = 600 公克"),
    ("兩公斤是幾台斤", "2 公斤 = 3.33 台斤"),
    ("十坪大概是幾平方公尺？", "10 坪 = 33.06 平方公尺"),
    ("十英里是幾公里？", "10 英里 = 16.09 公里"),
    ("How many kilometers are in 10 miles?", "10 miles = 16.09 kilometers"),
    ("五個半小時是幾分鐘", "五個半小時 = 330 分鐘"),
    ("民國一百年是西元幾年", "民國 100 年 = 西元 2011 年"),
    ("2026年是民國幾年", "西元 2026 年 = 民國 115 年"),
]

NO_SUMS = [
    "八加九是什麼意思",
    "一加一手機好用嗎？",
    "五加皮是什麼？",
    "我的電話是0912-345-678",
    "02-2311-3731 是誰的電話？",
    "2026/3/12是什麼日子？",
    "2026-03-12 星期幾？",
    "3-5天可以到嗎？",
    "第二次世界大戰打了幾年？",
    "鄭成功在1661年到台灣，活了幾歲？",
    "1911加入同盟會的人有多少？",
    "十公里路跑要準備什麼？",
    "台北到高雄三百五十公里要開多久？",
    "一百美金是多少台幣？",
    "郵局幾點開？",
    "下午三點四十分要開會，五十分鐘夠嗎？",
    "我明天八點要上班，幾點睡比較好？",
    "一杯水有多少熱量？",
    "一個人住好嗎？",
    "小朋友發燒到三十九度要怎麼辦？",
    "水幾度會沸騰？",
    "一件外套八折好嗎？",
    "一坪多少錢？",
    "How many people live in Taipei 101?",
    "What happened on 9/11?",
    "One more time, please.",
    "萬一下雨怎麼辦？",
    "",
    "一加一" * 60,
]


class TestComputeFact:
    @pytest.mark.parametrize(("question", "fact"), SUMS)
    def test_works_out(self, question: str, fact: str) -> None:
        found = compute_fact(question)

        assert found is not None
        assert found.text == fact

    @pytest.mark.parametrize("question", NO_SUMS)
    def test_leaves_alone(self, question: str) -> None:
        assert compute_fact(question) is None

    @pytest.mark.parametrize(
        ("question", "fact"),
        [("那五杯呢？", "65 × 5 = 325 元"), ("那我付兩百元，要找多少？", "200 - 195 = 5 元")],
    )
    def test_goes_on_from_what_was_asked_before(self, question: str, fact: str) -> None:
        found = compute_fact(question, earlier="一杯珍珠奶茶六十五元，三杯多少錢？")

        assert found is not None
        assert found.text == fact

    @pytest.mark.parametrize("question", ["那五個呢？", "那奶茶呢？", "好，謝謝。"])
    def test_goes_on_only_where_that_is_plain(self, question: str) -> None:
        assert compute_fact(question, earlier="一杯珍珠奶茶六十五元，三杯多少錢？") is None
