"""Raises the operating system's limit of open files: every connection is one."""

from __future__ import annotations

import logging
import resource

logger = logging.getLogger(__name__)


def raise_limit() -> int:
    """Raise the soft limit of this process to its hard limit. Log and return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        logger.info("open files: at most %d", soft)
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:  # macOS allows less than its hard limit says
        logger.warning("open files: at most %d, which cannot be raised to %d: %s", soft, hard, error)
        return soft
    logger.info("open files: at most %d, raised from %d", hard, soft)
    return hard
