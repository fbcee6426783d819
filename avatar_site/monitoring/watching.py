"""What is done each minute: the system sample."""

from __future__ import annotations

import datetime as dt

from avatar_site.monitoring import sampling


def watch(*, now: dt.datetime) -> None:
    """Write the system sample of this minute."""
    sampling.write_system_sample(sampling.observe(now=now), now=now)
