from __future__ import annotations

import io
import json
import tracemalloc
import warnings
import zipfile

import pytest

from voices import archive
from voices.archive import Unreadable, read_archive

MEBIBYTE = 1024 * 1024


def make_archive(
    recordings: dict[str, bytes], *, listed: list[str] | None = None, compression: int = zipfile.ZIP_DEFLATED
) -> bytes:
    file = io.BytesIO()
    described = {"format": "avatar-voice", "version": 1, "name": "Mine", "language": "zh"}
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, content in recordings.items():
            made.writestr(name, content)
        described["recordings"] = [{"file": name} for name in listed or recordings]  # type: ignore[assignment]  # JSON
        made.writestr("profile.json", json.dumps(described))
    return file.getvalue()


def take_all(data: bytes) -> int:
    """Read the recordings one at a time, as an import does. Return their number."""
    return sum(1 for _ in read_archive(data).recordings)


class TestReadArchive:
    def test_takes_the_recordings_in_order(self) -> None:
        read = read_archive(make_archive({"recordings/01.flac": b"one", "recordings/02.flac": b"two"}))

        assert (read.name, read.language, list(read.recordings)) == ("Mine", "zh", [b"one", b"two"])

    def test_refuses_a_recording_that_is_named_twice(self) -> None:
        data = make_archive({"a.flac": bytes(MEBIBYTE)}, listed=["a.flac"] * 20)

        with pytest.raises(Unreadable, match="named twice"):
            read_archive(data)

    def test_refuses_two_entries_of_one_name(self) -> None:
        file = io.BytesIO(make_archive({"a.flac": b"one"}))
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "a") as made:
            made.writestr("a.flac", b"two")

        with pytest.raises(Unreadable, match="entries"):
            read_archive(file.getvalue())

    def test_refuses_more_than_a_voice_may_have(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = make_archive({f"{number}.flac": bytes(1000) for number in range(4)})
        monkeypatch.setattr(archive, "MAX_RECORDINGS_BYTES", 3999)

        with pytest.raises(Unreadable, match="larger"):
            take_all(data)

    def test_refuses_a_compression_without_a_limit(self) -> None:
        with pytest.raises(Unreadable, match="compression"):
            read_archive(make_archive({"a.flac": bytes(MEBIBYTE)}, compression=zipfile.ZIP_BZIP2))

    @pytest.mark.parametrize("kind", ["one recording twenty times", "four recordings", "many entries"])
    def test_needs_memory_for_one_recording(self, kind: str) -> None:
        large = bytes(archive.MAX_ENTRY_BYTES - MEBIBYTE)
        match kind:
            case "one recording twenty times":
                data = make_archive({"a.flac": large}, listed=["a.flac"] * 20)
            case "four recordings":
                data = make_archive({f"{number}.flac": large for number in range(4)})
            case _:
                data = make_archive({f"{number:06}": b"" for number in range(30_000)}, listed=["000000"])

        tracemalloc.start()
        try:
            take_all(data)
        except Unreadable:
            pass
        finally:
            _, peak_bytes = tracemalloc.get_traced_memory()
            tracemalloc.stop()

        assert peak_bytes < 2.2 * archive.MAX_ENTRY_BYTES if kind == "four recordings" else peak_bytes < 2 * MEBIBYTE
