"""Whole restores, by the command, of a site in a folder."""

import contextlib
import fcntl
import gzip
import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest

from tests.backup_site import BackupSite, without_own

# Each command is a process that loads Django.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def site(saved_site: BackupSite) -> BackupSite:
    return saved_site


@pytest.fixture
def name(site: BackupSite) -> str:
    """Of the site's one backup."""
    return site.find_newest()


def add_login(site: BackupSite, name: str, scratch: Path) -> None:
    """Put a login into the database of a backup: snapshots have none, and a restore must not rely on that."""
    manifest_path = Path(site.target) / "manifests" / f"{name}.json"
    manifest = json.loads(manifest_path.read_bytes())
    stored = Path(site.target) / manifest["database"]["key"]
    scratch.write_bytes(gzip.decompress(stored.read_bytes()))
    with closing(sqlite3.connect(scratch)) as database, database:
        database.execute("INSERT INTO django_session VALUES ('of-somebody', 'x', '2999-01-01 00:00:00')")
    content = scratch.read_bytes()
    packed = gzip.compress(content)
    stored.write_bytes(packed)
    manifest["database"] |= {
        "size_bytes": len(packed),
        "sha256": hashlib.sha256(packed).hexdigest(),
        "content_bytes": len(content),
        "content_sha256": hashlib.sha256(content).hexdigest(),
    }
    manifest_path.write_text(json.dumps(manifest))


