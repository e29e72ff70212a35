"""`ambient sweep status`: how far every cell of a grid is, told from manifests; no training code is loaded for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient_train.sweep.grid import read_grid
from ambient_train.sweep.pool import cell_state


@dataclass(frozen=True)
class Status:
    grid: str
    states: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        return {"grid": self.grid, "counts": dict(Counter(self.states.values())), "cells": self.states}

    def show(self) -> None:
        for cell, state in self.states.items():
            print(f"{state:8} {cell}")
        print(", ".join(f"{n} {s}" for s, n in Counter(self.states.values()).items()))


def status_grid(path: Path, runs: Path) -> Status:
    """State of every cell of a grid."""
    grid = read_grid(path)
    return Status(grid.name, {cell.label: cell_state(cell, runs)[0] for cell in grid.cells})
