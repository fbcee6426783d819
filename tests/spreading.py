"""Which tests run together in one process of a run with several, and what becomes of the rest when a process dies."""

from __future__ import annotations

import faulthandler
import os
from typing import Any

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from xdist.scheduler import LoadFileScheduling

#: One process runs them all: each keeps both of two cores busy, and holds models of a gigabyte or more in memory.
WITH_MODELS = ("tests/e2e/test_conversation.py", "tests/inference/engines/", "tests/voices/test_with_engines.py")
#: Of the production engines' tests, the file that takes longest.
_LONGEST = "tests/engines/test_llm.py"
#: Files that take half a minute to two minutes each, most of it in programs that they start: none of them begins last.
LONG = (
    "tests/avatar_site/operations/test_rehearsal.py",
    "tests/avatar_site/operations/test_backup_runbooks.py",
    "tests/avatar_site/operations/backups/test_restoring.py",
    "tests/avatar_site/operations/backups/test_in_a_bucket.py",
    "tests/avatar_site/operations/backups/test_creation.py",
    "tests/avatar_site/operations/backups/test_interruptions.py",
    "tests/avatar_site/operations/test_serve.py",
    "tests/avatar_site/operations/test_hangs.py",
    "tests/avatar_site/operations/test_logs.py",
    "tests/avatar_site/web/test_background.py",
    "tests/avatar_site/monitoring/test_fired_alerts.py",
    "tests/avatar_site/operations/test_release_switch.py",
    "tests/conversations/test_postgres.py",
    "tests/voices/test_worker.py",
)
_FIRST, _WITH_MODELS, _LONG, _LAST = range(4)


def choose_group(nodeid: str) -> str:
    """A file's tests share servers and what is in their databases."""
    file = nodeid.partition("::")[0]
    return "models" if file.startswith(WITH_MODELS) else file


def choose_place(item: pytest.Item) -> int:
    """
    Order what begins when.

    Browsers first, side by side: they mostly wait, in real time, which models would disturb. Then the models in one
    process, what is long and then what is quick in the others.
    """
    if choose_group(item.nodeid) == "models":
        return _WITH_MODELS
    if item.get_closest_marker("engines"):
        raise pytest.UsageError(f"{item.nodeid} loads models: spreading.WITH_MODELS has to name its file")
    if item.get_closest_marker("browser") or item.nodeid.startswith(_LONGEST):
        return _FIRST
    return _LONG if item.nodeid.startswith(LONG) else _LAST


def choose_process_count(arguments: list[str]) -> int | None:
    """
    Return one more than the number of cores, or 0 (only this process, which starts sooner) for a single file.

    One more: tests in browsers wait most of their time.

    None: no opinion.
    """
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    files = {argument.partition("::")[0] for argument in arguments}
    if len(files) == 1 and files.pop().endswith(".py"):
        return 0
    return len(os.sched_getaffinity(0)) + 1


class GroupScheduling(LoadFileScheduling):
    """
    xdist's, with our groups, and proof against the death of a process.

    xdist 3.8 gives the test that ended a process to the next one, which then dies of it as well. And a new process may
    wait for work without end: it is given one unit, which may be over already, and a process begins a test only when it
    knows the one after. (xdist's groups by mark do nothing with pytest 9.2, whose node ids cannot be extended.)
    """

    def _split_scope(self, nodeid: str) -> str:
        return choose_group(nodeid)

    def remove_node(self, node: Any) -> str | None:
        units = self.assigned_work.pop(node)
        left = {scope: [test for test, is_over in unit.items() if not is_over] for scope, unit in units.items()}
        # Work is assigned, and done, in order: the first that is left is the one that was running.
        died_of = next((test for tests in left.values() for test in tests), None)
        for scope, tests in reversed(left.items()):
            if again := [test for test in tests if test != died_of]:
                self.workqueue[scope] = dict.fromkeys(again, False)
                self.workqueue.move_to_end(scope, last=False)
        for other in self.assigned_work:
            self._reschedule(other)
        return died_of

    def _reschedule(self, node: Any) -> None:
        if node.shutting_down:
            return
        while self.workqueue and self._pending_of(self.assigned_work[node]) <= 2:
            self._assign_work_unit(node)
        if not self.workqueue:
            node.shutdown()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    return choose_process_count(config.args)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling | None:
    return GroupScheduling(config, log) if config.option.dist == "loadfile" else None


@pytest.hookimpl(trylast=True)  # pytest-django has an order of its own; in each place, it stays
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=choose_place)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Bound the end of a test, too: pytest stops watching as soon as the test has failed, by its time-out for one."""
    if timeout_s := float(item.config.getini("faulthandler_timeout") or 0):
        stderr = item.config.stash[fault_handler_stderr_fd_key]
        faulthandler.dump_traceback_later(timeout_s, file=stderr, exit=True)
