"""The command `ambient`: mounts the commands of the two packages. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

import ambient_theory
from ambient_theory.compare import commands as comparing
from ambient_theory.shared.console import starting
from ambient_theory.shared.signals import leave_on_signal
from ambient_theory.simulation import commands as simulating
from ambient_train.commands import data, evaluate, export, generate, restore, sweep, train

app = typer.Typer(
    name="ambient",
    help="How much is a noisy image worth? Train on mixtures of clean and noisy images, simulate the theory, compare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        print(f"ambient {ambient_theory.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


def _measure(source: str, *, quiet: bool, **asked: Any) -> Mapping[str, Any]:
    """The denoising error of a network that holds no records, for `price --from`."""
    with starting("loading PyTorch", quiet=quiet):
        from ambient_train.tasks.denoise import measure_denoising
    return measure_denoising(source, quiet=quiet, **asked)


app.command("train", epilog=train.EXAMPLE)(train.train)
app.command("generate", epilog=generate.EXAMPLE)(generate.generate)
app.command("evaluate", epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command("restore", epilog=restore.EXAMPLE)(restore.restore)
app.add_typer(sweep.sweep_app, name="sweep")
# the finished cells of a simulation are in its ledger
app.command("simulate-gmm", epilog=simulating.EXAMPLE)(leave_on_signal()(simulating.simulate_gmm))
app.command("compare", epilog=comparing.COMPARE_EXAMPLE)(comparing.compare)
app.command("price", epilog=comparing.PRICE_EXAMPLE)(comparing.price_command(_measure))
app.command("budget", epilog=comparing.BUDGET_EXAMPLE)(comparing.budget)
app.add_typer(data.app)
app.command("export", epilog=export.EXAMPLE)(export.export)


if __name__ == "__main__":
    app()
