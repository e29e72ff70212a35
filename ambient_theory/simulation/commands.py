"""The theory side's command. Heavy modules are imported inside the function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ambient_theory.shared.console import command, print_json, talk
from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.options import Given, by_key, with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.signals import leave_on_signal
from ambient_theory.simulation.options import (
    CALIBRATION_REPS,
    CALIBRATION_SIZES,
    QUICK_REPS,
    AddedNoise,
    CalibrateOptions,
    ExchangeOptions,
    GridOptions,
    NoiseOfFile,
    Scope,
    SimulationFiles,
    parse_sizes,
)

if TYPE_CHECKING:
    from ambient_theory.simulation.calibration import CalibrationConfig
    from ambient_theory.simulation.exchange import ExchangeConfig
    from ambient_theory.simulation.grid import SimulationConfig

EXAMPLE = "Example: ambient simulate-gmm --outdir simulation"

_OF_A_GRID = ("mixes", "families", "radius", "atoms")
"""Options of the grid that say nothing about an exchange rate."""

_NOT_OF_CONSTANTS = ("dim", "estimators", "engine", "atoms")
"""Options of the grid that say nothing about the constants of the bound."""

_TOTAL_NOISE = ("sigma_clean", "sigma_noisy", "s_clean", "s_noisy")


@command
@leave_on_signal()  # the finished cells are in the ledger
@with_options
def simulate_gmm(
    grid: Given[GridOptions],
    scope: Given[Scope],
    noise: Given[AddedNoise],
    own: Given[NoiseOfFile],
    exchange: Given[ExchangeOptions],
    constants: Given[CalibrateOptions],
    files: SimulationFiles,
    output: Output,
) -> None:
    """Check the theory's rates: W1 of estimators of k-atomic mixtures against n, n_l and the bound."""
    from ambient_theory.simulation.calibration import CalibrationConfig
    from ambient_theory.simulation.exchange import ExchangeConfig
    from ambient_theory.simulation.run import dry_run_report, run_calibration, run_exchange, run_simulation

    config, workers = _config(grid, scope, noise, own, exchange, constants), scope.over(Scope()).workers
    if files.dry_run:
        report = dry_run_report(config, workers)
        print_json(report) if output.json else print(report["text"])
        return
    if isinstance(config, ExchangeConfig):
        result = run_exchange(config, files.outdir, workers=workers, quiet=output.quiet)
    elif isinstance(config, CalibrationConfig):
        result = run_calibration(config, files.outdir, workers=workers, quiet=output.quiet)
    else:
        result = run_simulation(config, files.outdir, workers=workers, quiet=output.quiet)
    if output.json:
        print_json(result.summary)
    else:
        from rich.console import Console

        Console().print(result.rendered)
    talk(f"wrote {', '.join(str(f) for f in result.files)}", quiet=output.quiet)


