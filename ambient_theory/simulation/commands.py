"""The theory side's command. Heavy modules are imported inside the function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ambient_theory.shared.console import command, print_json, talk
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Given, by_key, with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.signals import leave_on_signal
from ambient_theory.simulation.options import AddedNoise, ExchangeOptions, GridOptions, Scope, SimulationFiles

if TYPE_CHECKING:
    from ambient_theory.simulation.exchange import ExchangeConfig
    from ambient_theory.simulation.grid import SimulationConfig

EXAMPLE = "Example: ambient simulate-gmm --outdir simulation"

_OF_A_GRID = ("mixes", "families", "radius", "atoms")
"""Options of the grid that say nothing about an exchange rate."""

_TOTAL_NOISE = ("sigma_clean", "sigma_noisy", "s_clean", "s_noisy")


@command
@leave_on_signal()  # the finished cells are in the ledger
@with_options
def simulate_gmm(
    grid: Given[GridOptions],
    scope: Given[Scope],
    noise: Given[AddedNoise],
    exchange: Given[ExchangeOptions],
    files: SimulationFiles,
    output: Output,
) -> None:
    """Check the theory's rates: W1 of estimators of k-atomic mixtures against n, n_l and the bound."""
    from ambient_theory.simulation.exchange import ExchangeConfig
    from ambient_theory.simulation.run import dry_run_report, run_exchange, run_simulation

    config, workers = _config(grid, scope, noise, exchange), scope.over(Scope()).workers
    if files.dry_run:
        report = dry_run_report(config, workers)
        print_json(report) if output.json else print(report["text"])
        return
    if isinstance(config, ExchangeConfig):
        result = run_exchange(config, files.outdir, workers=workers, quiet=output.quiet)
    else:
        result = run_simulation(config, files.outdir, workers=workers, quiet=output.quiet)
    if output.json:
        print_json(result.summary)
    else:
        from rich.console import Console

        Console().print(result.rendered)
    talk(f"wrote {', '.join(str(f) for f in result.files)}", quiet=output.quiet)


def _config(
    grid: Given[GridOptions], scope: Given[Scope], noise: Given[AddedNoise], exchange: Given[ExchangeOptions]
) -> SimulationConfig | ExchangeConfig:
    """The config that the options mean together. Raises UsageError for an option of the other kind of run."""
    from ambient_theory.simulation.exchange import ExchangeConfig
    from ambient_theory.simulation.grid import SimulationConfig

    asked, options = grid.over(GridOptions()), scope.over(Scope())
    shared = {name: getattr(asked, name) for name in ("s_clean", "s_noisy", "bins", "seed")}
    shared["reps"] = options.of_reps(asked.reps)
    added = noise.over(AddedNoise())
    if added.added_noise is not None:
        from ambient_theory.bounds.sizes import total_noise

        totals = Given(GridOptions, {key: value for key, value in grid.values.items() if key in _TOTAL_NOISE})
        if flags := _flags(totals):
            raise UsageError(f"{flags} the total noise, which --added-noise makes of --s0: leave one of them out")
        shared["s_clean"], shared["s_noisy"] = added.s0, float(total_noise(added.added_noise, added.s0))
    elif flags := _flags(noise):
        raise UsageError(f"{flags} for --added-noise: give it too, or leave this out")
    if not options.iso:
        if flags := _flags(exchange):
            raise UsageError(f"{flags} for an exchange rate: add --iso, or leave it out")
        return SimulationConfig(**{**vars(asked), **shared, "n": options.n})
    of_a_grid = Given(GridOptions, {key: value for key, value in grid.values.items() if key in _OF_A_GRID})
    sizes = Given(Scope, {key: value for key, value in scope.values.items() if key == "sizes"})
    if flags := _flags(of_a_grid) or _flags(sizes):
        raise UsageError(f"{flags} for a grid, and --iso has none: leave it out")
    if len(asked.k) != 1 or asked.dim != 1 or asked.engine not in ("auto", "binned"):
        raise UsageError("--iso takes one --k, dimension 1 and the binned engine")
    return ExchangeConfig(
        k=asked.k[0],
        estimator=next((e for e in asked.estimators if e != "mean-only"), "dmm"),
        weights=asked.weights[0],
        **vars(exchange.over(ExchangeOptions())),
        **shared,
    )


def _flags(given: Given[Any]) -> str:
    """`--delta and --iso-clean are`, or nothing."""
    flags = [by_key(given.cls)[key].flag for key in given.values]
    return f"{' and '.join(flags)} {'is' if len(flags) == 1 else 'are'}" if flags else ""
