"""`simulate` as a function."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import from_mapping
from ambient_theory.simulation.grid import SimulationConfig, noise_settings
from ambient_theory.simulation.options import parse_sizes
from ambient_theory.simulation.run import SimulationResult, run_simulation


def simulate(
    *,
    n: str | tuple[int, ...] = "1e3..1e8",
    noise: ArrayLike | None = None,
    outdir: str | os.PathLike[str] | None = None,
    workers: int = 1,
    quiet: bool = True,
    **settings: Any,
) -> SimulationResult:
    """W1 of estimators of k-atomic Gaussian mixtures over sample sizes, families and mixes; `ambient simulate-gmm`.

    n: sample sizes, text such as `1e3..1e6` (half decades), or numbers. settings: `k`, `dim`, `families`, `mixes`,
    `estimators`, `weights`, `engine`, `sigma_clean`, `sigma_noisy`, `reps`, `seed`, `radius`, `atoms`. noise: total
    standard deviation of every sample that you have, (m,), instead of two levels: n samples have its noise, in the mix
    `file` beside `clean`. outdir: where
    records, table and figure go, by default `runs/simulate-gmm-<hash>`; finished cells are kept there. `summary` of the
    result is JSON-ready. Raises UsageError.
    """
    sizes = parse_sizes(n) if isinstance(n, str) else tuple(int(size) for size in n)
    of_noise = {} if noise is None else noise_settings(noise)
    if both := sorted(of_noise.keys() & settings.keys()):
        raise UsageError(f"noise says what {', '.join(both)} would: leave one of them out")
    config = from_mapping(SimulationConfig, {"n": sizes, **of_noise, **settings}, where="option")
    return run_simulation(config, None if outdir is None else Path(outdir), workers=workers, quiet=quiet)