def _config(
    grid: Given[GridOptions],
    scope: Given[Scope],
    noise: Given[AddedNoise],
    own: Given[NoiseOfFile],
    exchange: Given[ExchangeOptions],
    constants: Given[CalibrateOptions],
) -> SimulationConfig | ExchangeConfig | CalibrationConfig:
    """The config that the options mean together. Raises UsageError for an option of the other kind of run."""
    from ambient_theory.simulation.calibration import CalibrationConfig
    from ambient_theory.simulation.exchange import ExchangeConfig
    from ambient_theory.simulation.grid import SimulationConfig, noise_settings

    asked, options, wanted = grid.over(GridOptions()), scope.over(Scope()), constants.over(CalibrateOptions())
    if options.iso and wanted.calibrate:
        raise UsageError("--iso and --calibrate are two questions: ask one at a time")
    _check_heeded(grid, asked, options)
    shared = {name: getattr(asked, name) for name in ("s_clean", "s_noisy", "bins", "seed")}
    shared["reps"] = options.of_reps(asked.reps)
    added, file = noise.over(AddedNoise()), own.over(NoiseOfFile())
    if added.added_noise is not None:
        from ambient_theory.bounds.sizes import total_noise

        if flags := _flags(_only(grid, _TOTAL_NOISE)):
            raise UsageError(f"{flags} the total noise, which --added-noise makes of --s0: leave one of them out")
        shared["s_clean"], shared["s_noisy"] = added.s0, float(total_noise(added.added_noise, added.s0))
    elif flags := _flags(noise):
        raise UsageError(f"{flags} for --added-noise: give it too, or leave this out")
    if file.noise_file is None and (flags := _flags(own)):
        raise UsageError(f"{flags} for --noise-file: give it too, or leave this out")
    if not options.iso and (flags := _flags(exchange)):
        raise UsageError(f"{flags} for an exchange rate: add --iso, or leave it out")
    if not wanted.calibrate and (flags := _flags(_only(constants, ("dims",)))):
        raise UsageError(f"{flags} for constants: add --calibrate, or leave it out")
    if wanted.calibrate:
        if flags := _flags(_only(grid, _NOT_OF_CONSTANTS)) or _flags(own):
            raise UsageError(f"{flags} not for --calibrate, which takes the worst cases of dmm: leave it out")
        few = asked.reps if "reps" in grid.values else CALIBRATION_REPS
        sizes = options.n if "sizes" in scope.values else parse_sizes(CALIBRATION_SIZES)
        families = asked.families if "families" in grid.values else ("envelope", "pca-envelope")
        every = GridOptions(**{**vars(asked), **shared, "reps": options.of_reps(few), "n": sizes})
        return CalibrationConfig.of(every, families, wanted.dims or None)
    if not options.iso:
        settings = {**vars(asked), **shared, "n": options.n}
        if file.noise_file is not None:
            if flags := _flags(noise) or _flags(_only(grid, (*_TOTAL_NOISE, "mixes"))):
                raise UsageError(f"{flags} the noise, which --noise-file states: leave one of them out")
            values = noise_of_file(file.noise_file, file.noise_column)
            found = noise_settings(values)
            settings |= {by_key(SimulationConfig)[key].name: value for key, value in found.items()}
            if "sizes" not in scope.values:  # and as many samples as the file has
                settings["n"] = tuple(sorted({*options.n, len(values)}))
        return SimulationConfig(**settings)
    of_a_grid = _only(grid, _OF_A_GRID)
    if flags := _flags(of_a_grid) or _flags(_only(scope, ("sizes",))) or _flags(own):
        raise UsageError(f"{flags} for a grid, and --iso has none: leave it out")
    if len(asked.k) != 1 or asked.dim != 1 or asked.engine not in ("auto", "binned"):
        raise UsageError("--iso takes one --k, dimension 1 and the binned engine")
    used = [e for e in asked.estimators if e != "mean-only"] if "estimators" in grid.values else ["dmm"]
    if len(used) != 1 or len(asked.weights) != 1:
        raise UsageError("--iso takes one --estimator and one --weights: leave the others out")
    return ExchangeConfig(
        k=asked.k[0], estimator=used[0], weights=asked.weights[0], **vars(exchange.over(ExchangeOptions())), **shared
    )


def _check_heeded(grid: Given[GridOptions], asked: GridOptions, options: Scope) -> None:
    """Raise UsageError for an option that the others leave nothing to do."""
    from ambient_theory.simulation.grid import POOLED_BY_WEIGHTS

    if options.quick and "reps" in grid.values and asked.reps > QUICK_REPS:
        raise UsageError(f"--quick takes at most {QUICK_REPS} replicates, and --reps asks for {asked.reps}: drop one")
    if "weights" in grid.values and not any(e in POOLED_BY_WEIGHTS for e in asked.estimators):
        raise UsageError(f"--weights is how {' and '.join(POOLED_BY_WEIGHTS)} pool levels: add such an --estimator")
    if "bins" in grid.values and asked.engine == "exact":
        raise UsageError("--bins are those of the binned engine, and --engine exact has none: leave one of them out")


def noise_of_file(path: Path, column: str | None) -> Any:
    """(m,) total standard deviations. Raises DataError, naming the rows, for those that are missing or not > 0."""
    import numpy as np

    from ambient_theory.shared.numbers import read_numbers

    numbers = read_numbers(path)
    if column is None and len(numbers.names) > 1:
        raise UsageError(f"{path} has the columns {', '.join(numbers.names)}: say which with --noise-column")
    values = numbers.column(column or numbers.names[0])
    if values.shape[1] > 1:
        raise DataError(f"{path}: {values.shape[1]} columns, where one standard deviation a sample is asked for")
    bad = np.asarray(~(values[:, 0] > 0))
    if bad.any():
        raise DataError(f"{path}: every s must be > 0, the total standard deviation, and is not in {numbers.rows(bad)}")
    return values[:, 0]


def _only(given: Given[Any], keys: tuple[str, ...]) -> Given[Any]:
    return Given(given.cls, {key: value for key, value in given.values.items() if key in keys})


def _flags(given: Given[Any]) -> str:
    """`--delta and --iso-clean are`, or nothing."""
    flags = [by_key(given.cls)[key].flag for key in given.values]
    return f"{' and '.join(flags)} {'is' if len(flags) == 1 else 'are'}" if flags else ""
