"""
`make bench-backup`: how long a backup and a restore take, and what kills in their middle cost.

Fills a temporary site with turns and audio, backs it up, restores it into an empty one, and compares every row and
every byte. With `--kills N`, N backups and N restores are killed at random moments; after each the site has to be as it
was or as restored, and the last backup whole. Prints the times and the machine: a restore is to take less than ten
minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.backup_site import BackupSite, kill_after, without_own
from tests.bench.conversation import machine

TURNS = 20_000
GIB = 2.0
LIMIT_S = 600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--gib", type=float, default=GIB, help="of audio, random bytes: nothing can be compressed")
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite: a server of its own is started")
    parser.add_argument("--kills", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, contextlib.ExitStack() as stack:
        urls = stack.enter_context(_serve_databases(2)) if options.postgresql else ["", ""]
        print(f"{machine()}; {'PostgreSQL' if options.postgresql else 'SQLite'}")
        return measure(
            Path(folder), urls, turns=options.turns, size=int(options.gib * 2**30 / options.turns), kills=options.kills
        )


def measure(folder: Path, urls: list[str], *, turns: int, size: int, kills: int) -> int:
    site = BackupSite(folder / "site", target=str(folder / "target"), DATABASE_URL=urls[0])
    site.prepare()
    site.fill(turns, size=size)
    print(f"{turns} turns with {turns * size / 2**30:.2f} GiB of audio")
    rows, files = site.read_rows(), site.read_files()
    first_s = timed(site, "backup")
    again_s = timed(site, "backup")
    print(f"backup and its verification: {first_s:.0f} s; again, with nothing new: {again_s:.0f} s")
    print(f"verification alone: {timed(site, 'verify_backup'):.0f} s")
    empty = BackupSite(folder / "empty", target=site.target, DATABASE_URL=urls[1])
    restore_s = timed(empty, "restore", "latest", "--yes")
    is_equal = without_own(empty.read_rows()) == without_own(rows) and empty.read_files() == files
    print(f"restore into an empty folder: {restore_s:.0f} s, {'equal in rows and bytes' if is_equal else 'NOT EQUAL'}")
    over_s = timed(site, "restore", "latest", "--yes")
    print(f"restore over the present state, which is backed up first: {over_s:.0f} s")
    is_sound = is_equal and max(restore_s, over_s) < LIMIT_S
    if kills:
        is_sound &= kill(site, kills=kills, backup_s=again_s, restore_s=over_s)
    return 0 if is_sound else 1


def timed(site: BackupSite, *arguments: str) -> float:
    began_s = time.monotonic()
    site.manage(*arguments)
    return time.monotonic() - began_s


def kill(site: BackupSite, *, kills: int, backup_s: float, restore_s: float) -> bool:
    """Kill backups and restores at random moments, and compare after each."""
    generator = random.Random()
    last = site.back_up()
    is_sound = True
    for command, took_s in ((("backup",), backup_s), (("restore", last, "--yes"), restore_s)):
        moments, wrong = [], 0
        for number in range(kills):
            site.fill(20, label=f"{command[0]} {number}")
            before = without_own(site.read_rows())
            after_s = generator.uniform(0.1, 1.0) * took_s
            if kill_after(site, *command, after_s=after_s):
                moments.append(after_s)
            found = without_own(site.read_rows())
            if found != before and (command[0] == "backup" or found != restore_rows(site, last)):
                wrong += 1
        print(
            f"{command[0]}: killed {len(moments)} of {kills} times, after {min(moments, default=0):.1f} to "
            f"{max(moments, default=0):.1f} s (median {statistics.median(moments or [0]):.1f}); {wrong} wrong states"
        )
        is_sound &= wrong == 0
        site.manage("verify_backup", last)
        print(f"  afterwards: the last backup is whole; a second attempt took {timed(site, *command):.0f} s")
    return is_sound


def restore_rows(site: BackupSite, name: str) -> object:
    """Restore without a kill, and return the rows then."""
    site.manage("restore", name, "--yes")
    return without_own(site.read_rows())


@contextlib.contextmanager
def _serve_databases(count: int) -> Iterator[list[str]]:
    """Start a PostgreSQL, and yield the URLs of as many empty databases."""
    from tests.postgres import running_postgres

    with running_postgres("bench") as server:
        names = [f"site{number}" for number in range(count)]
        with server.connect() as connection:
            for name in names:
                connection.execute(f"CREATE DATABASE {name}")
        yield [server.make_url(name) for name in names]


if __name__ == "__main__":
    sys.exit(main())
