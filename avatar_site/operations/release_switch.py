"""
Switches the installation from one release to another: what `make upgrade` and `make rollback` run.

A separate program for the system's Python that uses only the standard library, because it replaces the code and the
environment that the project's own commands run from. It is fully loaded before it replaces anything. In `.releases/`:

    lock                    held while a switch is under way
    journal.json            the switch in progress and its step, written before each step; absent if there is none
    release_switch.py       a copy of the program that began the switch, until it is done
    BUILD/release.json      a release that was left, and can be returned to, or the present one; see `Release`
    BUILD/code/             its code, where there is no git: moved here, and moved back
    venvs/ID/               an environment by the lists it was made from: moved, because its path is in its scripts

Each step can be repeated: after a kill -9, the same command goes on where it stopped, and `rollback` goes back.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime as dt
import fcntl
import hashlib
import http.client
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

FORMAT = 1
VENV = ".venv"
#: In a complete environment: the lists it was made from.
MARKER = ".release"
#: Top-level names that are not code in an installation without git, even if an archive has them.
NOT_CODE = re.compile(r"\.venv.*|\.releases|\.env|\.git|\.node|var|__pycache__")
#: A release without this program cannot be left by it.
PROGRAM = "avatar_site/operations/release_switch.py"
#: Releases that were left and can be returned to; those before them are removed, with their environments.
KEPT_RELEASES = 2
HEALTH_TIMEOUT_S = 600.0
POLL_S = 0.1
#: How long a child of a killed switch may still run: an installation.
LOCK_TIMEOUT_S = 600.0
#: A supervisor drains its calls; see `operations/processes.py`.
STOP_TIMEOUT_S = 60.0
PR_SET_PDEATHSIG = 1
LAST_LINES = 20

Json = dict[str, Any]


class Refused(Exception):
    """Nothing was changed. The message says why, and what to do."""


class StepFailed(Exception):
    """A step did not succeed. The message says why."""


@dataclass(frozen=True)
class Backup:
    """The backup for returning to a release: its name, its target, and its part if it has only one."""

    name: str
    target: str
    taken_at: str
    only: str = ""


@dataclass(frozen=True)
class Release:
    """A release of this installation."""

    version: str
    build: str
    #: The newest migration of each app that its code has.
    schema: dict[str, str]
    #: Of its code: the commit; empty without git.
    commit: str
    #: Without git: the top-level names of its code.
    entries: list[str]
    #: The environment it runs in: lists of requirements, and what identifies their content.
    lists: list[str]
    environment: str
    data_dir: str
    profile: str
    #: The state of the database when it was left; None: there was nothing to keep.
    backup: Backup | None = None
    #: Empty: the present release.
    left_at: str = ""
    #: Left for a newer one, and not by going back.
    is_previous: bool = False
    format: int = FORMAT

    @classmethod
    def from_json(cls, values: Json) -> Release:
        backup = values.get("backup")
        return cls(**values | {"backup": Backup(**backup) if backup else None})


@dataclass(frozen=True)
class Journal:
    """A switch in progress. `step` is the step that is running or was interrupted."""

    operation: str
    step: str
    leave: Release
    enter: Release
    #: For people.
    began_at: str
    #: An upgrade: the requested release, and its commit or the SHA-256 of its archive; see `UpgradeOptions`.
    wanted: str = ""
    source: str = ""
    install: str = ""
    health_timeout_s: float = HEALTH_TIMEOUT_S
    serve_arguments: list[str] = field(default_factory=list)
    #: A rollback: whether the database is restored, and the failure that caused it; empty if it was requested.
    restores_database: bool = False
    why: str = ""
    format: int = FORMAT

    @classmethod
    def from_json(cls, values: Json) -> Journal:
        return cls(**values | {side: Release.from_json(values[side]) for side in ("leave", "enter")})


class Installation:
    """The folder with the code, its environment, and `.releases/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.releases = root / ".releases"
        self.venv = root / VENV
        self.is_checkout = (root / ".git").exists()
        #: Inherited by child processes: no other switch begins while any of them runs.
        self.lock: int | None = None
        #: When this program began, on the monotonic clock, minus the time it waited for an answer.
        self.began_s = time.monotonic()

    @property
    def took_s(self) -> float:
        return time.monotonic() - self.began_s

    # --- records on disk ---

    @property
    def journal_path(self) -> Path:
        return self.releases / "journal.json"

    def read_journal(self) -> Journal | None:
        values = _read_json(self.journal_path)
        return None if values is None else Journal.from_json(values)

    def write_journal(self, journal: Journal) -> None:
        _write_json(self.journal_path, asdict(journal))

    def read_releases(self) -> list[Release]:
        """Return the releases that were left, newest first; skips records that cannot be read."""
        found = []
        for path in self.releases.glob("*/release.json"):
            with suppress(Refused, TypeError, KeyError):
                values = _read_json(path)
                if values is not None and values.get("format") == FORMAT:
                    found.append(Release.from_json(values))
        return sorted((each for each in found if each.left_at), key=lambda each: each.left_at, reverse=True)

    def write_release(self, release: Release) -> None:
        folder = self.releases / release.build
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_json(folder / "release.json", asdict(release))

    def remove(self, path: Path) -> None:
        """Remove a folder or file, if it exists. Renames it first, so that none is found half removed."""
        if path.exists() or path.is_symlink():
            self.releases.mkdir(mode=0o700, exist_ok=True)
            draft = self.releases / f".removed-{time.monotonic_ns()}"
            path.rename(draft)
            if draft.is_dir() and not draft.is_symlink():
                shutil.rmtree(draft)
            else:
                draft.unlink()

    # --- child processes ---

    def run(self, command: Sequence[str], what: str, *, is_read: bool = False) -> str:
        """
        Run a command in the folder. Return its output with `is_read`; otherwise it is shown.

        It dies with us; its own child processes keep the lock until they end. Raises StepFailed.
        """
        try:
            done = subprocess.run(  # noqa: S603 — the project's own programs
                command,
                cwd=self.root,
                env=_clean(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if is_read else None,
                text=True,
                check=False,
                pass_fds=() if self.lock is None else (self.lock,),
                preexec_fn=_die_with_parent(signal.SIGKILL),
            )
        except OSError as error:
            raise StepFailed(f"{what}: {error}") from error
        if done.returncode != 0:
            raise StepFailed(f"{what} ended with code {done.returncode}")
        return done.stdout or ""

    def manage(self, *arguments: str) -> None:
        self.run([self.python, "manage.py", *arguments], f"manage.py {arguments[0]}")

    def ask(self, question: str, *arguments: str) -> Json:
        """Run `manage.py work_on_release` of the present code and return its answer; it shows its own progress."""
        command = [self.python, "manage.py", "work_on_release", question, *arguments]
        text = self.run(command, f"manage.py work_on_release {question}", is_read=True)
        try:
            answer: Json = json.loads(text)
        except ValueError as error:
            raise StepFailed(f"manage.py work_on_release {question} answered {text[:200]!r}") from error
        return answer

    @property
    def python(self) -> str:
        return str(self.venv / "bin" / "python")

    def git(self, *arguments: str) -> str:
        return self.run(["git", *arguments], f"git {arguments[0]}", is_read=True)

    # --- the present release ---

    def describe(self) -> tuple[Release, dict[str, str]]:
        """Return the present release, as its code tells it, and the migrations of the database. Raises StepFailed."""
        facts = self.ask("describe")
        lists = self._read_lists(facts["profile"])
        entries: list[str] = []
        if not self.is_checkout:
            known = _read_json(self.releases / facts["build"] / "release.json")
            entries = known["entries"] if known else sorted(facts["code"])
        present = Release(
            version=facts["version"],
            build=facts["build"],
            schema=facts["schema"],
            commit=self.git("rev-parse", "HEAD").strip() if self.is_checkout else "",
            entries=entries,
            lists=lists,
            environment=identify_environment(self.root, lists),
            data_dir=facts["data_dir"],
            profile=facts["profile"],
        )
        return present, facts["applied"]

    def recall(self) -> Release | None:
        """Return the present release as recorded at its installation, if its code can no longer describe itself."""
        for path in self.releases.glob("*/release.json"):
            with suppress(Refused, TypeError, KeyError):
                if (values := _read_json(path)) is not None and not values["left_at"]:
                    return Release.from_json(values)
        return None

    def _read_lists(self, profile: str) -> list[str]:
        stamps = sorted(path.name.removeprefix(".requirements-") for path in self.venv.glob(".requirements-*"))
        return stamps or ["gpu" if profile == "gpu" else "cpu"]

    # --- switching code and environment ---

    def switch_code(self, leave: Release, enter: Release, *, is_forced: bool, is_again: bool) -> None:
        """
        Put the code of a release in the place of another's. Repeatable, and reversible from any point.

        `is_forced`: files are half of each, and of no operator. `is_again`: a git of ours may have been killed.
        """
        if enter.commit:
            if is_again:
                (self.root / self.git("rev-parse", "--git-path", "index.lock").strip()).unlink(missing_ok=True)
            self.git("checkout", "--quiet", *(("--force",) if is_forced else ()), "--detach", enter.commit)
            return
        for name in leave.entries:
            self._take_out(leave, name, is_replaced=name in enter.entries)
        for name in enter.entries:
            source, target = self.releases / enter.build / "code" / name, self.root / name
            if source.exists():
                source.replace(target)
                # Two names of one file: a rename leaves both.
                source.unlink(missing_ok=True)
        _sync(self.root)

    def _take_out(self, release: Release, name: str, *, is_replaced: bool) -> None:
        """Move a top-level name of the code to its release's folder, unless it is there."""
        source, kept = self.root / name, self.releases / release.build / "code" / name
        if kept.exists() or not source.exists():
            return
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_replaced and source.is_file():
            # A file, such as the Makefile, is never missing: its successor replaces it.
            os.link(source, kept)
        else:
            source.rename(kept)

    def note_environment(self, release: Release) -> None:
        """Record in the environment the lists it was made from."""
        if self.venv.is_symlink() or not self.venv.is_dir():
            raise Refused(f"{self.venv} is no folder: `make run` makes one.")
        (self.venv / MARKER).write_text(release.environment)
        # One that was kept under this name, before this was installed again.
        self.remove(self.releases / "venvs" / release.environment)

    def switch_environment(self, enter: Release, install: Callable[[], None] | None) -> None:
        """Put the environment of a release in its place: by renaming, or by installing it where that is allowed."""
        if _read_marker(self.venv) != enter.environment:
            kept = self.releases / "venvs"
            kept.mkdir(mode=0o700, exist_ok=True)
            if (present := _read_marker(self.venv)) is not None:
                self.remove(kept / present)
                self.venv.rename(kept / present)
            else:
                # Half installed.
                self.remove(self.venv)
            if (kept / enter.environment).exists():
                (kept / enter.environment).rename(self.venv)
            elif install is None:
                raise StepFailed(f"the environment {kept / enter.environment} is not there")
            else:
                try:
                    install()
                    (self.venv / MARKER).write_text(enter.environment)
                except (StepFailed, OSError):
                    # On a full disk, going back needs its room.
                    self.remove(self.venv)
                    raise
        # It fits the lists, whose files have just been written: make would install them again.
        for stamp in self.venv.glob(".requirements-*"):
            os.utime(stamp)

    def prune(self, present: Release) -> None:
        """Remove releases beyond those that are kept, and environments that none of them needs."""
        kept = [each for each in self.read_releases() if each.build != present.build]
        kept, removed = kept[:KEPT_RELEASES], kept[KEPT_RELEASES:]
        for release in removed:
            self.remove(self.releases / release.build)
        # Leftovers of a killed removal.
        for path in self.releases.glob(".removed-*"):
            self.remove(path)
        needed = {each.environment for each in (*kept, present)}
        for path in (self.releases / "venvs").glob("*"):
            if path.name not in needed:
                self.remove(path)


# --- upgrade ---


@dataclass(frozen=True)
class UpgradeOptions:
    to: str
    install: str = ""
    health_timeout_s: float = HEALTH_TIMEOUT_S
    serve_arguments: tuple[str, ...] = ()


def upgrade(installation: Installation, options: UpgradeOptions) -> None:
    """
    Install another release. Raises Refused while nothing is changed; StepFailed after it went back by itself.

    A backup of all, by the code that is left; then code, environment, models, migrations; then AVATAR has to start and
    become healthy.
    """
    journal = installation.read_journal()
    if journal is not None and journal.operation == "rollback":
        if not journal.why:
            raise Refused("A rollback was interrupted: `make rollback` finishes it.")
        _finish_rollback(installation, journal, is_again=True)
        raise StepFailed(f"The upgrade had failed: {journal.why}. AVATAR is as it was, at {journal.enter.build}")
    is_again = journal is not None
    if journal is None:
        journal = _begin_upgrade(installation, options)
        if journal is None:
            return
    elif _find_source(installation, options.to) != journal.source:
        # A branch may have moved since.
        to = journal.enter.commit or journal.wanted
        raise Refused(
            f"An upgrade to {journal.wanted} was interrupted. `make upgrade TO={to}` goes on, `make rollback` goes back"
        )
    try:
        _run_upgrade(installation, journal, is_again=is_again)
    except StepFailed as failure:
        say(f"The upgrade failed: {failure}.")
        say(f"Going back to {journal.leave.build} …")
        back = _turn_back(installation, installation.read_journal() or journal, why=str(failure))
        _finish_rollback(installation, back, is_again=is_again)
        raise StepFailed(
            f"The upgrade to {journal.enter.build} failed: {failure}. AVATAR is as it was, at {journal.leave.build}"
        ) from failure


def _begin_upgrade(installation: Installation, options: UpgradeOptions) -> Journal | None:
    """Check, and back up: nothing else is changed. Return the journal of the first step; None if that is installed."""
    present, _ = installation.describe()
    _check_idle(installation, present)
    enter = _choose_git(installation, present, options.to) or _choose_archive(installation, present, options.to)
    if enter is None:
        kind = "a git ref that is here (`git fetch` gets new ones)" if installation.is_checkout else "a .tar.gz archive"
        raise Refused(f"TO={options.to}: expected {kind}.")
    if enter.build == present.build:
        say(f"{present.build} is installed already.")
        return None
    say(f"Upgrading from {present.version} ({present.build}) to {enter.build}")
    # Of an archive, names that the present code may not have listed: they are replaced, and kept.
    there = {name for name in enter.entries if (installation.root / name).exists()}
    present = replace(present, entries=sorted({*present.entries, *there}))
    installation.note_environment(present)
    say("Backing up everything …")
    try:
        answer = installation.ask("back-up", "before-upgrade")
    except StepFailed as error:
        raise Refused(f"{error}. Nothing was changed") from error
    if answer["backup"] is None:
        raise Refused("There is no database yet, and so nothing to upgrade: check out the version, and `make run`.")
    left = replace(present, backup=Backup(**answer["backup"]), left_at=_now(), is_previous=True)
    keep_program(installation)
    return Journal(
        operation="upgrade",
        step="code",
        leave=left,
        enter=enter,
        began_at=_now(),
        wanted=options.to,
        source=_find_source(installation, options.to),
        install=options.install,
        health_timeout_s=options.health_timeout_s,
        serve_arguments=list(options.serve_arguments),
    )


def _run_upgrade(installation: Installation, journal: Journal, *, is_again: bool) -> None:
    steps: dict[str, Callable[[Journal], Journal | None]] = {
        "code": lambda each: installation.switch_code(each.leave, each.enter, is_forced=is_again, is_again=is_again),
        "environment": lambda each: _enter_environment(installation, each),
        "models": lambda each: _fetch_models(installation, each),
        "migrations": lambda each: _migrate(installation),
        "check": lambda each: check_health(installation, each),
        "finish": lambda each: _write_releases(installation, each),
    }
    names = list(steps)
    for name in names[names.index(journal.step) :]:
        journal = replace(journal, step=name)
        installation.write_journal(journal)
        with _failing_as_step(), ExitStack() as held:
            if name not in ("check", "finish"):
                held.enter_context(hold_serve_lock(journal.leave.data_dir, timeout_s=STOP_TIMEOUT_S if is_again else 0))
            journal = steps[name](journal) or journal
    finish(installation)
    try:
        installation.prune(journal.enter)
    except OSError as error:
        say(f"  older releases could not be removed: {error}")
    say(
        f"Upgraded to {journal.enter.version} ({journal.enter.build}) in {installation.took_s:.0f} s. "
        f"`make rollback` goes back to {journal.leave.build}."
    )


def _enter_environment(installation: Installation, journal: Journal) -> Journal:
    enter = replace(journal.enter, environment=identify_environment(installation.root, journal.enter.lists))
    journal = replace(journal, enter=enter)
    installation.write_journal(journal)
    if enter.environment == journal.leave.environment:
        say("Requirements are the same: the environment is kept.")
    else:
        say("Putting the new environment in place …")

    def install() -> None:
        stamps = [f"{VENV}/.requirements-{name}" for name in enter.lists]
        command = ["bash", "-c", journal.install] if journal.install else ["make", *stamps]
        installation.run(command, "installing the requirements")

    installation.switch_environment(enter, install)
    translate(installation)
    facts = installation.ask("describe")
    if facts["build"] != enter.build:
        raise StepFailed(f"the code that is here is {facts['build']} and not {enter.build}")
    return replace(journal, enter=replace(enter, version=facts["version"], schema=facts["schema"]))


def _fetch_models(installation: Installation, journal: Journal) -> None:
    if journal.enter.profile != "fake":
        say("Fetching models …")
        installation.run(
            [installation.python, "-m", "inference.models", "fetch", "--profile", journal.enter.profile],
            "fetching the models",
        )


def _migrate(installation: Installation) -> None:
    say("Migrating the database …")
    installation.ask("migrate")


def check_health(installation: Installation, journal: Journal) -> None:
    """
    Start AVATAR on a free port with the real settings, wait until it is healthy, and stop it. Raises StepFailed.

    No worker and no beat: they would do work that rolling back does not undo. That the worker can be loaded is checked.
    """
    say("Checking that it starts and becomes healthy …")
    log_path = installation.releases / "check.log"
    with log_path.open("w") as log:
        command = [installation.python, "-m", "celery", "--app", "avatar_site.celery", "report"]
        done = subprocess.run(  # noqa: S603 — the project's own program
            command,
            cwd=installation.root,
            env=_clean(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            check=False,
            preexec_fn=_die_with_parent(signal.SIGKILL),
        )
        if done.returncode != 0:
            raise StepFailed(f"the worker cannot be loaded:\n{_read_end(log_path)}")
    port = _find_free_port()
    serve = ("serve", "--host", "127.0.0.1", "--port", str(port), "--only", "inference,web")
    command = [installation.python, "manage.py", *serve, *journal.serve_arguments]
    # Of this check alone: /health tells strangers no reasons.
    token = secrets.token_hex()
    environment = {**os.environ, "AVATAR_METRICS_TOKEN": token}
    with log_path.open("w") as log, _running(installation, command, log, environment) as process:
        deadline_s = time.monotonic() + journal.health_timeout_s
        problem = "no answer"
        while time.monotonic() < deadline_s:
            if process.poll() is not None:
                raise StepFailed(f"AVATAR ended with code {process.returncode}:\n{_read_end(log_path)}")
            problem = _ask_health(port, token)
            if not problem:
                return
            time.sleep(POLL_S)
    raise StepFailed(f"not healthy within {journal.health_timeout_s:g} s ({problem}):\n{_read_end(log_path)}")


# --- rollback ---


@dataclass(frozen=True)
class RollbackOptions:
    to: str = ""
    is_agreed: bool = False
    without_backup: bool = False
    restores_database: bool = False


def rollback(installation: Installation, options: RollbackOptions) -> None:
    """
    Return to a release that was left: code, environment, and the database as it was then. Raises Refused, StepFailed.

    Uses no network. The database stays as it is when both releases have the same migrations, unless it is asked for.
    """
    journal = installation.read_journal()
    is_again = journal is not None
    if journal is None:
        journal = _begin_rollback(installation, options)
    elif journal.operation == "upgrade":
        if options.to and options.to != journal.leave.build:
            raise Refused(f"An upgrade was interrupted: the way back is to {journal.leave.build}, without TO.")
        say(f"An upgrade to {journal.enter.build} was interrupted at step {journal.step}.")
        with hold_serve_lock(journal.leave.data_dir, timeout_s=STOP_TIMEOUT_S):
            pass
        if _is_database_changed(journal) and journal.step != "migrations":
            _agree(installation, journal.leave, options)
            _back_up_present(installation, options)
        journal = _turn_back(installation, journal, why="")
    else:
        say(f"Going on with the rollback to {journal.enter.build}, at step {journal.step}.")
    _finish_rollback(installation, journal, is_again=is_again)


def _turn_back(installation: Installation, journal: Journal, *, why: str) -> Journal:
    """Write and return the journal of the rollback of an upgrade that is under way."""
    back = replace(
        journal,
        operation="rollback",
        step="code",
        leave=journal.enter,
        enter=journal.leave,
        restores_database=_is_database_changed(journal),
        why=why,
    )
    installation.write_journal(back)
    return back


def _begin_rollback(installation: Installation, options: RollbackOptions) -> Journal:
    try:
        present, applied = installation.describe()
    except StepFailed as error:
        recalled = installation.recall()
        if recalled is None:
            raise
        present, applied = recalled, recalled.schema
        say(f"The present release cannot be asked ({error}).")
    _check_idle(installation, present)
    enter = _choose_release(installation, present, options.to)
    say(f"Going back from {present.version} ({present.build}) to {enter.version} ({enter.build}), left {enter.left_at}")
    kept = installation.releases / "venvs" / enter.environment
    is_in_place = enter.environment == present.environment and installation.venv.is_dir()
    if not is_in_place and not kept.exists():
        raise Refused(
            f"Its environment is not here any more ({kept}): install it with `make upgrade TO={enter.build}`."
        )
    restores = options.restores_database or applied != enter.schema
    safety = None
    if restores:
        if enter.backup is None:
            raise Refused(
                f"There is no backup of release {enter.build}, and its database differs from the present one."
            )
        _agree(installation, enter, options)
        safety = _back_up_present(installation, options)
    else:
        say("Both have the same migrations: the database stays as it is, and nothing is lost.")
    if installation.venv.is_dir():
        installation.note_environment(present)
    keep_program(installation)
    journal = Journal(
        operation="rollback",
        step="code",
        leave=replace(present, backup=safety, left_at=_now()),
        enter=enter,
        began_at=_now(),
        restores_database=restores,
    )
    installation.write_journal(journal)
    return journal


def _check_idle(installation: Installation, present: Release) -> None:
    """Raise Refused if AVATAR runs, belongs to another user, or has local changes to its code."""
    data_dir = Path(present.data_dir)
    if data_dir.exists() and os.geteuid() != (owner := data_dir.stat().st_uid):
        raise Refused(f"{present.data_dir} belongs to user {owner}: run this as that user, as AVATAR itself.")
    with hold_serve_lock(present.data_dir):
        pass
    if present.commit and (changes := installation.git("status", "--short", "--untracked-files=no").rstrip()):
        raise Refused(f"Files differ from the commit: commit, stash or remove the changes first.\n{changes}")
    if present.build.endswith("-dirty"):
        raise Refused("The code's folders have new files: commit, or remove them first; `git status` shows them.")


def _choose_release(installation: Installation, present: Release, wanted: str) -> Release:
    known = [each for each in installation.read_releases() if each.build != present.build]
    if wanted:
        for release in known:
            if wanted in (release.build, release.version):
                return release
        there = ", ".join(each.build for each in known) or "none"
        raise Refused(f"There is no release {wanted} to go back to; there are: {there}.")
    for release in known:
        if release.is_previous:
            return release
    raise Refused("There is no release to go back to: none was left by `make upgrade`.")


def _agree(installation: Installation, enter: Release, options: RollbackOptions) -> None:
    """Say which rows will be lost, and ask. Raises Refused."""
    assert enter.backup is not None  # noqa: S101 — for the type checker: both callers have seen it
    backup = enter.backup
    try:
        lost = installation.ask("count-since", backup.name, backup.target)
    except StepFailed as error:
        if not options.without_backup:
            raise Refused(
                f"What is lost cannot be counted ({error}); is the backup {backup.name} still in {backup.target}? "
                "`--without-backup` goes on without knowing."
            ) from error
        say(f"What was created since {backup.taken_at} is lost; it could not be counted.")
    else:
        counts = ", ".join(f"{count} {what}" for what, count in lost.items() if count)
        say(f"The database returns to {backup.taken_at}. Created since, and lost: {counts or 'nothing'}.")
    if options.is_agreed:
        return
    asked_s = time.monotonic()
    try:
        answer = input("Go back? Type yes: ")
    except EOFError:
        answer = ""
    installation.began_s += time.monotonic() - asked_s
    if answer.strip().lower() != "yes":
        raise Refused("Nothing was changed.")


def _back_up_present(installation: Installation, options: RollbackOptions) -> Backup | None:
    if options.without_backup:
        return None
    say("Backing up the present state …")
    try:
        answer = installation.ask("back-up", "before-restore", "--only", "database")
    except StepFailed as error:
        raise Refused(f"{error}. Nothing was changed; `--without-backup` goes on without one.") from error
    if answer["backup"] is None:
        return None
    backup = Backup(**answer["backup"])
    say(f"  it is backup {backup.name} in {backup.target}")
    return backup


def _finish_rollback(installation: Installation, journal: Journal, *, is_again: bool) -> None:
    """Run the remaining steps of a rollback from the journal alone: no code of the abandoned release is run."""
    steps: dict[str, Callable[[], None]] = {
        "code": lambda: installation.switch_code(journal.leave, journal.enter, is_forced=True, is_again=is_again),
        "environment": lambda: installation.switch_environment(journal.enter, None),
        "database": lambda: _restore_database(installation, journal),
        "finish": lambda: _write_releases(installation, journal),
    }
    names = list(steps)
    try:
        for name in names[names.index(journal.step) :]:
            journal = replace(journal, step=name)
            installation.write_journal(journal)
            with _failing_as_step(), ExitStack() as held:
                if name not in ("database", "finish"):
                    held.enter_context(hold_serve_lock(journal.enter.data_dir, timeout_s=STOP_TIMEOUT_S))
                steps[name]()
    except StepFailed as error:
        raise StepFailed(
            f"The rollback stopped at step {journal.step}: {error}. `make rollback` goes on from there"
        ) from error
    finish(installation)
    translate(installation)
    say(f"Back at {journal.enter.version} ({journal.enter.build}), in {installation.took_s:.0f} s.")
    if journal.restores_database:
        say("All logins were ended. Look at the site, then run `.venv/bin/python manage.py confirm_restore`.")


def _restore_database(installation: Installation, journal: Journal) -> None:
    if not journal.restores_database:
        return
    backup = journal.enter.backup
    if backup is None:
        raise StepFailed(f"there is no backup of release {journal.enter.build}")
    only = ("--only", backup.only) if backup.only else ()
    # It needs no network: the log of deletions here, and the present database, say what has to stay deleted.
    unreachable = "--skip-unreadable-tombstones"
    installation.manage("restore", backup.name, "--from", backup.target, *only, "--yes", unreachable)


def _write_releases(installation: Installation, journal: Journal) -> None:
    """Record the present release, and how to return to the previous one."""
    if journal.leave.left_at:
        installation.write_release(journal.leave)
    else:
        # An upgrade that was turned back: it was never the present one.
        (installation.releases / journal.leave.build / "release.json").unlink(missing_ok=True)
    installation.write_release(replace(journal.enter, left_at="", backup=None, is_previous=False))


def _is_database_changed(journal: Journal) -> bool:
    """Return whether an upgrade has begun to migrate, and had something to migrate."""
    return journal.step in ("migrations", "check", "finish") and journal.enter.schema != journal.leave.schema


# --- releases to install ---


def _choose_git(installation: Installation, present: Release, wanted: str) -> Release | None:
    """Return the release of a git ref, as far as it is known before checkout. None without git or such a ref."""
    if not installation.is_checkout:
        return None
    try:
        commit = _resolve(installation, wanted)
    except StepFailed:
        return None
    files = installation.git("ls-tree", "-r", "--name-only", "-z", commit).split("\0")
    _check_program(PROGRAM in files, wanted)
    there = installation.git("ls-files", "--others", "-z").split("\0")
    if lost := sorted(set(files) & set(there) - {""}):
        raise Refused(
            f"{wanted} has files that are here and not in git: move them away first.\n" + "\n".join(lost[:10])
        )
    return replace(present, commit=commit, build=commit[:12])


def _choose_archive(installation: Installation, present: Release, wanted: str) -> Release | None:
    """Unpack an archive into `.releases/`, and return its release. None with git, or without such a file."""
    path = Path(wanted)
    if installation.is_checkout or not path.is_file():
        return None
    draft = installation.releases / "unpacked"
    installation.remove(draft)
    draft.mkdir(mode=0o700, parents=True)
    try:
        unpack(path, draft)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise Refused(f"{path} cannot be unpacked: {error}") from error
    _check_program((draft / PROGRAM).exists(), wanted)
    build = _identify(installation, draft)
    entries = sorted(each.name for each in draft.iterdir())
    data_dir = Path(present.data_dir)
    for name in {*entries, *present.entries}:
        if NOT_CODE.fullmatch(name) or data_dir.is_relative_to(installation.root / name):
            raise Refused(f"{name} is replaced by code of the release, and is not code here.")
    if build != present.build:
        installation.remove(installation.releases / build)
        (installation.releases / build).mkdir(mode=0o700)
        draft.rename(installation.releases / build / "code")
    return replace(present, entries=entries, build=build)


def unpack(archive: Path, folder: Path) -> None:
    """
    Unpack an archive of the code; one folder that has all is left out. Raises Refused, TarError, OSError, EOFError.

    Files and folders only, none of which leads out of the folder.
    """
    with tarfile.open(archive) as tar:
        members = [each for each in tar if not each.isdir()]
        paths = [PurePosixPath(each.name) for each in members]
        tops = {path.parts[0] for path in paths}
        skipped = 1 if len(tops) == 1 and all(len(path.parts) > 1 for path in paths) else 0
        for member, path in zip(members, paths, strict=True):
            parts = path.parts[skipped:]
            if not member.isfile() or path.is_absolute() or ".." in parts:
                raise Refused(f"{archive} has {member.name}, which is no file of its own folder.")
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None  # noqa: S101 — of a file, there is one
            with source, target.open("xb") as file:
                shutil.copyfileobj(source, file)
            target.chmod(0o755 if member.mode & 0o100 else 0o644)


def _check_program(is_there: bool, wanted: str) -> None:
    if not is_there:
        raise Refused(f"{wanted} is no AVATAR, or one from before releases: it cannot be switched to.")


def _identify(installation: Installation, folder: Path) -> str:
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from avatar_site import version; "
        "print(version.identify(Path(sys.argv[2])))"
    )
    return installation.run(
        [sys.executable, "-I", "-B", "-c", program, str(installation.root), str(folder)],
        "identifying the archive",
        is_read=True,
    ).strip()


def _find_source(installation: Installation, wanted: str) -> str:
    """Return the identity of the requested release: a commit, or an archive's SHA-256; empty if it is neither."""
    if installation.is_checkout:
        with suppress(StepFailed):
            return _resolve(installation, wanted)
    elif Path(wanted).is_file():
        with Path(wanted).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def _resolve(installation: Installation, ref: str) -> str:
    """Return the commit of a ref. Raises StepFailed."""
    return installation.git("rev-parse", "--quiet", "--verify", "--end-of-options", f"{ref}^{{commit}}").strip()


def identify_environment(root: Path, lists: Sequence[str]) -> str:
    """Return the identifier of requirement lists: the beginning of a SHA-256 over them and their includes."""
    digest = hashlib.sha256()
    seen: set[Path] = set()
    waiting = [root / "requirements" / f"{name}.txt" for name in lists]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise StepFailed(f"{path} is missing") from error
        digest.update(b"%s %d\n%s" % (path.name.encode(), len(content), content))
        for match in re.finditer(rb"^(?:-r|--requirement)[ =]*(\S+)", content, re.MULTILINE):
            waiting.append(path.parent / match[1].decode())
    return digest.hexdigest()[:12]


# --- the system around the switch ---


def say(line: str) -> None:
    with suppress(OSError):
        print(line, flush=True)


def translate(installation: Installation) -> None:
    """Recompile translations. A failure is only logged: without them, pages are in English."""
    if shutil.which("msgfmt") is None:
        # make would fetch it, and a rollback needs no network.
        return
    try:
        installation.run(["make", "--silent", "translations"], "compiling the translations")
    except StepFailed as error:
        say(f"  {error}: pages may show texts in English")


def keep_program(installation: Installation) -> None:
    """Copy this program to `.releases/`, where no release replaces it, until the switch is done."""
    copy = installation.releases / "release_switch.py"
    if Path(__file__).resolve() != copy.resolve():
        draft = copy.with_suffix(".part")
        shutil.copyfile(__file__, draft)
        draft.replace(copy)


def finish(installation: Installation) -> None:
    """Remove the journal: the switch is done."""
    installation.journal_path.unlink(missing_ok=True)
    _sync(installation.releases)
    (installation.releases / "release_switch.py").unlink(missing_ok=True)


@contextmanager
def _failing_as_step() -> Iterator[None]:
    """Translate errors of the file system (a full disk, a missing file) into a failure of the step."""
    try:
        yield
    except OSError as error:
        raise StepFailed(str(error)) from error


@contextmanager
def hold_serve_lock(data_dir: str, *, timeout_s: float = 0) -> Iterator[None]:
    """Hold the lock that keeps AVATAR from starting. Raises Refused if it still runs after the time-out."""
    path = Path(data_dir) / "serve.lock"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a") as file:
        if not _lock(file.fileno(), timeout_s=timeout_s):
            raise Refused(f"AVATAR runs with the data folder {data_dir}: stop it first.")
        yield


@contextmanager
def hold_switch_lock(installation: Installation) -> Iterator[None]:
    """Wait for another switch, or for the children of a killed one. Raises Refused."""
    installation.releases.mkdir(mode=0o700, exist_ok=True)
    with (installation.releases / "lock").open("a") as file:
        if not _lock(file.fileno()):
            say("Waiting for another switch, or for what an interrupted one has started …")
            if not _lock(file.fileno(), timeout_s=LOCK_TIMEOUT_S):
                raise Refused("Another switch is under way.")
        installation.lock = file.fileno()
        yield


def _lock(descriptor: int, *, timeout_s: float = 0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(POLL_S)
        else:
            return True


@contextmanager
def _running(
    installation: Installation, command: list[str], log: Any, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 — the project's own program
        command,
        cwd=installation.root,
        env=_clean(environment),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        preexec_fn=_die_with_parent(signal.SIGTERM),
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return a child's pre-exec function: it asks the kernel (Linux) for a signal when we end."""
    libc, parent_pid = ctypes.CDLL(None), os.getpid()

    def tie() -> None:
        if sys.platform == "linux":
            libc.prctl(PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent_pid:
            os._exit(1)

    return tie


def _ask_health(port: int, token: str) -> str:
    """Return why it is unhealthy; empty if conversations are possible (healthy or degraded)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health", headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        body = response.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    finally:
        connection.close()
    return "" if response.status == http.client.OK else f"{response.status}: {body}"


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the variables of an outer make, of a virtual environment, and of git."""
    left_out = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in environment.items() if name not in left_out and not name.startswith("GIT_")}


def _read_end(path: Path) -> str:
    return "\n".join(f"  | {line}" for line in path.read_text(errors="replace").splitlines()[-LAST_LINES:])


def _read_marker(venv: Path) -> str | None:
    try:
        return (venv / MARKER).read_text().strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read_json(path: Path) -> Json | None:
    try:
        values: Json = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Refused(f"{path} cannot be read: {error}") from error
    return values


def _write_json(path: Path, values: Json) -> None:
    draft = path.with_name(f"{path.name}.part")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(values, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


def _list(installation: Installation) -> None:
    for release in installation.read_releases():
        backup = release.backup.name if release.backup else "no backup"
        say(f"{release.build}  version {release.version}  left {release.left_at}  {backup}")


def _find_root(program: Path) -> Path:
    """Return the installation: this program is in `.releases/`, or in the code."""
    return program.parents[1] if program.parent.name == ".releases" else program.parents[2]


def _hand_over(installation: Installation) -> None:
    """Exec the program that began the switch in the journal, if it is another one."""
    copy = installation.releases / "release_switch.py"
    if installation.journal_path.exists() and copy.exists() and Path(__file__).resolve() != copy.resolve():
        os.execv(sys.executable, [sys.executable, "-I", str(copy), *sys.argv[1:]])  # noqa: S606 — ourselves


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Upgrade AVATAR, or roll it back.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("upgrade")
    command.add_argument("--to", required=True, help="a git ref, or a .tar.gz archive where there is no git")
    command.add_argument("--install", default="", help="what installs the environment (default: make)")
    command.add_argument("--health-timeout-s", type=float, default=HEALTH_TIMEOUT_S)
    command.add_argument("--serve-arguments", default="", help="for the `manage.py serve` of the health check")
    add_rollback_arguments(commands.add_parser("rollback"))
    commands.add_parser("list")
    return parser.parse_args(arguments)


def add_rollback_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", default="", metavar="RELEASE", help="a build or version (default: the release before)")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--without-backup", action="store_true", help="do not back up the present state")
    parser.add_argument("--restore-database", action="store_true", help="even if both have the same migrations")


def main() -> NoReturn:
    options = _parse(sys.argv[1:])
    installation = Installation(_find_root(Path(__file__).resolve()))
    os.chdir(installation.root)
    try:
        if options.command == "list":
            _list(installation)
            sys.exit(0)
        with hold_switch_lock(installation):
            _hand_over(installation)
            if options.command == "upgrade":
                serve_arguments = tuple(shlex.split(options.serve_arguments))
                upgrade(
                    installation,
                    UpgradeOptions(options.to, options.install, options.health_timeout_s, serve_arguments),
                )
            else:
                rollback(
                    installation,
                    RollbackOptions(options.to, options.yes, options.without_backup, options.restore_database),
                )
    except (Refused, StepFailed) as error:
        sys.exit(f"{error}".rstrip(".") + ".")
    except OSError as error:
        sys.exit(f"{error}. The same command goes on where it stopped.")
    except KeyboardInterrupt:
        if not installation.journal_path.exists():
            sys.exit("Interrupted: nothing was changed.")
        sys.exit("Interrupted: the same command goes on where it stopped, `make rollback` goes back.")
    sys.exit(0)


if __name__ == "__main__":
    main()
