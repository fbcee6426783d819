"""An upgrade and a rollback of the whole product, between two schemas, by the commands of the runbooks."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from avatar_site.version import CODE
from tests.ports import find_free_port
from tests.processes import OutputProcess
from tests.runbooks import OF_MAKE, Runbook

PYTHON = sys._base_executable  # type: ignore[attr-defined]  # what venv makes environments of
#: Instead of pip: a new environment, which finds the packages of the tests' own, and the list that it was made from.
INSTALL = f"""set -e
{PYTHON} -m venv --without-pip .venv
cp requirements/cpu.txt .venv/installed.txt
echo "{site.getsitepackages()[0]}" > "$(echo .venv/lib/python*/site-packages)/tests.pth"
touch .venv/.requirements-cpu
"""
MIGRATION = """
from django.db import migrations, models

class Migration(migrations.Migration):
    dependencies = [("conversations", "{last}")]
    operations = [
        migrations.AddField("conversation", "mood", models.CharField(max_length=20, default="calm")),
        migrations.AlterField("turn", "language", models.CharField(max_length=8, blank=True, db_column="tongue")),
    ]
"""
LANGUAGE = '    language = models.CharField(_("language"), max_length=8, blank=True)\n'
#: A network namespace without interfaces. Where the machine does not allow one, only NO_INDEX applies.
NO_NETWORK = ("unshare", "--map-root-user", "--net")
NO_INDEX = {
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9"),
    "PIP_NO_INDEX": "1",
    "GIT_ALLOW_PROTOCOL": "none",
}
SAY = """
from django.contrib.auth.models import User
from conversations.models import Conversation, Turn
alice, _ = User.objects.get_or_create(username="alice")
conversation = Conversation.objects.create(owner=alice, title={title!r}{more})
Turn.objects.create(conversation=conversation, sequence=1, speaker="user", text={title!r})
"""
READ = """
import json
import avatar_site
from conversations.models import Conversation
from django.db import connection
with connection.cursor() as cursor:
    table = connection.introspection.get_table_description(cursor, Conversation._meta.db_table)
