"""`python -m inference`: the long-lived process that holds the models."""

from __future__ import annotations

import asyncio
import os
import sys

from inference.config import ConfigurationError, InferenceConfig
from inference.device_memory import BudgetError
from inference.host import serve
from inference.telemetry import logs


def main() -> int:
    os.umask(0o077)
    try:
        logs.configure(logs.read_level(os.environ))
    except ValueError as error:
        print(f"inference: {error}", file=sys.stderr)
        return 1
    try:
        config = InferenceConfig.from_env()
        asyncio.run(serve(config))
    except (ConfigurationError, BudgetError, RuntimeError) as error:
        print(f"inference: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
