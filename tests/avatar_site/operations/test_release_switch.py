from __future__ import annotations

import ast
import fcntl
import io
import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avatar_site.operations import release_switch
from avatar_site.operations.release_switch import Refused
from tests.avatar_site.operations.small_product import PROGRAM, SmallProduct

ONE = {
    "code": "0001",
    "environment": "django==5",
    "database": "0001",
    "files": "static/old.css",
    "journal": "",
}
TWO = {
    "code": "0002",
    "environment": "django==6",
    "database": "0002",
    "files": "templates/new.html",
    "journal": "",
}
#: Runs the program, and kills it before the n-th time that it renames, links or removes something or starts a program.
KILL = """
import os, runpy, signal, subprocess, sys
left = int(sys.argv[1])
def wrap(owner, name):
    function = getattr(owner, name)
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    setattr(owner, name, wrapped)
for name in ("rename", "replace", "link", "unlink"):
    wrap(os, name)
wrap(subprocess.Popen, "__init__")
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

#: With git, and from archives: where each of them renames, links or starts what its steps consist of. Both begin after
#: what changes nothing.
UPGRADE = ((11, 14, 15, 20, 23), (12, 16, 21, 28, 39, 44))
ROLLBACK = ((11, 14, 16), (12, 24, 36, 38))


def choose_points(points: tuple[tuple[int, ...], tuple[int, ...]]) -> list[Any]:
    with_git, without = points
    cases = [(True, point) for point in with_git] + [(False, point) for point in without]
    return [pytest.param(*case, id=f"{'git' if case[0] else 'archive'}-{case[1]}") for case in cases]


@pytest.fixture(params=[True, False], ids=["git", "archive"])
def product(request: pytest.FixtureRequest, tmp_path: Path) -> SmallProduct:
    return SmallProduct(tmp_path / "avatar", has_git=request.param)


@pytest.fixture
def checkout(tmp_path: Path) -> SmallProduct:
    return SmallProduct(tmp_path / "avatar", has_git=True)


@pytest.fixture
def archive(tmp_path: Path) -> SmallProduct:
    return SmallProduct(tmp_path / "avatar", has_git=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this user cannot mount a small disk")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def read_release(product: SmallProduct) -> dict[str, object]:
    """The record of the release that was left last."""
    paths = (product.root / ".releases").glob("*/release.json")
    records = [json.loads(path.read_text()) for path in paths]
    release: dict[str, object] = max(records, key=lambda each: each["left_at"])
    return release


class TestUpgrade:
    def test_replaces_code_environment_and_schema(self, product: SmallProduct) -> None:
        output = product.switch("upgrade", "--to", product.release("0002", requirements="django==6"))

        assert product.look() == TWO
        assert "Upgraded to 0002" in output
        assert product.read_state()["turns"] == ["one"]

    def test_describes_the_release_that_it_left(self, checkout: SmallProduct) -> None:
        checkout.switch("upgrade", "--to", checkout.release("0002"))

        left = read_release(checkout)
        assert left["version"] == "0001"
        assert left["schema"] == {"voices": "0001"}
        assert left["backup"] == {
            "name": "backup-0",
            "target": str(checkout.root / "var"),
            "taken_at": "2026-11-26T12:00:00+00:00",
            "only": "",
        }

    def test_keeps_the_environment_of_the_same_requirements(self, checkout: SmallProduct) -> None:
        (checkout.root / ".venv" / "by-hand").touch()
        (checkout.root / "offline").touch()

        output = checkout.switch("upgrade", "--to", checkout.release("0002"))

        assert (checkout.root / ".venv" / "by-hand").exists()
        assert "the environment is kept" in output
        # make would install it again.
        assert checkout.make(".venv/.requirements-cpu") is None

    @pytest.mark.parametrize("broken", ["dies", "is not healthy"])
    def test_goes_back_by_itself_when_it_is_not_healthy(self, product: SmallProduct, broken: str) -> None:
        to = product.release("0002", requirements="django==6", broken=broken)

        output = product.switch("upgrade", "--to", to, "--health-timeout-s", "2", code=1)

        assert product.look() == ONE
        assert ("cannot import name Turn" if broken == "dies" else "503: tts is missing") in output
        assert "AVATAR is as it was" in output

    def test_goes_back_by_itself_when_nothing_can_be_installed(self, checkout: SmallProduct) -> None:
        to = checkout.release("0002", requirements="django==6")

        output = checkout.switch("upgrade", "--to", to, "--install", "mkdir .venv && touch .venv/half && false", code=1)

        assert checkout.look() == ONE
        assert "installing the requirements ended with code 1" in output

    def test_goes_back_by_itself_on_a_full_disk(self, small_disk: Path) -> None:
        product = SmallProduct(small_disk / "avatar", has_git=True)
        to = product.release("0002", requirements="django==6")
        install = "mkdir .venv && dd if=/dev/zero of=.venv/large bs=1M count=100 status=none"

        output = product.switch("upgrade", "--to", to, "--install", install, code=1)

        assert "No space left on device" in output
        assert "AVATAR is as it was" in output
        assert product.look() == ONE

    def test_refuses_while_it_runs(self, product: SmallProduct) -> None:
        to = product.release("0002")

        with (product.root / "var" / "serve.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            output = product.switch("upgrade", "--to", to, code=1)

        assert "stop it first" in output
        assert product.look() == ONE

    def test_refuses_changed_files(self, checkout: SmallProduct) -> None:
        to = checkout.release("0002")
        with (checkout.root / "manage.py").open("a") as file:
            file.write("# by hand\n")

        assert "commit, stash or remove" in checkout.switch("upgrade", "--to", to, code=1)

    def test_refuses_to_overwrite_files_that_git_does_not_have(self, checkout: SmallProduct) -> None:
        to = checkout.release("0002")
        (checkout.root / "docs").mkdir()
        (checkout.root / "docs" / "new.md").write_text("by hand")

        output = checkout.switch("upgrade", "--to", to, code=1)

        assert "files that are here and not in git: move them away first.\ndocs/new.md" in output
        assert (checkout.root / "docs" / "new.md").read_text() == "by hand"

    def test_refuses_new_files_in_the_folders_of_code(self, checkout: SmallProduct) -> None:
        to = checkout.release("0002")
        (checkout.root / "static" / "by-hand.css").touch()

        assert "have new files" in checkout.switch("upgrade", "--to", to, code=1)

    @pytest.mark.parametrize("to", ["no-such-thing", "--help-me", ""])
    def test_refuses_what_is_no_release(self, product: SmallProduct, to: str) -> None:
        output = product.switch("upgrade", f"--to={to}", code=1)

        assert f"TO={to}: expected" in output
        assert product.look() == ONE

    def test_has_nothing_to_do_at_the_same_release(self, product: SmallProduct) -> None:
        assert "is installed already" in product.switch("upgrade", "--to", product.first)

    def test_keeps_two_releases_and_their_environments(self, checkout: SmallProduct) -> None:
        for number in (2, 3, 4):
            checkout.switch("upgrade", "--to", checkout.release(f"000{number}", requirements=f"django=={number}"))

        kept = checkout.switch("list").splitlines()
        assert [line.split()[2] for line in kept] == ["0003", "0002"]
        assert len(list((checkout.root / ".releases" / "venvs").iterdir())) == 2


class TestRollback:
    @pytest.fixture
    def upgraded(self, checkout: SmallProduct) -> SmallProduct:
        checkout.switch("upgrade", "--to", checkout.release("0002", requirements="django==6"))
        checkout.write_state(checkout.read_state() | {"turns": ["one", "two", "three"]})
        return checkout

    def test_returns_code_environment_and_database(self, upgraded: SmallProduct) -> None:
        (upgraded.root / "offline").touch()

        output = upgraded.switch("rollback", "--yes")

        assert upgraded.look() == ONE
        assert upgraded.read_state()["turns"] == ["one"]
        assert "returns to 2026-11-26T12:00:00+00:00. Created since, and lost: 2 turns." in output
        assert "Back at 0001" in output

    def test_keeps_the_present_state_as_a_backup(self, upgraded: SmallProduct) -> None:
        upgraded.switch("rollback", "--yes")

        kept = json.loads((upgraded.root / "var" / "backup-1").read_text())
        assert kept["turns"] == ["one", "two", "three"]

    def test_changes_nothing_without_an_answer(self, upgraded: SmallProduct) -> None:
        output = upgraded.switch("rollback", code=1)

        assert "Nothing was changed" in output
        assert upgraded.look() == TWO

    def test_can_be_undone_by_its_name(self, upgraded: SmallProduct) -> None:
        upgraded.switch("rollback", "--yes")
        (upgraded.root / "offline").touch()

        upgraded.switch("rollback", "--to", "0002", "--yes")

        assert upgraded.look() == TWO
        assert upgraded.read_state()["turns"] == ["one", "two", "three"]

    def test_does_not_take_the_release_that_was_left_by_going_back(self, upgraded: SmallProduct) -> None:
        upgraded.switch("rollback", "--yes")

        assert "There is no release to go back to" in upgraded.switch("rollback", "--yes", code=1)

    def test_leaves_the_database_where_the_schema_is_the_same(self, checkout: SmallProduct) -> None:
        checkout.switch("upgrade", "--to", checkout.release("0001", requirements="django==6"))
        checkout.write_state(checkout.read_state() | {"turns": ["one", "two"]})

        output = checkout.switch("rollback")

        assert checkout.look() == ONE
        assert checkout.read_state()["turns"] == ["one", "two"]
        assert "nothing is lost" in output

    def test_goes_back_from_a_release_that_does_not_run_any_more(self, upgraded: SmallProduct) -> None:
        (upgraded.root / ".venv" / "installed").write_text("broken")

        refused = upgraded.switch("rollback", "--yes", code=1)
        output = upgraded.switch("rollback", "--yes", "--without-backup")

        assert "`--without-backup` goes on" in refused
        assert "could not be counted" in output
        assert upgraded.look() == ONE

    def test_goes_back_without_an_environment(self, upgraded: SmallProduct) -> None:
        shutil.rmtree(upgraded.root / ".venv")

        upgraded.switch("rollback", "--yes", "--without-backup")

        assert upgraded.look() == ONE

    def test_refuses_a_release_whose_backup_is_gone(self, upgraded: SmallProduct) -> None:
        (upgraded.root / "var" / "backup-0").unlink()

        assert "is the backup backup-0 still in" in upgraded.switch("rollback", "--yes", code=1)
        assert upgraded.look() == TWO

    def test_refuses_while_it_runs(self, upgraded: SmallProduct) -> None:
        with (upgraded.root / "var" / "serve.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            output = upgraded.switch("rollback", "--yes", code=1)

        assert "stop it first" in output

    def test_goes_to_a_release_by_its_name(self, checkout: SmallProduct) -> None:
        for number in (2, 3):
            checkout.switch("upgrade", "--to", checkout.release(f"000{number}", requirements=f"django=={number}"))

        checkout.switch("rollback", "--to", "0001", "--yes")

        assert checkout.look() == ONE


class TestInterruption:
    @pytest.mark.parametrize(("product", "point"), choose_points(UPGRADE), indirect=["product"])
    def test_of_an_upgrade_is_made_up_for_by_the_same_command(self, product: SmallProduct, point: int) -> None:
        to = product.release("0002", requirements="django==6")

        self.kill(product, point, "upgrade", "--to", to)
        product.switch("upgrade", "--to", to)

        assert product.look() == TWO
        assert product.read_state()["turns"] == ["one"]

    @pytest.mark.parametrize(("product", "point"), choose_points(UPGRADE), indirect=["product"])
    def test_of_an_upgrade_can_be_rolled_back(self, product: SmallProduct, point: int) -> None:
        to = product.release("0002", requirements="django==6")

        self.kill(product, point, "upgrade", "--to", to)
        if product.is_switching:
            product.switch("rollback", "--yes")

        assert product.look() == ONE
        assert product.read_state()["turns"] == ["one"]

    @pytest.mark.parametrize(("product", "point"), choose_points(ROLLBACK), indirect=["product"])
    def test_of_a_rollback_is_made_up_for_by_the_same_command(self, product: SmallProduct, point: int) -> None:
        product.switch("upgrade", "--to", product.release("0002", requirements="django==6"))

        self.kill(product, point, "rollback", "--yes")
        if product.is_switching or product.look() == TWO:
            product.switch("rollback", "--yes")

        assert product.look() == ONE

    def kill(self, product: SmallProduct, point: int, *arguments: str) -> None:
        product.switch(*arguments, prefix=("-c", KILL, str(point)), code=-9)
        # What `make` needs, to be told once more.
        assert (product.root / "Makefile").exists()

    def test_of_an_installation_leaves_no_half_of_it(self, checkout: SmallProduct) -> None:
        to = checkout.release("0002", requirements="django==6")
        install = "mkdir .venv && touch .venv/half && kill -9 $PPID"
        checkout.switch("upgrade", "--to", to, "--install", install, code=-9)

        checkout.switch("rollback", "--yes")

        assert checkout.look() == ONE

    def test_of_the_health_check_stops_what_it_checks(self, checkout: SmallProduct) -> None:
        to = checkout.release("0002", requirements="django==6", broken="is not healthy")
        command = [sys.executable, "-I", str(checkout.root / PROGRAM), "upgrade", "--to", to]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as switch:
            wait_until_locked(checkout.root / "var" / "serve.lock", step="check", product=checkout)
            switch.kill()

        checkout.switch("rollback", "--yes")

        assert checkout.look() == ONE

    def test_is_said_to_one_who_asks_for_another_release(self, product: SmallProduct) -> None:
        to, other = product.release("0002", requirements="django==6"), product.release("0003")
        self.kill(product, 20, "upgrade", "--to", to)

        output = product.switch("upgrade", "--to", other, code=1)

        assert f"make upgrade TO={to}" in output

    def test_of_an_upgrade_that_was_going_back_is_made_up_for_by_the_same_command(self, checkout: SmallProduct) -> None:
        to = checkout.release("0002", requirements="django==6", broken="dies")
        # Its points are those of an upgrade up to the health check, and of a rollback after it.
        self.kill(checkout, 28, "upgrade", "--to", to)
        assert checkout.is_switching

        output = checkout.switch("upgrade", "--to", to, code=1)

        assert "The upgrade had failed: AVATAR ended with code 1" in output
        assert checkout.look() == ONE


def wait_until_locked(path: Path, *, step: str, product: SmallProduct) -> None:
    """Return when a process other than the switch holds the lock, which it does itself in the steps before."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        journal = product.root / ".releases" / "journal.json"
        with path.open("a") as file:
            if journal.exists() and json.loads(journal.read_text())["step"] == step:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
        time.sleep(0.02)
    pytest.fail("nothing was started")


