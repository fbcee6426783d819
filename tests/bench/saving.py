"""
What saving a turn takes in the web process, with connections opened for each and with those that are kept.

    DJANGO_SETTINGS_MODULE=avatar_site.settings.test .venv/bin/python -m tests.bench.saving
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
import uuid

import django

TURNS = 100


def main() -> None:
    django.setup()
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", verbosity=0)
    connections.close_all()
    print(f"load {os.getloadavg()[0]:.1f}; {TURNS} turns each, ms: median, worst of twenty")
    for _ in range(2):
        for max_age in (0, None):
            for has_audio in (False, True):
                for settings in (connections.settings["default"], connections["default"].settings_dict):
                    settings["CONN_MAX_AGE"] = max_age
                times = sorted(asyncio.run(save_turns(max_age, has_audio=has_audio)))
                print(
                    f"CONN_MAX_AGE={max_age!s:4} {'with' if has_audio else 'without'} sound: "
                    f"{statistics.median(times):.1f} {times[len(times) * 19 // 20]:.1f}"
                )


async def save_turns(max_age: int | None, *, has_audio: bool) -> list[float]:
    from channels.db import database_sync_to_async

    from conversations.services import append_turn
    from tests import factories

    def begin() -> uuid.UUID:
        from django.db import connection

        connection.close()
        connection.settings_dict["CONN_MAX_AGE"] = max_age
        return factories.create_conversation().pk

    conversation_id = await database_sync_to_async(begin)()
    audio = factories.make_flac(duration_ms=3000) if has_audio else None
    times = []
    for number in range(TURNS):
        began_at = time.perf_counter()
        await database_sync_to_async(append_turn)(
            conversation_id=conversation_id,
            turn_id=uuid.uuid4(),
            speaker=("user", "avatar")[number % 2],
            text="今天的天氣很好，我們可以一起出去走一走。",
            language="zh",
            audio=audio,
            audio_duration_ms=3000,
            was_interrupted=False,
            voice_profile_id=None,
            latency=None,
        )
        times.append((time.perf_counter() - began_at) * 1000)
    return times


if __name__ == "__main__":
    main()
