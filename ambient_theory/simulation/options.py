"""What `simulate-gmm` can be asked for, as options. Nothing heavy is imported here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ambient_theory.mixtures.pooling import WEIGHTS
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Checked, option, options_table
from ambient_theory.shared.output import OUTPUT

FAMILIES = ("separated", "hard", "envelope", "fixed", "pca-hard", "pca-strong", "pca-envelope")
ENGINES = ("binned", "exact", "wishart")
ESTIMATORS = ("dmm", "clean-only", "mean-only", "mle", "em", "npmle")
QUICK_REPS = 100
CALIBRATION_REPS, CALIBRATION_SIZES, CALIBRATION_DIMS = 40, "1e4,1e5,1e6,1e7", (1, 10, 30, 100)
"""What --calibrate takes where nothing else is asked for."""

_LEVELS, _GRID, _METHOD, _EXCHANGE = "Noise levels", "Grid", "Estimators and engine", "Exchange rate (--iso)"
_CALIBRATE = "Constants (--calibrate)"


def parse_sizes(text: str, per_decade: int = 2) -> tuple[int, ...]:
    """`1e3..1e8` (even in log n, `per_decade` points a decade) or `1000,1e6`. Raises UsageError with the form."""
    try:
        if ".." in text:
            low, high = (float(part) for part in text.split(".."))
            if not 1 <= low <= high < math.inf:
                raise ValueError
            points = int(math.floor(math.log10(high / low) * per_decade + 1e-9)) + 1
            sizes = [round(low * 10 ** (i / per_decade)) for i in range(points)]
        else:
            sizes = [round(float(part)) for part in text.split(",") if part.strip()]
    except (ValueError, OverflowError):
        raise UsageError(f"sample sizes {text!r} are neither LOW..HIGH nor a comma-separated list of numbers") from None
    if not sizes or min(sizes) < 1:
        raise UsageError(f"sample sizes {text!r}: every n must be >= 1")
    return tuple(dict.fromkeys(sizes))


@dataclass(frozen=True, kw_only=True)
class Simulated(Checked):
    """What a grid and an exchange rate share. s_clean, s_noisy: total standard deviations of a sample."""

    s_clean: float = option(
        1.0, "Total standard deviation s of a clean sample", key="sigma_clean", above=0, panel=_LEVELS
    )
    s_noisy: float = option(
        2.0, "Total standard deviation s of a noisy sample", key="sigma_noisy", above=0, panel=_LEVELS
    )
    reps: int = option(500, "Replicates of each cell; two or more give a standard error", at_least=2, panel=_GRID)
    bins: int = option(
        500, "Bins of the binned engine, at least: none is wider than half the noise", at_least=50, panel=_METHOD
    )
    seed: int = option(0, "Seed of every cell", at_least=0, panel=_GRID)


@dataclass(frozen=True, kw_only=True)
class GridOptions(Simulated):
    """The grid: every family, number of atoms, mix and sample size. n: see `Scope.sizes`."""

    k: tuple[int, ...] = option((2,), "Numbers of atoms, several times", short="-k", panel=_GRID)
    dim: int = option(1, "Dimension d", at_least=1, panel=_GRID)
    mixes: tuple[str, ...] = option(
        ("clean", "noisy", "10:90"),
        "clean, noisy or CLEAN:NOISY (shares), several times",
        flag="--mix",
        panel=_GRID,
    )
    n: tuple[int, ...] = option(
        parse_sizes("1e3..1e8"), "Sample sizes; the flag --n is read by the option of that name", on_command_line=False
    )
    families: tuple[str, ...] = option(
        ("separated", "hard"), "Laws, several times", choices=FAMILIES, flag="--family", panel=_GRID
    )
    estimators: tuple[str, ...] = option(
        ("dmm", "mean-only"), "Estimators, several times", choices=ESTIMATORS, flag="--estimator", panel=_METHOD
    )
    weights: tuple[str, ...] = option(
        ("gls",), "Pooling of noise levels, several times", choices=WEIGHTS, panel=_METHOD
    )
    engine: str = option(
        "auto",
        "binned is for d = 1, wishart for d >= 2 and k <= 2, exact draws real samples",
        choices=("auto", *ENGINES),
        panel=_METHOD,
    )
    radius: float = option(2.0, "Radius R of the ball that holds the atoms", above=0, panel=_GRID)
    snr: float = option(
        2.0,
        "Separation of the hard pair in units of its detection limit. It has no flag: at another value the pair is no "
        "longer the one of the lower bound",
        above=0,
        on_command_line=False,
    )
    atoms: str | None = option(None, "Atoms of --family fixed: ATOM:WEIGHT, with commas between them", panel=_GRID)


@dataclass(frozen=True, kw_only=True)
class Scope(Checked):
    """What is run of it: the sample sizes as text, how much, the exchange rate instead, and in how many processes."""

    sizes: str = option(
        "1e3..1e8", "Sample sizes: LOW..HIGH in half decades, or a comma-separated list", flag="--n", panel=_GRID
    )
    quick: bool = option(False, f"At most {QUICK_REPS} replicates, whole decades only", panel=_GRID)
    iso: bool = option(
        False,
        "Instead of a grid: the exchange rate c at equal error, over delta; without the options of a grid",
        panel=_EXCHANGE,
    )
    workers: int = option(
        1, "Processes, one thread each; results do not depend on it", at_least=1, panel="Machine and processes"
    )

    @property
    def n(self) -> tuple[int, ...]:
        """The sizes. Raises UsageError with the form."""
        return parse_sizes(self.sizes, per_decade=1 if self.quick else 2)

    def of_reps(self, asked: int) -> int:
        """Replicates a cell."""
        return min(asked, QUICK_REPS) if self.quick else asked


@dataclass(frozen=True, kw_only=True)
class AddedNoise(Checked):
    """The noise levels of a sample from the noise that is added to it: `s^2 = s0^2 + sigma^2`."""

    added_noise: float | None = option(
        None,
        "Added noise sigma of noisy samples; s^2 = s0^2 + sigma^2 replaces --sigma-clean and --sigma-noisy",
        at_least=0,
        panel=_LEVELS,
    )
    s0: float = option(1.0, "With --added-noise: intrinsic width of a clean sample", above=0, panel=_LEVELS)


@dataclass(frozen=True, kw_only=True)
class NoiseOfFile(Checked):
    """The noise levels of the samples that a user really has."""

    noise_file: Path | None = option(
        None,
        "File of total standard deviations s, one a sample (CSV, text, .npy, .npz): n samples have its noise, in the "
        "mix `file`, beside `clean`, all at its smallest; replaces --mix, --sigma-clean and --sigma-noisy",
        shown_default="two levels",
        panel=_LEVELS,
    )
    noise_column: str | None = option(
        None, "With --noise-file: its column, where it has several", shown_default="the only one", panel=_LEVELS
    )


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions(Checked):
    """The constants of the bound, fitted."""

    calibrate: bool = option(
        False,
        "Instead of a grid: C_d and C_l of the two-term bound, fitted to the worst cases of clean samples (--family "
        "envelope, pca-envelope or both) and tested on mixtures and on a dimension that were not fitted",
        panel=_CALIBRATE,
    )
    dims: tuple[int, ...] = option(
        (),
        "With --calibrate: dimensions, several times",
        at_least=1,
        flag="--calibrate-dim",
        shown_default="1, 10, 30, 100; at k >= 3 1 alone",
        panel=_CALIBRATE,
    )


@dataclass(frozen=True, kw_only=True)
class ExchangeOptions(Checked):
    """The exchange rate at equal error over the separation. deltas: half-widths in units of s_clean."""

    deltas: tuple[float, ...] = option(
        (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0),
        "With --iso: half-widths in units of sigma-clean, several times",
        above=0,
        flag="--delta",
        panel=_EXCHANGE,
    )
    n_clean: int = option(
        100_000,
        "With --iso: number of clean samples",
        key="iso_clean",
        at_least=1,
        form="count",
        panel=_EXCHANGE,
    )
    n_noisy: int | None = option(
        None,
        "With --iso: number of noisy samples",
        key="iso_noisy",
        at_least=1,
        form="count",
        shown_default="2 n_clean (s_noisy/s_clean)^(4k-2)",
        panel=_EXCHANGE,
    )


@dataclass(frozen=True, kw_only=True)
class SimulationFiles(Checked):
    """Where the simulation goes, and whether it runs at all."""

    outdir: Path | None = option(
        None, "Where to write", shown_default="runs/simulate-gmm-<hash of the config>", panel=OUTPUT
    )
    dry_run: bool = option(False, "Show cells and a time estimate, run nothing", panel=OUTPUT)


def options_section() -> str:
    """The section of `simulate-gmm` in the page of options."""
    table = options_table(
        GridOptions, Scope, AddedNoise, NoiseOfFile, ExchangeOptions, CalibrateOptions, SimulationFiles, files=False
    )
    return f"\n## Simulation\n\n`ambient simulate-gmm`; not in files.\n\n{table}"


if __name__ == "__main__":
    print(options_section(), end="")
