"""The command `ambient`: mounts the commands of the two packages. Nothing heavy is imported here."""

from __future__ import annotations

from typing import Annotated

import typer

import ambient_theory
from ambient_theory.compare.commands import budget, compare, price
from ambient_theory.simulation.commands import simulate_gmm
from ambient_train.commands.data import app as data_app
from ambient_train.commands.export import export
from ambient_train.commands.train import evaluate, generate, sweep_app, train
from ambient_train.training.signals import leave_on_signal

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


app.command("train")(train)
app.command("generate")(generate)
app.command("evaluate")(evaluate)
app.add_typer(sweep_app, name="sweep")
app.command("simulate-gmm")(leave_on_signal()(simulate_gmm))  # finished cells are in the ledger
app.command("compare")(compare)
app.command("price")(price)
app.command("budget")(budget)
app.add_typer(data_app)
app.command("export")(export)


if __name__ == "__main__":
    app()
