"""The simulation's cell, and a ledger of cells: what lets a grid of simulations stop anywhere and continue.

A cell holds everything that determines its result, so it can be run, hashed and resumed by itself. Its result lives in
a directory of its own, sealed with a checksum, and counts as done only if the seal holds and the stored config is the
one asked for; otherwise the cell is run again.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ambient_theory.mixtures.laws import AtomicLaw
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import canonical_json, content_hash, read_sealed, write_sealed
from ambient_theory.shared.kinds import is_number

KIND = "gmm-cell/1"
_OF_THE_CELL = ("k", "d", "family", "mix", "n", "n_clean", "n_noisy", "delta", "reps", "seed")
_FOUND = ("n_d", "n_l", "w1_mean", "w1_median", "w1_se", "frac_projected")
#: Atoms on the line and their weights.
Atoms = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class SimulationCell:
    """One mixture of noise levels at one sample size, and the estimators that see its draws.

    name: readable, unique in its grid. family, mix: of the instance and of the samples, as in the grid. k: atoms. d:
    dimension. n = n_clean + n_noisy samples; counts of them at each of `levels` (total standard deviations s, clean
    first). radius R of the ball that holds the atoms. reps: replicates. delta: half-width or signal of the instance
    (None where the family has none). laws: each replicate draws one of them. estimators: (name, weights), weights `-`
    for those that pool nothing.
    """

    name: str
    family: str
    k: int
    d: int
    mix: str
    n: int
    n_clean: int
    n_noisy: int
    levels: tuple[float, ...]
    counts: tuple[int, ...]
    radius: float
    reps: int
    seed: int
    engine: str
    bins: int
    delta: float | None
    laws: tuple[Atoms, ...]
    estimators: tuple[tuple[str, str], ...]

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """Everything but the name as JSON types: what is hashed and stored. Its form must not change."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items() if key != "name"}
        values["laws"] = [{"atoms": list(atoms), "weights": list(weights)} for atoms, weights in self.laws]
        values["estimators"] = [list(pair) for pair in self.estimators]
        return {"kind": KIND, **values}

    @property
    def hash(self) -> str:
        return content_hash(self.config)

    @property
    def directory_name(self) -> str:
        return f"{self.name}-{self.hash}"

    def atomic_laws(self) -> list[AtomicLaw]:
        return [AtomicLaw(atoms, weights) for atoms, weights in self.laws]


def atoms_of(law: AtomicLaw) -> Atoms:
    """A law on the line as numbers."""
    return tuple(law.line().tolist()), tuple(law.weights.tolist())


def _is_result(result: Any, cell: SimulationCell) -> bool:
    """Whether this is what running the cell gives: a row for each estimator, the cell's own columns, finite numbers."""
    if not isinstance(result, dict) or not isinstance(result.get("rows"), list) or not is_number(result.get("wall_s")):
        return False
    about = {name: getattr(cell, name) for name in _OF_THE_CELL} | {"sigmas": list(cell.levels)}
    expected = [about | {"estimator": name, "weights": weights} for name, weights in cell.estimators]
    return len(result["rows"]) == len(expected) and all(
        isinstance(row, dict)
        and canonical_json({name: row.get(name) for name in one}) == canonical_json(one)
        and all(is_number(row.get(name), 0) for name in _FOUND)
        and min(row["n_d"], row["n_l"]) > 0
        and is_number(row.get("overlap", 0))
        for row, one in zip(result["rows"], expected, strict=True)
    )


class Ledger:
    """Sealed results of cells below one directory: `root/<name>-<hash8>/result.json`."""

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(root)

    def directory(self, cell: SimulationCell) -> Path:
        return self.root / cell.directory_name

    def load(self, cell: SimulationCell) -> dict[str, Any] | None:
        """The result of a finished cell, or None if it must be run (missing, damaged, or of another config)."""
        try:
            stored = read_sealed(self.directory(cell) / "result.json")
        except DataError:
            return None
        if content_hash(stored.get("cell"), 64) != content_hash(cell.config, 64):
            return None
        result = stored.get("result")
        return result if _is_result(result, cell) else None

    def store(self, cell: SimulationCell, result: Mapping[str, Any]) -> None:
        """Seal a result. Written atomically, last of all files of the cell."""
        write_sealed(self.directory(cell) / "result.json", {"cell": cell.config, "result": dict(result)})
