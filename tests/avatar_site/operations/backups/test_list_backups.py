from __future__ import annotations

import datetime as dt
import io
import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from avatar_site.operations.backups import catalogue
from avatar_site.operations.backups.manifest import AudioPart, Manifest, Member, VerificationRecord, make_name
from avatar_site.operations.backups.targets import FolderTarget
from avatar_site.operations.management.commands.list_backups import describe_age


@pytest.fixture
def folder(settings: Settings, tmp_path: Path) -> Path:
    settings.AVATAR_DATA_DIR = tmp_path / "data"
    settings.AVATAR_BACKUP_TARGET = str(tmp_path / "backups")
    return tmp_path / "backups"


def make_backup(
    folder: Path,
    *,
    age: dt.timedelta,
    problem: str | None = None,
    is_checksum_only: bool = False,
    with_audio: bool = True,
    recipients: tuple[str, ...] = (),
) -> str:
    target = FolderTarget(folder)
    taken_at = timezone.now() - age
    name = make_name(taken_at)
    source = folder.with_name("source")
    source.write_bytes(bytes(1234))
    database = Member(f"db/{name}.sqlite3.gz", 1234, "", 5000, "")
    target.write(database.key, source)
    lists = Member(f"audio/{name}.index.json.gz", 1, "", 1, "")
    catalogue.write_manifest(
        target,
        Manifest(
            name=name,
            taken_at=taken_at,
            reason="nightly",
            version="1.2.3",
            build="abc",
            schema={},
            vendor="sqlite",
            row_counts={},
            database=database,
            audio=AudioPart(lists, lists, 7, 3 << 20) if with_audio else None,
            recipients=recipients,
        ),
    )
    if problem is not None:
        verified_at = taken_at + dt.timedelta(hours=1)
        record = VerificationRecord(
            name=name, verified_at=verified_at, took_s=2, problem=problem, is_checksum_only=is_checksum_only
        )
        catalogue.write_record(target, record)
    return name


def run(*arguments: str) -> tuple[str, str]:
    out, errors = io.StringIO(), io.StringIO()
    call_command("list_backups", *arguments, stdout=out, stderr=errors)
    return out.getvalue(), errors.getvalue()


class TestTable:
    def test_says_of_each_backup_what_it_is_worth(self, folder: Path) -> None:
        verified = make_backup(folder, age=dt.timedelta(hours=3), problem="")
        compared = make_backup(
            folder, age=dt.timedelta(days=2), problem="", is_checksum_only=True, recipients=("age1",), with_audio=False
        )
        damaged = make_backup(folder, age=dt.timedelta(days=3), problem="db: it is cut off")
        unproven = make_backup(folder, age=dt.timedelta(days=4))
        unreadable = make_backup(folder, age=dt.timedelta(days=5))
        (folder / f"manifests/{unreadable}.json").write_text("{")

        out, _errors = run()

        heading, *lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in out.splitlines()]
        assert heading == ["NAME", "AGE", "PARTS", "SIZE", "VERSION", "ENCRYPTED", "VERIFIED"]
        sizes = "1.2 KB + 3.0 MB"
        assert lines[:4] == [
            [verified, "3 hours", "database + audio", sizes, "1.2.3", "no", "verified 2 hours ago"],
            [compared, "2 days", "database", "1.2 KB", "1.2.3", "yes", "checksums compared 1 day ago"],
            [damaged, "3 days", "database + audio", sizes, "1.2.3", "no", "DAMAGED: db: it is cut off"],
            [unproven, "4 days", "database + audio", sizes, "1.2.3", "no", "not verified"],
        ]
        assert lines[4][:6] == [unreadable, "5 days", "?", "?", "?", "?"]
        assert lines[4][6].startswith("DAMAGED: its manifest cannot be read")

    def test_warns_of_the_same_disk_beside_the_table(self, folder: Path) -> None:
        make_backup(folder, age=dt.timedelta(hours=3))

        out, errors = run()

        assert str(folder) in errors
        assert str(folder) not in out

    def test_says_where_there_is_none(self, folder: Path) -> None:
        assert run()[0] == f"There are no backups in {folder}.\n"
        assert not folder.exists()

    def test_is_of_the_target_that_is_named(self, folder: Path, tmp_path: Path) -> None:
        name = make_backup(tmp_path / "other", age=dt.timedelta(hours=3))

        assert name in run("--to", str(tmp_path / "other"))[0]
        assert name not in run()[0]


class TestJson:
    def test_has_the_same_for_programs(self, folder: Path) -> None:
        verified = make_backup(folder, age=dt.timedelta(hours=3), problem="")
        unreadable = make_backup(folder, age=dt.timedelta(days=5))
        (folder / f"manifests/{unreadable}.json").write_text("{")

        out, errors = run("--json")

        first, second = json.loads(out)
        assert errors == ""
        assert first.keys() == second.keys()
        assert (first["name"], first["is_verified"], first["problem"]) == (verified, True, "")
        assert (first["parts"], first["database_bytes"], first["audio_bytes"]) == (["database", "audio"], 1234, 3 << 20)
        assert first["age_s"] == pytest.approx(3 * 3600, abs=60)
        assert (second["name"], second["is_verified"], second["parts"]) == (unreadable, False, None)
        assert "manifest cannot be read" in second["problem"]

    def test_is_an_empty_list_without_backups(self, folder: Path) -> None:
        assert json.loads(run("--json")[0]) == []


class TestTarget:
    @pytest.mark.parametrize("address", ["ftp://x/y", "s3://U"])
    def test_that_is_none_is_refused_with_a_sentence(self, folder: Path, address: str) -> None:
        with pytest.raises(CommandError, match=r"s3://bucket/prefix|not the name of a bucket"):
            run("--to", address)

    def test_that_is_not_mounted_is_an_error(self, folder: Path) -> None:
        with pytest.raises(CommandError, match="Is its disk mounted"):
            run("--to", str(folder.parent / "usb" / "backups"))


class TestAge:
    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (-5, "0 minutes"),
            (59, "0 minutes"),
            (60, "1 minute"),
            (3599, "59 minutes"),
            (3600, "1 hour"),
            (86399, "23 hours"),
            (86400, "1 day"),
            (86400 * 40, "40 days"),
        ],
    )
    def test_is_the_largest_whole_unit(self, seconds: int, text: str) -> None:
        assert describe_age(dt.timedelta(seconds=seconds)) == text
