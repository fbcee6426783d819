"""`python -m inference`: the long-lived process that holds the models."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from inference.config import ConfigurationError, InferenceConfig
from inference.device_memory import BudgetError
from inference.host import serve


def main() -> int:
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        config = InferenceConfig.from_env()
        asyncio.run(serve(config))
    except (ConfigurationError, BudgetError, RuntimeError) as error:
        print(f"inference: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
