"""A worker in a process of its own, with the broker of one machine and an inference process."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.stack import Stack

PATIENCE_S = 60


@pytest.fixture
def stack() -> Iterator[Stack]:
    # Recognition takes a minute: time to kill the worker in the middle.
    with Stack(profile="fake", ready_timeout_s=60, AVATAR_FAKE_RECOGNITION_S="60") as stack:
        yield stack


def ask(stack: Stack, code: str) -> dict[str, object]:
    lines = [
        "import json",
        "from django.contrib.auth.models import User",
        "from tests import factories",
        "from voices import tasks",
        "from voices.models import VoiceJob, VoiceProfile",
        code,
    ]
    answer: dict[str, object] = json.loads(stack.manage("shell", "--no-imports", "--command", "\n".join(lines)) or "{}")
    return answer


def describe(stack: Stack) -> dict[str, object]:
    return ask(
        stack,
        "voice = VoiceProfile.objects.get(owner__isnull=False)\n"
        "found = {'state': voice.state, 'version': voice.version}\n"
        "print(json.dumps(found | {'attempts': voice.build_job.attempts, 'error': voice.build_job.error}))",
    )


def wait_for(stack: Stack, is_true: Callable[[dict[str, object]], bool]) -> dict[str, object]:
    """Ask until it is true. Each question is a process of its own, so the loop needs no pause."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        voice = describe(stack)
        if is_true(voice):
            return voice
    pytest.fail(f"{voice}\n{stack.read_log('worker')}")


class TestWorkerThatIsKilled:
    @pytest.mark.timeout(300)
    def test_loses_nothing(self, stack: Stack) -> None:
        ask(stack, "factories.upload_voice(User.objects.get(username='alice'))")
        wait_for(stack, lambda voice: voice["state"] == "extracting")

        worker = stack._processes.pop("worker")
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
        assert describe(stack)["state"] == "extracting"

        # Recognition is quick again; the lease expires; beat has a worker sweep.
        stack.stop("inference")
        stack._environment["AVATAR_FAKE_RECOGNITION_S"] = "0.05"
        stack.start("inference")
        stack.wait_until_ready()
        stack.start("worker")
        ask(
            stack,
            "from datetime import timedelta\n"
            "from django.db.models import F\n"
            "lost = VoiceJob.objects.filter(state='running')\n"
            "lost.update(claimed_at=F('claimed_at') - timedelta(minutes=2))\n"
            "tasks.requeue_lost_work.delay()",
        )

        voice = wait_for(stack, lambda voice: voice["state"] in ("ready", "failed"))
        assert voice == {"state": "ready", "version": 1, "attempts": 2, "error": ""}

        # A second delivery does nothing.
        ask(stack, "tasks.extract_embedding.delay(voice_profile_id=str(VoiceProfile.objects.get(version=1).pk))")
        ask(stack, "factories.upload_voice(User.objects.get(username='bob'))")
        both = "[(each.state, each.version) for each in voices.filter(owner__isnull=False).order_by('owner_id')]"
        deadline = time.monotonic() + PATIENCE_S
        look = f"voices = VoiceProfile.objects; print(json.dumps({both}))"
        while (rows := ask(stack, look)) != [["ready", 1], ["ready", 1]]:
            assert time.monotonic() < deadline, rows