class TestRestore:
    def test_into_an_empty_folder_is_equal_in_rows_and_bytes(self, site: BackupSite, name: str) -> None:
        rows, files = site.read_rows(), site.read_files()
        empty = BackupSite(Path(site.data_dir).parent.parent / "empty", target=site.target)

        said = empty.manage("restore", name, "--yes")

        assert without_own(empty.read_rows()) == without_own(rows)
        assert rows["conversations_turn"][0] == 40
        assert empty.read_files() == files
        assert f"Backup {name} was restored, 40 files of audio were added" in said

    def test_brings_back_what_was_lost_and_keeps_the_state_before(self, site: BackupSite, name: str) -> None:
        rows = site.read_rows()
        site.fill(6, label="after")
        later = site.read_rows()
        shutil.rmtree(site.media_dir / "conversations")

        site.manage("restore", name, "--yes")

        restored = site.read_rows()
        assert without_own(restored) == without_own(rows)
        assert len(site.read_files()) == 40
        # And back again, by the safety backup of the previous state.
        safety = site.ask(
            "import json; from avatar_site.operations.models import Restore; "
            "print(json.dumps(Restore.objects.get().safety_name))"
        )
        site.manage("restore", safety, "--yes")
        assert without_own(site.read_rows()) == without_own(later)

    def test_asks_before_it_replaces_anything(self, site: BackupSite, name: str) -> None:
        rows = site.read_rows()

        assert "Nothing was changed" in site.fail("restore", name)
        assert site.read_rows() == rows

    def test_is_refused_while_the_product_runs(self, site: BackupSite, name: str) -> None:
        with (site.data_dir / "serve.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert "stop AVATAR" in site.fail("restore", name, "--yes")

    def test_ends_all_logins(self, site: BackupSite, name: str, tmp_path: Path) -> None:
        add_login(site, name, tmp_path / "database")

        assert "All logins were ended" in site.manage("restore", name, "--yes")

        with sqlite3.connect(site.data_dir / "avatar.sqlite3") as database:
            assert database.execute("SELECT count(*) FROM django_session").fetchone() == (0,)

    @pytest.mark.parametrize("is_damaged", [False, True])
    def test_leaves_no_log_of_the_database_before(self, site: BackupSite, name: str, is_damaged: bool) -> None:
        live = site.data_dir / "avatar.sqlite3"
        # A process that was killed leaves its log behind.
        database = sqlite3.connect(live)
        database.execute("UPDATE auth_user SET first_name = 'in the log'")
        database.commit()
        kept = {suffix: Path(f"{live}{suffix}").read_bytes() for suffix in ("-wal", "-shm")}
        database.close()
        for suffix, content in kept.items():
            Path(f"{live}{suffix}").write_bytes(content)
        if is_damaged:
            # Then nothing opens it and, closing it, removes the log.
            live.write_bytes(live.read_bytes()[:4096] + b"\xff" * (live.stat().st_size - 4096))

        site.manage("restore", name, "--yes")

        with sqlite3.connect(live) as database:
            assert database.execute("SELECT first_name FROM auth_user").fetchall() == [("",)]
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def test_keeps_a_damaged_database_aside(self, site: BackupSite, name: str) -> None:
        rows = site.read_rows()
        live = site.data_dir / "avatar.sqlite3"
        content = bytearray(live.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        live.write_bytes(content)
        for suffix in ("-wal", "-shm"):
            Path(f"{live}{suffix}").unlink(missing_ok=True)

        said = site.manage("restore", name, "--yes")

        assert "kept aside" in said
        assert without_own(site.read_rows()) == without_own(rows)
        (aside,) = site.data_dir.glob("damaged-*/avatar.sqlite3")
        assert aside.read_bytes() == content

    def test_keeps_a_database_aside_of_which_no_backup_can_be_made(self, site: BackupSite, name: str) -> None:
        site.shell("from django.contrib.auth.models import User; User.objects.create_user('only-here')")
        live = site.data_dir / "avatar.sqlite3"
        with contextlib.closing(sqlite3.connect(live, isolation_level=None)) as database:
            # Its pages are intact, and its references are not.
            database.execute("UPDATE conversations_conversation SET owner_id = 12345")

        said = site.manage("restore", name, "--yes")

        assert "cannot be backed up" in said
        (aside,) = site.data_dir.glob("replaced-*/avatar.sqlite3")
        assert f"The database before it is kept as {aside.parent}." in said
        with contextlib.closing(sqlite3.connect(aside)) as database:
            users = database.execute("SELECT username FROM auth_user").fetchall()
        assert ("only-here",) in users

    def test_goes_on_where_the_present_state_cannot_be_verified(self, site: BackupSite, name: str) -> None:
        rows = site.read_rows()
        # As after a migration that was killed half-way: no copy of it can be migrated.
        with closing(sqlite3.connect(site.data_dir / "avatar.sqlite3")) as database, database:
            database.execute("DELETE FROM django_migrations WHERE app = 'operations'")

        said = site.manage("restore", name, "--yes")

        assert "cannot be backed up" in said
        assert len(list(site.data_dir.glob("replaced-*/avatar.sqlite3"))) == 1
        assert without_own(site.read_rows()) == without_own(rows)

    def test_backs_the_present_state_up_to_the_configured_target(
        self, site: BackupSite, name: str, tmp_path: Path
    ) -> None:
        stick = tmp_path / "stick"
        shutil.copytree(site.target, stick)
        before = {path: path.stat().st_mtime_ns for path in stick.rglob("*")}

        said = site.manage("restore", name, "--from", str(stick), "--yes")

        assert {path: path.stat().st_mtime_ns for path in stick.rglob("*")} == before
        assert site.find_newest() > name
        assert site.find_newest() in said

    def test_needs_no_redis(self, site: BackupSite, name: str) -> None:
        away = BackupSite(site.data_dir.parent, target=site.target, REDIS_URL="redis://127.0.0.1:1/0")
        rows = site.read_rows()

        away.manage("restore", name, "--yes")

        assert without_own(site.read_rows()) == without_own(rows)

    def test_of_the_database_alone_costs_no_newer_audio(self, site: BackupSite, name: str) -> None:
        site.fill(60, label="after")
        files = site.read_files()

        site.manage("restore", name, "--yes", "--only", "database")

        # Older than an orphan has to be.
        site.shell(
            "import os; from pathlib import Path; from django.conf import settings\n"
            "for path in Path(settings.MEDIA_ROOT).rglob('*.opus'): os.utime(path, (0, 0))"
        )
        refused = site.run("remove_orphans", "--force")
        assert "confirm_restore" in refused.stdout + refused.stderr
        assert "confirm_restore" in site.run("remove_orphans").stderr
        assert site.read_files() == files

        site.manage("confirm_restore")
        site.manage("remove_orphans", "--force")
        assert len(site.read_files()) == 40

    def test_of_the_audio_alone_adds_what_is_missing_and_changes_no_row(self, site: BackupSite, name: str) -> None:
        # No tombstone says this: with the backup's database it would be gone.
        site.shell("from django.contrib.auth.models import User; User.objects.update(first_name='since the backup')")
        rows, files = site.read_rows(), site.read_files()
        shutil.rmtree(site.media_dir / "conversations")

        said = site.manage("restore", name, "--yes", "--only", "audio")

        assert site.read_files() == files
        assert without_own(site.read_rows()) == without_own(rows)
        assert "40 files of audio were added" in said

    def test_never_overwrites_a_file_of_the_same_name(self, site: BackupSite, name: str) -> None:
        changed = sorted(path for path in site.media_dir.rglob("*") if path.is_file())[0]
        old = changed.read_bytes()
        changed.write_bytes(b"another content of the same name")

        site.manage("restore", name, "--yes")

        assert changed.read_bytes() == b"another content of the same name"
        audio = site.ask(
            "import json; from conversations.models import Turn; "
            "print(json.dumps([[t.audio.name, t.audio.read().hex()] for t in Turn.objects.exclude(audio='')]))"
        )
        assert old.hex() in [content for _, content in audio]
        assert str(changed.relative_to(site.media_dir)) not in [each for each, _ in audio]


class TestWhatWasDeletedOrRevoked:
    """After the restore of the day before: by the tombstone log where the database is lost, and where it is there."""

    CHANGES = """
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from conversations import services as conversations
from conversations.deletion import delete_conversations
from conversations.models import Conversation, Turn
from tests import factories
from voices import services as voices
from voices.models import VoiceProfile
"""

    @pytest.fixture
    def changed(self, site: BackupSite) -> str:
        """The name of a backup of a site in which much was deleted and revoked since."""
        site.shell(
            self.CHANGES
            + """
alice, bob = User.objects.get(username="alice"), factories.create_user("bob")
factories.create_user("zebediah")
for name in ("deleted", "disabled", "unshared", "kept"):
    factories.upload_voice(alice, name=name)
VoiceProfile.objects.filter(name="unshared").update(is_shared=True)
bob.is_staff = True
bob.save()
# A word stays in the search index after its row, until that is merged.
factories.create_turn(Conversation.objects.order_by("title").first(), text="quetzalcoatl")
"""
        )
        name = site.back_up()
        site.shell(
            self.CHANGES
            + """
alice, bob, zebediah = (User.objects.get(username=name) for name in ("alice", "bob", "zebediah"))
voices.delete_voice_profile(profile=VoiceProfile.objects.get(name="deleted"))
voices.disable(profile=VoiceProfile.objects.get(name="disabled"))
voices.unshare(profile=VoiceProfile.objects.get(name="unshared"))
first, second = Conversation.objects.order_by("title")[:2]
delete_conversations(conversations=Conversation.objects.filter(pk=first.pk))
turn = second.turns.get(sequence=1)
conversations.correct_turn(conversation_id=second.pk, turn_id=turn.pk, text="改過的句子", supersede=False)
conversations.choose_retention(user=alice, audio_days=3, text_days=None)
zebediah.delete()
bob.is_active = bob.is_staff = False
bob.set_password("a password of today")
bob.save()
"""
        )
        return name

    READ = """
import json
from django.contrib.auth.models import User
from conversations.models import Conversation, RetentionChoice, Turn
from voices.models import VoiceProfile
bob = User.objects.get(username="bob")
print(json.dumps({
    "voices": dict(VoiceProfile.objects.exclude(owner=None).order_by("name").values_list("name", "availability")),
    "shared": VoiceProfile.objects.filter(is_shared=True).count(),
    "conversations": Conversation.objects.count(),
    "corrected": list(Turn.objects.exclude(heard_text="").values_list("text", flat=True)),
    "bob": [bob.is_active, bob.is_staff, bob.check_password("a password of today")],
    "zebediah": User.objects.filter(username="zebediah").exists(),
    "audio_days": list(RetentionChoice.objects.values_list("audio_days", flat=True)),
    "titles": Conversation.objects.filter(title__contains="改過").count(),
}))
"""
    EXPECTED: ClassVar = {
        "voices": {"disabled": "disabled", "kept": "available", "unshared": "available"},
        "shared": 0,
        "conversations": 1,
        "corrected": ["改過的句子"],
        "bob": [False, False, True],
        "zebediah": False,
        "audio_days": [3],
        "titles": 0,
    }

    def test_stays_so(self, site: BackupSite, changed: str) -> None:
        before = site.ask(self.READ)
        assert before == self.EXPECTED

        site.manage("restore", changed, "--yes")

        assert site.ask(self.READ) == self.EXPECTED
        # Neither the deleted voice's recording nor the deleted conversation's audio is back.
        assert len([name for name in site.read_files() if name.startswith("conversations/")]) == 20
        assert len({name.split("/")[2] for name in site.read_files() if name.startswith("voices/")}) == 3

    def test_stays_so_though_database_and_audio_are_lost(self, site: BackupSite, changed: str) -> None:
        for path in site.data_dir.glob("avatar.sqlite3*"):
            path.unlink()
        shutil.rmtree(site.media_dir)

        site.manage("restore", changed, "--yes")

        assert site.ask(self.READ) == self.EXPECTED
        assert len([name for name in site.read_files() if name.startswith("conversations/")]) == 20

    def test_stays_so_on_another_machine(self, site: BackupSite, changed: str) -> None:
        # Beat does this each minute.
        site.shell("from avatar_site.operations.tasks import ship_tombstones; ship_tombstones()")
        other = BackupSite(site.data_dir.parent.parent / "other", target=site.target)

        other.manage("restore", changed, "--yes")

        assert other.ask(self.READ) == self.EXPECTED

    @pytest.fixture
    def elsewhere(self, site: BackupSite, changed: str, tmp_path: Path) -> Path:
        """A copy of the backup, taken before the deletions were shipped, after the machine was lost."""
        copy = tmp_path / "elsewhere"
        shutil.copytree(site.target, copy)
        site.shell("from avatar_site.operations.tasks import ship_tombstones; ship_tombstones()")
        shutil.rmtree(site.data_dir)
        return copy

    def test_stays_so_after_the_restore_of_a_copy_elsewhere(
        self, site: BackupSite, changed: str, elsewhere: Path
    ) -> None:
        site.manage("restore", changed, "--from", str(elsewhere), "--yes")

        assert site.ask(self.READ) == self.EXPECTED

    def test_stays_so_unless_the_configured_target_is_left_out(
        self, site: BackupSite, changed: str, elsewhere: Path, tmp_path: Path
    ) -> None:
        site.environment = {**site.environment, "AVATAR_BACKUP_TARGET": str(tmp_path / "not mounted" / "target")}
        arguments = ("restore", changed, "--from", str(elsewhere), "--yes")

        refused = site.fail(*arguments)

        assert "Is its disk mounted?" in refused
        assert "--skip-unreadable-tombstones. Nothing was changed." in refused
        assert not (site.data_dir / "avatar.sqlite3").exists()

        said = site.manage(*arguments, "--skip-unreadable-tombstones")

        assert "Warning: the record of deletions in" in said
        assert site.ask(self.READ)["zebediah"]

    def test_stays_so_unless_a_damaged_record_is_left_out(
        self, site: BackupSite, changed: str, elsewhere: Path
    ) -> None:
        shipment = max(Path(site.target).glob("tombstones/*/*"), key=lambda path: path.stat().st_mtime_ns)
        shipment.write_bytes(b"damaged")
        arguments = ("restore", changed, "--from", str(elsewhere), "--yes")

        refused = site.fail(*arguments)

        assert f"tombstones/{shipment.parent.name}/{shipment.name}" in refused
        assert "--skip-unreadable-tombstones" in refused

        done = site.run(*arguments, "--skip-unreadable-tombstones")

        assert done.returncode == 0
        assert f"{shipment.name} of {site.target} is left out" in done.stdout + done.stderr
        assert site.ask(self.READ)["zebediah"]

    def test_is_not_in_the_bytes_of_the_restored_database(self, site: BackupSite, changed: str) -> None:
        site.manage("restore", changed, "--yes")

        content = (site.data_dir / "avatar.sqlite3").read_bytes()
        assert b"zebediah" not in content
        assert "第 0 句".encode() not in content
        assert b"quetzalcoatl" not in content
