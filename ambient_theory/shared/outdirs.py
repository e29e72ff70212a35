"""A directory holds the results of one config: the config is written first, and another one is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_text, read_json


def claim(outdir: Path, manifest: str, schema: str, config: Mapping[str, Any], what: str) -> None:
    """Write `manifest` with the config (JSON types) into a fresh directory.

    Raises UsageError where the directory holds `what` of another config, DataError where its manifest is damaged.
    """
    path = outdir / manifest
    if not path.exists():
        atomic_write_text(path, json.dumps({"schema": schema, "config": config}, indent=1) + "\n")
        return
    try:
        stored = read_json(path)["config"]
        differing = sorted(key for key in config.keys() | stored.keys() if config.get(key) != stored.get(key))
    except (DataError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is damaged: remove it or choose another --outdir") from None
    if differing:
        raise UsageError(
            f"{outdir} holds a {what} with another {', '.join(differing)}: choose another --outdir for this one"
        )
