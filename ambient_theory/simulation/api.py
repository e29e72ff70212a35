"""`simulate` as a function."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ambient_theory.shared.options import from_mapping
from ambient_theory.simulation.grid import SimulationConfig
from ambient_theory.simulation.options import parse_sizes
from ambient_theory.simulation.run import SimulationResult, run_simulation


def simulate(
    *,
    n: str | tuple[int, ...] = "1e3..1e8",
    outdir: str | os.PathLike[str] | None = None,
    workers: int = 1,
    quiet: bool = True,
    **settings: Any,
) -> SimulationResult:
    """W1 of estimators of k-atomic Gaussian mixtures over sample sizes, families and mixes; `ambient simulate-gmm`.

    n: sample sizes, text such as `1e3..1e6` (half decades), or numbers. settings: `k`, `dim`, `families`, `mixes`,
    `estimators`, `weights`, `engine`, `sigma_clean`, `sigma_noisy`, `reps`, `seed`, `radius`, `atoms`. outdir: where
    records, table and figure go, by default `runs/simulate-gmm-<hash>`; finished cells are kept there. `summary` of the
    result is JSON-ready. Raises UsageError.
    """
    sizes = parse_sizes(n) if isinstance(n, str) else tuple(int(size) for size in n)
    config = from_mapping(SimulationConfig, {"n": sizes, **settings}, where="option")
    return run_simulation(config, None if outdir is None else Path(outdir), workers=workers, quiet=quiet)
