"""The theory side's commands. Heavy modules are imported inside the functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ambient_theory.shared.console import command, print_json, talk

EXAMPLE = "Example: ambient simulate-gmm --outdir simulation"


@command
def simulate_gmm(
    k: Annotated[list[int], typer.Option("--k", "-k", help="Number of atoms; repeat for several.")] = [2],  # noqa: B006
    dim: Annotated[int, typer.Option(help="Dimension d.")] = 1,
    sigma_clean: Annotated[float, typer.Option(help="Total standard deviation s of a clean sample.")] = 1.0,
    sigma_noisy: Annotated[float, typer.Option(help="Total standard deviation s of a noisy sample.")] = 2.0,
    added_noise: Annotated[
        float | None, typer.Option(help="Added noise sigma of noisy samples; s^2 = s0^2 + sigma^2 replaces both s.")
    ] = None,
    s0: Annotated[float, typer.Option(help="Intrinsic width of a clean sample, used with --added-noise.")] = 1.0,
    mix: Annotated[
        list[str], typer.Option("--mix", help="clean, noisy or CLEAN:NOISY (shares); repeat for several.")
    ] = ["clean", "noisy", "10:90"],  # noqa: B006
    n: Annotated[
        str, typer.Option("--n", help="Sample sizes: LOW..HIGH in half decades, or a comma-separated list.")
    ] = "1e3..1e8",
    family: Annotated[
        list[str],
        typer.Option("--family", help="separated, hard, envelope, fixed, pca-hard, pca-strong; repeat for several."),
    ] = ["separated", "hard"],  # noqa: B006
    atoms: Annotated[str | None, typer.Option(help="Atoms of family fixed, ATOM:WEIGHT,ATOM:WEIGHT,...")] = None,
    estimator: Annotated[
        list[str], typer.Option("--estimator", help="dmm, clean-only, mean-only, mle, em, npmle; repeat for several.")
    ] = ["dmm", "mean-only"],  # noqa: B006
    weights: Annotated[
        list[str], typer.Option("--weights", help="Pooling of noise levels: gls, order, sigma, none; repeat.")
    ] = ["gls"],  # noqa: B006
    reps: Annotated[int, typer.Option(help="Replicates of each cell.")] = 500,
    engine: Annotated[
        str, typer.Option(help="auto, binned (d = 1), wishart (d >= 2, k <= 2) or exact (real samples).")
    ] = "auto",
    radius: Annotated[float, typer.Option(help="Radius R of the ball that holds the atoms.")] = 2.0,
    bins: Annotated[int, typer.Option(help="Bins of the binned engine.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of every cell.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes, one thread each. Results do not depend on it.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="100 replicates, whole decades only.")] = False,
    iso: Annotated[
        bool,
        typer.Option("--iso", help="Instead: exchange rate c at equal error, over delta (no --mix, --n, --family)."),
    ] = False,
    delta: Annotated[
        list[float] | None, typer.Option("--delta", help="With --iso: half-widths, units of sigma-clean; repeat.")
    ] = None,
    iso_clean: Annotated[float, typer.Option(help="With --iso: number of clean samples.")] = 1e5,
    iso_noisy: Annotated[
        float | None, typer.Option(help="With --iso: number of noisy samples; default 2 n_clean s^(4k-2).")
    ] = None,
    outdir: Annotated[
        Path | None, typer.Option(help="Where to write; default runs/simulate-gmm-<hash of the config>.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show cells and a time estimate, run nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Check the theory's rates: W1 of estimators of k-atomic mixtures against n, n_l and the bound."""
    from ambient_theory.shared.errors import UsageError
    from ambient_theory.simulation.exchange import DEFAULT_DELTAS, ExchangeConfig
    from ambient_theory.simulation.grid import SimulationConfig, parse_sizes, whole
    from ambient_theory.simulation.run import dry_run_report, run_exchange, run_simulation

    if added_noise is not None:
        from ambient_theory.bounds.sizes import total_noise

        sigma_clean, sigma_noisy = s0, float(total_noise(added_noise, s0))
    reps = min(reps, 100) if quick else reps
    config: SimulationConfig | ExchangeConfig
    if iso:
        if len(k) != 1 or dim != 1 or engine not in ("auto", "binned"):
            raise UsageError("--iso takes one --k, dimension 1 and the binned engine")
        config = ExchangeConfig(
            k=k[0],
            s_clean=sigma_clean,
            s_noisy=sigma_noisy,
            deltas=tuple(delta or DEFAULT_DELTAS),
            n_clean=whole(iso_clean, "--iso-clean"),
            n_noisy=None if iso_noisy is None else whole(iso_noisy, "--iso-noisy"),
            estimator=next((e for e in estimator if e != "mean-only"), "dmm"),
            weights=weights[0],
            reps=reps,
            bins=bins,
            seed=seed,
        )
    else:
        config = SimulationConfig(
            k=tuple(k),
            dim=dim,
            s_clean=sigma_clean,
            s_noisy=sigma_noisy,
            mixes=tuple(mix),
            n=parse_sizes(n, per_decade=1 if quick else 2),
            families=tuple(family),
            estimators=tuple(estimator),
            weights=tuple(weights),
            reps=reps,
            engine=engine,
            seed=seed,
            radius=radius,
            bins=bins,
            atoms=atoms,
        )
    if dry_run:
        report = dry_run_report(config, workers)
        print_json(report) if json else print(report["text"])
        return
    if isinstance(config, ExchangeConfig):
        result = run_exchange(config, outdir, workers=workers, quiet=quiet)
    else:
        result = run_simulation(config, outdir, workers=workers, quiet=quiet)
    if json:
        print_json(result.summary)
    else:
        from rich.console import Console

        Console().print(result.rendered)
    talk(f"wrote {', '.join(str(f) for f in result.files)}", quiet=quiet)