class TestArchive:
    def make(self, path: Path, *names: str, link: str = "") -> Path:
        with tarfile.open(path, "w:gz") as tar:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = 1
                tar.addfile(member, io.BytesIO(b"x"))
            if link:
                member = tarfile.TarInfo(link)
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(member)
        return path

    @pytest.mark.parametrize("names", [("avatar-1/a", "avatar-1/b/c"), ("./a", "b/c")], ids=["folder", "bare"])
    def test_is_unpacked_with_or_without_a_folder(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        release_switch.unpack(self.make(tmp_path / "a.tar.gz", *names), tmp_path / "code")

        assert (tmp_path / "code" / "a").read_text() == "x"
        assert (tmp_path / "code" / "b" / "c").read_text() == "x"

    @pytest.mark.parametrize("name", ["../a", "x/../../a", "/etc/a"])
    def test_must_not_lead_out_of_its_folder(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(Refused, match="no file of its own folder"):
            release_switch.unpack(self.make(tmp_path / "a.tar.gz", "b", name), tmp_path / "code")

        assert not (tmp_path / "a").exists()

    def test_must_not_have_links(self, tmp_path: Path) -> None:
        with pytest.raises(Refused, match="no file of its own folder"):
            release_switch.unpack(self.make(tmp_path / "a.tar.gz", "b", link="c"), tmp_path / "code")

    def test_that_is_none_is_refused(self, archive: SmallProduct, tmp_path: Path) -> None:
        (tmp_path / "page.tar.gz").write_text("<html>")

        output = archive.switch("upgrade", "--to", str(tmp_path / "page.tar.gz"), code=1)

        assert "cannot be unpacked" in output

    def test_that_is_cut_off_is_refused(self, archive: SmallProduct, tmp_path: Path) -> None:
        path = Path(archive.release("0002"))
        path.write_bytes(path.read_bytes()[:-400])

        archive.switch("upgrade", "--to", str(path), code=1)

        assert archive.look() == ONE

    def test_without_this_program_is_refused(self, archive: SmallProduct, tmp_path: Path) -> None:
        output = archive.switch("upgrade", "--to", str(self.make(tmp_path / "a.tar.gz", "manage.py", "b")), code=1)

        assert "is no AVATAR" in output


class TestProgram:
    def test_imports_the_standard_library_alone(self) -> None:
        tree = ast.parse(Path(release_switch.__file__).read_text())
        modules = {
            (each.module if isinstance(each, ast.ImportFrom) else each.names[0].name) or ""
            for each in ast.walk(tree)
            if isinstance(each, ast.Import | ast.ImportFrom)
        }

        assert {name.partition(".")[0] for name in modules} <= sys.stdlib_module_names
