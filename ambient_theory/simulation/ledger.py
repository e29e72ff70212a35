"""A ledger of hashed cells: what lets a grid of simulations stop anywhere and continue.

A cell is a name and a config. Its result lives in a directory of its own, sealed with a checksum, and counts as done
only if the seal holds and the stored config is the one asked for; otherwise the cell is run again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import content_hash, read_sealed, write_sealed


@dataclass(frozen=True)
class Cell:
    """One independent piece of work: a readable name and the config that determines its result."""

    name: str
    config: Mapping[str, Any]

    @property
    def hash(self) -> str:
        return content_hash(self.config)

    @property
    def directory_name(self) -> str:
        return f"{self.name}-{self.hash}"


class Ledger:
    """Sealed results of cells below one directory: `root/<name>-<hash8>/result.json`."""

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(root)

    def directory(self, cell: Cell) -> Path:
        return self.root / cell.directory_name

    def load(self, cell: Cell) -> dict[str, Any] | None:
        """The result of a finished cell, or None if it must be run (missing, damaged, or of another config)."""
        try:
            stored = read_sealed(self.directory(cell) / "result.json")
        except DataError:
            return None
        if content_hash(stored.get("cell"), 64) != content_hash(cell.config, 64):
            return None
        result = stored.get("result")
        return result if isinstance(result, dict) else None

    def store(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """Seal a result. Written atomically, last of all files of the cell."""
        write_sealed(self.directory(cell) / "result.json", {"cell": dict(cell.config), "result": dict(result)})
