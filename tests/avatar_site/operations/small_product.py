"""
A product of one file that `release_switch.py` can switch: its database is a JSON file, its environment one word.

It is faster than the whole product by a factor of a hundred, so that a switch can be killed at each of its points.
tests/avatar_site/operations/test_rehearsal.py switches the whole product.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings

PROGRAM = "avatar_site/operations/release_switch.py"
#: Refuses to run in an environment that is not the one of its code.
MANAGE = """
import fcntl, json, os, shutil, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DATA = ROOT / "var"
STATE = DATA / "state.json"
SCHEMA = json.loads((ROOT / "static" / "schema.json").read_text())

def read():
    return json.loads(STATE.read_text())

def write(state):
    STATE.write_text(json.dumps(state))

def answer(question, arguments):
    if question == "describe":
        sys.path.insert(0, str(ROOT))
        from avatar_site import version
        return {"version": SCHEMA["voices"], "build": version.identify(ROOT), "schema": SCHEMA,
                "applied": read()["schema"], "code": [each for each in version.CODE if (ROOT / each).exists()],
                "data_dir": str(DATA), "profile": "fake"}
    if question == "migrate":
        write(read() | {"schema": SCHEMA})
        return {}
    if question == "back-up":
        name = f"backup-{len(list(DATA.glob('backup-*')))}"
        shutil.copy(STATE, DATA / name)
        return {"backup": {"name": name, "target": str(DATA), "taken_at": "2026-11-26T12:00:00+00:00", "only": ""}}
    if question == "count-since":
        if not (DATA / arguments[0]).exists():
            sys.exit("there is no such backup")
        return {"turns": len(read()["turns"]) - len(json.loads((DATA / arguments[0]).read_text())["turns"]), "users": 0}

def serve(arguments):
    broken = ROOT / "static" / "broken"
    if broken.exists() and broken.read_text() == "dies":
        sys.exit("cannot import name Turn")
    import http.server  # takes longer than all other commands
    lock = (DATA / "serve.lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(503 if broken.exists() else 200)
            self.end_headers()
            self.wfile.write(b"tts is missing")
        def log_message(self, *arguments):
            pass
    port = int(arguments[arguments.index("--port") + 1])
    http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()

if (ROOT / "requirements" / "cpu.txt").read_text() != (ROOT / ".venv" / "installed").read_text():
    sys.exit("the environment is not the one of this code")
command, *arguments = sys.argv[1:]
if command == "work_on_release":
    print(json.dumps(answer(arguments[0], arguments[1:])))
elif command == "serve":
    serve(arguments)
elif command == "restore":
    state = json.loads((DATA / arguments[0]).read_text())
    if state["schema"] != SCHEMA:
        sys.exit("the backup is of another schema")
    write(state)
"""
PYTHON = sys._base_executable  # type: ignore[attr-defined]  # what venv makes environments of
#: Its environment has no packages: Python starts much faster in it than in the system's.
MAKEFILE = f"""
translations:
	@true
.venv/.requirements-cpu:
	@test ! -e offline
	@mkdir -p .venv/bin
	@ln -sf {PYTHON} .venv/bin/python
	@echo "home = {Path(PYTHON).parent}" > .venv/pyvenv.cfg
	@cp requirements/cpu.txt .venv/installed
	@touch $@
"""
FAR_FUTURE_S = 60


class SmallProduct:
    """Version one of it, installed in a folder and used: `release(2)` makes the next."""

    def __init__(self, root: Path, *, has_git: bool) -> None:
        self.root = root
        self.has_git = has_git
        self.source = root if has_git else root.with_name("source")
        self.source.mkdir(parents=True)
        self._git("init", "--quiet")
        for name in ("avatar_site/__init__.py", "avatar_site/version.py", "avatar_site/build.txt", PROGRAM):
            self._write(name, (settings.BASE_DIR / name).read_text())
        self._write(".gitattributes", (settings.BASE_DIR / ".gitattributes").read_text())
        self._write(".gitignore", ".venv*\n.releases\n/var/\n__pycache__\noffline\n")
        self._write("manage.py", MANAGE)
        self._write("Makefile", MAKEFILE)
        self._write("celery/__init__.py", "")
        self._write("celery/__main__.py", "")
        self._write("static/old.css", "")
        self.first = self.release("0001", requirements="django==5")
        if not has_git:
            shutil.unpack_archive(self.first, root, filter="data")
        self.make(".venv/.requirements-cpu")
        (root / "var").mkdir()
        self.write_state({"schema": {"voices": "0001"}, "turns": ["one"]})

    def release(self, schema: str, *, requirements: str = "django==5", broken: str = "") -> str:
        """Commit a version, and return what `upgrade --to` takes."""
        head = self._git("rev-parse", "HEAD").strip() if (self.source / "static" / "schema.json").exists() else ""
        self._write("static/schema.json", json.dumps({"voices": schema}))
        self._write("requirements/cpu.txt", requirements)
        if head:
            (self.source / "static" / "old.css").unlink(missing_ok=True)
            self._write("templates/new.html", schema)
            self._write("docs/new.md", schema)
        (self.source / "static" / "broken").unlink(missing_ok=True)
        if broken:
            self._write("static/broken", broken)
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", schema)
        commit = self._git("rev-parse", "HEAD").strip()
        if self.has_git:
            # The installation stays where it was.
            if head:
                self._git("checkout", "--quiet", "--detach", head)
            return commit
        path = self.root.with_name(f"{schema}{broken}.tar.gz")
        self._git("archive", "--format=tar.gz", f"--output={path}", "HEAD")
        return str(path)

    def switch(self, *arguments: str, code: int = 0, prefix: Sequence[str] = ()) -> str:
        """Run the program as `make` does. Return its output."""
        program = self.root / (".releases/release_switch.py" if self.is_switching else PROGRAM)
        done = subprocess.run(
            [sys.executable, "-I", *prefix, str(program), *arguments],
            cwd=self.root.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FAR_FUTURE_S,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def make(self, target: str) -> None:
        subprocess.run(["make", "--silent", target], cwd=self.root, check=True)

    # --- the state of the installation ---

    def read_state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.root / "var" / "state.json").read_text())
        return state

    def write_state(self, state: dict[str, Any]) -> None:
        (self.root / "var" / "state.json").write_text(json.dumps(state))

    def look(self) -> dict[str, str]:
        """Return the version of each part; those of a half switch differ."""
        return {
            "code": json.loads((self.root / "static" / "schema.json").read_text())["voices"],
            "environment": (self.root / ".venv" / "installed").read_text(),
            "database": self.read_state()["schema"]["voices"],
            "files": ",".join(name for name in ("static/old.css", "templates/new.html") if (self.root / name).exists()),
            "journal": "there" if self.is_switching else "",
        }

    @property
    def is_switching(self) -> bool:
        return (self.root / ".releases" / "journal.json").exists()

    def _write(self, name: str, text: str) -> None:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _git(self, *arguments: str) -> str:
        names = ("-c", "user.name=Operator", "-c", "user.email=operator@example.org")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        return subprocess.run(
            ["git", *names, *arguments],
            cwd=self.source,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
