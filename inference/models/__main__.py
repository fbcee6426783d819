"""`python -m inference.models`: fetch, list and verify models."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from inference.config import PROFILES, ConfigurationError, default_models_dir
from inference.models.catalogue import CATALOGUE, list_models
from inference.models.fetching import copy_from, fetch
from inference.models.store import ModelError, check_sums, is_complete, model_dir, verify


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m inference.models", description="Fetch and verify models.")
    parser.add_argument("command", choices=("fetch", "list", "verify"))
    parser.add_argument("--profile", default=os.environ.get("AVATAR_PROFILE", "cpu"), choices=sorted(PROFILES))
    parser.add_argument("--from", dest="source", type=Path, help="take the models from this folder, fetched elsewhere")
    parser.add_argument("--model", action="append", help="a model by name, instead of the profile's")
    options = parser.parse_args(arguments)
    models_dir = default_models_dir(os.environ)
    try:
        names = options.model or list_models(options.profile, os.environ)
        for unknown in set(names) - set(CATALOGUE):
            raise ModelError(f"no model is called {unknown}: there are {', '.join(CATALOGUE)}")
        models = [CATALOGUE[name] for name in names]
        if options.command == "list":
            for model in CATALOGUE.values():
                here = "here" if is_complete(models_dir, model) else "not here"
                print(f"{model.name:22} {model.role:7} {model.licence:12} {model.download_bytes / 1e6:6.0f} MB  {here}")
        elif options.command == "verify":
            for model in models:
                folder = model_dir(models_dir, model.name)
                verify(model, folder, throw_away=folder)
                check_sums(folder)
                print(f"{model.name}: verified")
        else:
            missing = [model for model in models if not is_complete(models_dir, model)]
            if missing and not options.source:
                print(f"Models: {sum(m.download_bytes for m in missing) / 1e6:.0f} MB to fetch into {models_dir}")
            for model in missing:
                if options.source:
                    copy_from(model, options.source, models_dir)
                else:
                    fetch(model, models_dir, lambda line: print(line, flush=True))
                size = sum(path.stat().st_size for path in (models_dir / model.name).rglob("*") if path.is_file())
                print(f"  {model.name} is ready: {size / 1e6:.0f} MB, {model.licence}", flush=True)
    except (ModelError, ConfigurationError) as error:
        print(f"models: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
