from __future__ import annotations

import re

import pytest

from inference.text_normalisation import normalise_mandarin

SPOKEN = [
    # dates
    ("今天是2024年3月15日", "今天是二零二四年三月十五日"),
    ("2024-03-15", "二零二四年三月十五日"),
    ("2024/3/15", "二零二四年三月十五日"),
    ("2024.3.15", "二零二四年三月十五日"),
    ("2月2日", "二月二日"),
    ("2000年", "二零零零年"),
    ("二〇二四", "二零二四"),
    # times
    ("下午3:30开会", "下午三点半开会"),
    ("21:15", "二十一点十五分"),
    ("10:05", "十点零五分"),
    ("8:00到17:30", "八点到十七点半"),
    ("24:00", "二十四点"),
    # ratios
    ("比分是3:2", "比分是三比二"),
    ("25:00", "二十五比零"),
    # percentages
    ("30%", "百分之三十"),
    ("100%安全", "百分之一百安全"),
    ("50-60%", "百分之五十到百分之六十"),
    ("50%~60%", "百分之五十到百分之六十"),
    # temperatures
    ("25°C", "二十五度"),
    ("25 °C", "二十五度"),
    ("25℃", "二十五度"),
    ("-5°C", "零下五度"),
    ("77°F", "华氏七十七度"),
    # money
    ("NT$1,299", "新台币一千二百九十九元"),
    ("NT$ 299元", "新台币二百九十九元"),
    ("NT$1.5万", "新台币一点五万元"),
    ("NT$1,234,567", "新台币一百二十三万四千五百六十七元"),
    ("US$20", "二十美元"),
    ("$1.5", "一点五元"),
    ("€1,000", "一千欧元"),
    ("100元/人", "一百元每人"),
    # telephone numbers
    ("电话是02-2345-6789", "电话是零二，二三四五，六七八九"),
    ("(02)2345-6789", "零二，二三四五，六七八九"),
    ("手机0912-345-678", "手机零九一二，三四五，六七八"),
    ("0912345678", "零九一二三四五六七八"),
    ("+886 912 345 678", "加八八六，九一二，三四五，六七八"),
    # plain numbers
    ("101大楼", "一零一大楼"),
    ("打110", "打一一零"),
    ("200", "二百"),
    ("1,234,567人", "一百二十三万四千五百六十七人"),
    ("3.14", "三点一四"),
    ("1/2", "二分之一"),
    ("½", "二分之一"),
    ("版本1.2.3", "版本一点二点三"),
    ("１２３", "一二三"),
    ("3-5天", "三到五天"),
    # two of something
    ("2个苹果", "两个苹果"),
    ("2 个苹果", "两个苹果"),
    ("2本书和2只猫", "两本书和两只猫"),
    ("12个", "十二个"),
    ("第2个", "第二个"),
    ("1.2倍", "一点二倍"),
    # units
    ("5km", "五公里"),
    ("100km/h", "一百公里每小时"),
    ("3.5kg", "三点五公斤"),
    ("250ml", "二百五十毫升"),
    ("30m²", "三十平方公尺"),
    ("10m的线", "十公尺的线"),
    # arithmetic
    ("1+1=2", "一加一等于二"),
    ("3×4=12", "三乘以四等于十二"),
    ("x² + y³", "x平方加y立方"),
    ("10^3", "十的三次方"),
    # English in Chinese
    ("我用 Apple Music 和 Google Maps 找路", "我用Apple Music和Google Maps找路"),
    ("他说 I'm fine 对吧", "他说I'm fine对吧"),
    ("GPT-4", "GPT四"),
    ("iPhone 15 Pro", "iPhone十五Pro"),
    ("A&B", "A和B"),
    ("写信到 user@example.com", "写信到user at example dot com"),
    # pictographs
    ("😀你好👍🏽", "你好"),
    ("🇹🇼", ""),
    ("1️⃣", "一"),
    # Markdown and tags
    ("**重点**", "重点"),
    ("~~删掉~~", "删掉"),
    ("- 第一项", "第一项"),
    ("# 标题", "标题"),
    ("[链接](https://example.com/a?b=c)", "链接"),
    ("<b>粗</b>", "粗"),
    ("---", ""),
]


class TestToSpokenMandarin:
    @pytest.mark.parametrize(("written", "spoken"), SPOKEN, ids=[written for written, _ in SPOKEN])
    def test_reads(self, written: str, spoken: str) -> None:
        assert normalise_mandarin(written) == spoken

    @pytest.mark.parametrize("written", [written for written, _ in SPOKEN])
    def test_leaves_no_digit_and_no_symbol(self, written: str) -> None:
        spoken = normalise_mandarin(written)

        assert not re.search(r"[\d*#`~_<>\[\]{}|\\^$€%°=+@²³/]", spoken)

    @pytest.mark.parametrize(
        "written",
        ["7" * 40, "1" * 5 + "x" * 5 + "2" * 5, "3.4.5.6.7", "12:34:56:78", "-1--2", "0/0", "²₂①Ⅻ", "1,2,3,4"],
    )
    def test_leaves_no_digit_of_nonsense_either(self, written: str) -> None:
        assert not re.search(r"[0-9²₂①]", normalise_mandarin(written))

    def test_keeps_the_pauses(self) -> None:
        assert normalise_mandarin("你好；我很好、真的：谢谢！好吗？") == "你好，我很好，真的，谢谢！好吗？"

    def test_leaves_quotation_marks_out(self) -> None:
        assert normalise_mandarin("他说「你好」") == "他说 你好"
