"""A folder of results belongs to what wrote them: another command's or a person's files in it are never replaced.

Where a folder holds the results of one config, that config is written first, and another one is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import atomic_write_text, read_json


def check_outputs(outdir: Path, outputs: Iterable[str], what: str, *, own: bool = False) -> None:
    """Raise UsageError where the folder holds one of the names that will be written and they are not ours.

    outputs: names of files and folders in `outdir`. own: whether there is `what` by which its earlier ones are known.
    """
    taken = [name for name in outputs if not own and os.path.lexists(outdir / name)]
    if taken:
        raise UsageError(
            f"{outdir} holds {', '.join(taken)} and no {what} of ambient: nothing there is replaced; choose another "
            "--outdir"
        )


def has_schema(file: Path, schema: str) -> bool:
    """Whether a JSON file says that it is of a schema, of any version."""
    try:
        stored = read_json(file)
    except DataError:
        return False
    return isinstance(stored, dict) and str(stored.get("schema", "")).startswith(f"{schema}/")


def differing(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Names of what is not the same in two tables, sorted."""
    return sorted(key for key in asked.keys() | stored.keys() if asked.get(key) != stored.get(key))


def claim(
    outdir: Path, manifest: str, schema: str, config: Mapping[str, Any], what: str, outputs: Iterable[str] = ()
) -> None:
    """Write `manifest` with the config (JSON types) into a directory that holds none of `outputs`.

    Raises UsageError where the directory holds `what` of another config or other things of these names, DataError where
    its manifest is damaged.
    """
    path = outdir / manifest
    if not path.exists():
        check_outputs(outdir, outputs, what)
        atomic_write_text(path, json.dumps({"schema": schema, "config": config}, indent=1) + "\n")
        return
    try:
        others = differing(read_json(path)["config"], config)
    except (DataError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is damaged, or is not of a {what}: choose another --outdir") from None
    if others:
        raise UsageError(
            f"{outdir} holds a {what} with another {', '.join(others)}: choose another --outdir for this one"
        )