titles = list(Conversation.objects.order_by("created_at", "pk").values_list("title", flat=True))
has_mood = "mood" in [column.name for column in table]
print(json.dumps({"titles": titles, "has_mood": has_mood, "version": avatar_site.__version__}))
"""


class Site:
    """The product installed in a folder, from a source that has a second version, with a copy of a data folder."""

    def __init__(self, folder: Path, *, data_dir: Path, has_git: bool) -> None:
        self.root, self.source, self.data_dir = folder / "avatar", folder / "source", folder / "data"
        self.port = find_free_port()
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AVATAR_", "DJANGO_", "GIT_", "PYTEST", "COV_")) and name not in OF_MAKE
        } | {
            "AVATAR_ENV_FILE": "",
            "AVATAR_DATA_DIR": str(self.data_dir),
            "AVATAR_PROFILE": "fake",
            "AVATAR_PORT": str(self.port),
            "PYTHON": PYTHON,
        }
        for name in (*CODE, ".gitattributes", ".gitignore"):
            copy = shutil.copytree if (settings.BASE_DIR / name).is_dir() else shutil.copy
            self.source.mkdir(exist_ok=True)
            copy(settings.BASE_DIR / name, self.source / name)
        self.git("init", "--quiet", "--initial-branch", "main")
        self.commit("0.1.0")
        if has_git:
            subprocess.run(["git", "clone", "--quiet", self.source, self.root], check=True)
        else:
            shutil.unpack_archive(self.archive("0.1.0"), self.root, filter="data")
        folder.joinpath("install.sh").write_text(INSTALL)
        self.install = f"sh {folder / 'install.sh'}"
        self.run(*self.install.split())
        shutil.copytree(data_dir, self.data_dir)
        self.say("in the first version")

    def git(self, *arguments: str) -> None:
        names = ("-c", "user.name=Operator", "-c", "user.email=operator@example.org")
        subprocess.run(["git", *names, *arguments], cwd=self.source, check=True, env=self.environment)

    def commit(self, version: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", version)
        self.git("tag", f"v{version}")

    def archive(self, version: str) -> Path:
        path = self.root.with_name(f"avatar-{version}.tar.gz")
        self.git("archive", "--format", "tar.gz", "--prefix", f"avatar-{version}/", "--output", str(path), "HEAD")
        if version == "0.1.0":
            # What an operator unpacked: without the folder around it.
            self.git("archive", "--format", "tar.gz", "--output", str(path), "HEAD")
        return path

    def make_second(self, *, is_broken: bool = False) -> None:
        """Commit a version with another column, one that the first cannot read any more, and another requirement."""
        (self.source / "avatar_site" / "__init__.py").write_text('"""The site."""\n\n__version__ = "0.2.0"\n')
        migrations = self.source / "conversations" / "migrations"
        last = sorted(migrations.glob("0*.py"))[-1].stem
        (migrations / "9001_mood.py").write_text(MIGRATION.format(last=last))
        models = self.source / "conversations" / "models.py"
        field = '    mood = models.CharField(max_length=20, default="calm")\n'
        text = models.read_text()
        place = text.index("    title = ", text.index("class Conversation("))
        text = text[:place] + field + text[place:]
        assert LANGUAGE in text
        models.write_text(text.replace(LANGUAGE, LANGUAGE.replace(")\n", ', db_column="tongue")\n')))
        with (self.source / "requirements" / "cpu.txt").open("a") as file:
            file.write("# another requirement\n")
        if is_broken:
            with (self.source / "avatar_site" / "asgi.py").open("a") as file:
                file.write('raise ImportError("no such transport")\n')
        self.commit("0.2.0")

    def run(self, *command: str, code: int = 0) -> str:
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def manage(self, *arguments: str) -> str:
        return self.run(".venv/bin/python", "manage.py", *arguments)

    def say(self, title: str, more: str = "") -> None:
        self.manage("shell", "--no-imports", "--command", SAY.format(title=title, more=more))

    def look(self) -> dict[str, object]:
        """Return what shows which version code, environment and database are of, and what people said."""
        rows = json.loads(self.manage("shell", "--no-imports", "--command", READ).splitlines()[-1])
        installed = (self.root / ".venv" / "installed.txt").read_text()
        return rows | {"has_another_requirement": "another requirement" in installed}


FIRST = {
    "titles": ["in the first version"],
    "has_mood": False,
    "version": "0.1.0",
    "has_another_requirement": False,
}


class TestRunbooks:
    def test_upgrade_and_roll_back(self, tmp_path: Path, prepared_data: Path) -> None:
        site = Site(tmp_path, data_dir=prepared_data, has_git=True)
        first_python = (site.root / ".venv" / "bin" / "python").lstat().st_ino
        site.make_second()
        upgrade = Runbook("upgrade.md", folder=site.root, environment=site.environment)
        assert "AVATAR 0.1.0" in upgrade.run("manage.py version")
        upgrade.run("git fetch --tags")
        upgrade.environment["ARGS"] = f"--install '{site.install}'"

        output = upgrade.run("make upgrade TO=v0.2.0")

        assert "Upgraded to 0.2.0" in output
        assert "conversations.9001_mood took" in output
        site.say("in the second version", ', mood="glad"')
        assert site.look() == {
            "titles": ["in the first version", "in the second version"],
            "has_mood": True,
            "version": "0.2.0",
            "has_another_requirement": True,
        }
        assert "version 0.1.0" in upgrade.run("make releases")
        # The other command of that step is for an installation without git; serving is below, after the rollback.
        upgrade.take("TO=../avatar-0.2.0.tar.gz")
        upgrade.take("make run")
        assert upgrade.left == []

        rollback = Runbook(
            "rollback.md", folder=site.root, environment=site.environment | NO_INDEX, prefix=choose_prefix()
        )
        assert "version 0.1.0" in rollback.run("make releases")

        output = rollback.run("make rollback", stdin="yes\n")

        assert "lost: 1 turns, 1 conversations" in output
        assert "Back at 0.1.0" in output
        assert site.look() == FIRST
        assert (site.root / ".venv" / "bin" / "python").lstat().st_ino == first_python
        serve(site, rollback.take("make run"))
        assert "Confirmed" in rollback.run("confirm_restore")
        rollback.replace["BUILD"] = json.loads(next(read_left(site)))["build"]
        rollback.environment["ARGS"] = "--yes"
        assert "Back at 0.2.0" in rollback.run("make rollback TO=BUILD")
        assert site.look()["titles"] == ["in the first version", "in the second version"]
        assert rollback.left == []

    def test_upgrade_without_git_and_go_back_by_itself(self, tmp_path: Path, prepared_data: Path) -> None:
        site = Site(tmp_path, data_dir=prepared_data, has_git=False)
        site.make_second(is_broken=True)
        site.archive("0.2.0")
        environment = site.environment | {"ARGS": f"--install '{site.install}' --health-timeout-s 120"}
        upgrade = Runbook("upgrade.md", folder=site.root, environment=environment)

        output = upgrade.run("TO=../avatar-0.2.0.tar.gz", code=2)

        assert "conversations.9001_mood took" in output
        assert "no such transport" in output
        assert "AVATAR is as it was" in output
        assert site.look() == FIRST
        assert "There is no release to go back to" in site.run(".venv/bin/python", "manage.py", "rollback", code=1)


def choose_prefix() -> tuple[str, ...]:
    """Return what keeps a command from every network, if this machine allows it."""
    if shutil.which(NO_NETWORK[0]) is None:
        return ()
    return NO_NETWORK if subprocess.run([*NO_NETWORK, "true"], capture_output=True).returncode == 0 else ()


def serve(site: Site, command: str) -> None:
    process = OutputProcess(["bash", "-c", command], environment=site.environment, patience_s=120, folder=site.root)
    try:
        process.wait_for("AVATAR is ready")
    finally:
        process.close()


def read_left(site: Site) -> Iterator[str]:
    """Yield the records of releases that were left."""
    for path in (site.root / ".releases").glob("*/release.json"):
        if json.loads(path.read_text())["left_at"]:
            yield path.read_text()
