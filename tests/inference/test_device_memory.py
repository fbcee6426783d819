from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from inference.config import PROFILES, InferenceConfig
from inference.device_memory import (
    MIB,
    BudgetError,
    NoDevices,
    NvmlReader,
    Share,
    check_budget,
    find_visible,
    get_reader,
    list_shares,
    read_free_mib,
)
from inference.interfaces import CONVERSATION_ROLES, DeviceMemory, Role
from inference.models.catalogue import CATALOGUE
from tests.inference.scripted_reader import ScriptedReader

RTX_4090 = DeviceMemory("NVIDIA GeForce RTX 4090", 24_564 * MIB, 24_100 * MIB)
GPU = InferenceConfig(profile="gpu", engines=PROFILES["gpu"], device="cuda")


def free(mib: int) -> tuple[DeviceMemory, ...]:
    return (replace(RTX_4090, free_bytes=mib * MIB),)


#: Of each size that docs/gpu.md has settings for: all of the memory, and what a driver leaves free of it.
SIZES = {"12": (12_288, 11_900), "16": (16_376, 15_900), "24": (24_564, 24_000), "48": (49_140, 48_400)}
#: CUDA's own memory in each of the two processes on the device, which is in no share.
CONTEXTS_MIB = 1000
GUIDE = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")


class TestGuide:
    @pytest.mark.parametrize("size", SIZES)
    def test_gives_settings_that_fit(self, size: str) -> None:
        total_mib, free_mib = SIZES[size]
        section = re.split(r"^#+ ", GUIDE.split(f"### {size} GB\n")[1], flags=re.MULTILINE)[0]
        settings = dict(re.findall(r"^(AVATAR_\w+)=(\S+)$", section, re.MULTILINE))
        config = InferenceConfig.from_env(settings)
        shares = list_shares(config)

        assert config.device == "cuda"
        assert {share.role for share in shares} == CONVERSATION_ROLES
        needed_mib = sum(share.mib for share in shares) + config.memory_reserve_mib
        assert f"= {needed_mib:,} MiB".replace(",", " ") in section
        device = DeviceMemory(f"{size} GB", total_mib * MIB, (free_mib - CONTEXTS_MIB) * MIB)
        check_budget(shares, (device,), reserve_mib=config.memory_reserve_mib)
        assert {share.engine.partition(":")[2] for share in shares} <= set(CATALOGUE)

    def test_names_no_setting_that_there_is_not(self) -> None:
        example = (Path(__file__).parents[2] / ".env.example").read_text(encoding="utf-8")

        assert set(re.findall(r"AVATAR_[A-Z_]+[A-Z]", GUIDE)) <= set(re.findall(r"AVATAR_[A-Z_]+[A-Z]", example))


class TestCheckBudget:
    def test_lets_the_default_start_on_24_gb(self) -> None:
        check_budget(list_shares(GPU), (RTX_4090,), reserve_mib=GPU.memory_reserve_mib)

    @pytest.mark.parametrize(("free_mib", "fits"), [(22_800, True), (22_799, False)])
    def test_adds_up_to_the_mebibyte(self, free_mib: int, fits: bool) -> None:
        shares = list_shares(GPU)
        assert sum(share.mib for share in shares) + GPU.memory_reserve_mib == 22_800

        if fits:
            check_budget(shares, free(free_mib), reserve_mib=GPU.memory_reserve_mib)
        else:
            with pytest.raises(BudgetError):
                check_budget(shares, free(free_mib), reserve_mib=GPU.memory_reserve_mib)

    def test_shows_the_arithmetic_and_what_to_change(self) -> None:
        with pytest.raises(BudgetError) as refusal:
            check_budget(list_shares(GPU), free(12_000), reserve_mib=300)

        lines = str(refusal.value).splitlines()[1:]
        numbers = [int(line.split()[0]) for line in lines]
        assert sum(numbers[:4]) == numbers[4] == 22_800
        assert numbers[5] == 12_000
        for name in ("AVATAR_STT_MEMORY_MIB", "AVATAR_LLM_MEMORY_MIB", "AVATAR_TTS_MEMORY_MIB", "RTX 4090"):
            assert name in str(refusal.value)

    def test_says_nothing_of_devices_that_nobody_knows(self) -> None:
        check_budget(list_shares(GPU), (), reserve_mib=300)
        check_budget([], free(0), reserve_mib=300)


class TestListShares:
    def test_counts_what_computes_on_the_device(self) -> None:
        engines = {**PROFILES["gpu"], Role.LLM: ("openai_chat",)}

        assert list_shares(replace(GPU, engines=engines)) == [
            Share(Role.STT, "faster_whisper:whisper-large-v3-turbo", 2500),
            Share(Role.TTS, "f5_tts:f5-tts-v1", 3000),
        ]

    def test_counts_nothing_on_the_processor(self) -> None:
        assert list_shares(replace(GPU, device="cpu")) == []


class TestReaders:
    def test_find_what_is_free_of_the_first_device(self) -> None:
        reader = ScriptedReader((*free(500), *free(9000)), free(100))

        assert [read_free_mib(reader) for _ in range(3)] == [500, 100, 100]
        assert read_free_mib(NoDevices()) is None

    def test_is_not_asked_for_where_engines_compute_on_the_processor(self) -> None:
        assert isinstance(get_reader(InferenceConfig()), NoDevices)

    def test_knows_of_none_without_a_driver(self) -> None:
        # On a machine with a GPU and its driver there is one; everywhere else this must not raise.
        assert get_reader(GPU).read() == () or get_reader(GPU).read()[0].total_bytes > 0


class TestFindVisible:
    UUIDS = ("GPU-aaa1", "GPU-aab2", "GPU-ccc3")

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (None, [0, 1, 2]),
            ("", []),
            ("1", [1]),
            ("2, 0", [2, 0]),
            ("GPU-aab2,0", [1, 0]),
            ("GPU-c", [2]),
            ("GPU-aa", []),
            ("0,7,1", [0]),
            ("-1", []),
            ("NoDevFiles", []),
        ],
    )
    def test_finds_what_cuda_shows_a_process(self, names: str | None, expected: list[int]) -> None:
        assert find_visible(names, self.UUIDS) == expected


class TestNvmlReader:
    def test_reads_only_the_devices_this_process_may_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        driver = SimpleNamespace(
            nvmlInit=lambda: None,
            nvmlDeviceGetCount=lambda: 2,
            nvmlDeviceGetHandleByIndex=lambda number: number,
            nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}",
            nvmlDeviceGetName=lambda handle: f"number {handle}",
            nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=8 * MIB, free=handle * MIB),
        )
        monkeypatch.setitem(sys.modules, "pynvml", driver)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

        assert read_free_mib(NvmlReader()) == 1
        assert NvmlReader().read() == (DeviceMemory("number 1", 8 * MIB, MIB),)
