"""The command `ambient`: mounts the commands of the two packages. Nothing heavy is imported here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import ambient_theory
from ambient_theory.compare import commands as comparing
from ambient_theory.shared.signals import leave_on_signal
from ambient_theory.simulation import commands as simulating
from ambient_train.commands import data, evaluate, export, generate, restore, sweep, train, worth

if TYPE_CHECKING:
    from ambient_theory.shared.advice import Adviser

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


def _adviser() -> Adviser:
    """The theory for those commands of the trainer that ask it what to train next."""
    from ambient_theory.compare.adviser import RecordAdviser

    return RecordAdviser()


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    context.obj = _adviser


app.command("train", epilog=train.EXAMPLE)(train.train)
app.command("generate", epilog=generate.EXAMPLE)(generate.generate)
app.command("evaluate", epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command("restore", epilog=restore.EXAMPLE)(restore.restore)
app.add_typer(sweep.sweep_app, name="sweep")
app.command("worth", epilog=worth.EXAMPLE)(worth.worth)
# the finished cells of a simulation are in its ledger
app.command("simulate-gmm", epilog=simulating.EXAMPLE)(leave_on_signal()(simulating.simulate_gmm))
app.command("compare", epilog=comparing.COMPARE_EXAMPLE)(comparing.compare)
app.command("price", epilog=comparing.PRICE_EXAMPLE)(comparing.price)
app.command("budget", epilog=comparing.BUDGET_EXAMPLE)(comparing.budget)
app.add_typer(data.app)
app.command("export", epilog=export.EXAMPLE)(export.export)


if __name__ == "__main__":
    app()
