"""The command `ambient`: names the commands of the two packages; each is imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from ambient_theory.shared.signals import leave_from_the_start

if PurePath(sys.argv[0]).name in ("ambient", "cli.py") and "multiprocessing" not in sys.modules:
    leave_from_the_start()  # as a program that is no worker, before anything slow is imported

import typer
from typer.core import TyperCommand, TyperGroup

import ambient_theory

if TYPE_CHECKING:
    from ambient_theory.shared.advice import Adviser


class Entry(NamedTuple):
    """Where a command is, and its line in the list of commands: the first paragraph of its own help."""

    module: str
    attribute: str
    summary: str
    handed: Callable[..., Any] | None = None
    """What it needs of the other package: `attribute` makes the command from it."""


def _measure(source: str, *, quiet: bool, **asked: Any) -> Mapping[str, Any]:
    """The denoising error of a network that holds no records, for `price --from`."""
    from ambient_theory.shared.console import starting

    with starting("loading PyTorch", quiet=quiet):
        from ambient_train.tasks.denoise import measure_denoising
    return measure_denoising(source, quiet=quiet, **asked)


COMMANDS = {
    "train": Entry(
        "ambient_train.commands.train",
        "train",
        "Train a diffusion model on a mixture of clean and noisy images, and score it.",
    ),
    "generate": Entry(
        "ambient_train.commands.generate", "generate", "Generate images. Image k is a function of seed k alone."
    ),
    "evaluate": Entry(
        "ambient_train.commands.evaluate",
        "evaluate",
        "Score a model, or a set of images, by Frechet and kernel distance with intervals and floors.",
    ),
    "restore": Entry(
        "ambient_train.commands.restore",
        "restore",
        "Restore noisy images with a model trained on such: posterior mean, samples, deviation, intervals per pixel.",
    ),
    "sweep": Entry("ambient_train.commands.sweep", "sweep_app", "Grids of trainings: init, plan, run, status."),
    "worth": Entry(
        "ambient_train.commands.worth",
        "worth",
        "What is a noisy image worth in MY data? Trains small networks on mixtures of them until the time is up.",
    ),
    "simulate-gmm": Entry(
        "ambient_theory.simulation.commands",
        "simulate_gmm",
        "Check the theory's rates: W1 of estimators of k-atomic mixtures against n, n_l and the bound.",
    ),
    "fit-gmm": Entry(
        "ambient_theory.own_data.commands",
        "fit_gmm",
        "Fit your own noisy numbers: how many atoms, where, with which weights, and how sure that is.",
    ),
    "compare": Entry(
        "ambient_theory.compare.commands.compare",
        "compare",
        "What is a noisy image worth? Prices, fits, controls and theory from records, as one page and a table.",
    ),
    "price": Entry(
        "ambient_theory.compare.commands.price",
        "price_command",
        "How many noisy images is one clean image worth at noise SIGMA? Measured, or the band of the laws (marked).",
        handed=_measure,
    ),
    "budget": Entry(
        "ambient_theory.compare.commands.budget",
        "budget",
        "What should I buy? The mix of clean and noisy images with the least predicted error, and how sure that is.",
    ),
    "runs": Entry(
        "ambient_train.commands.runs",
        "runs_app",
        "List runs: how far each is, its score, and the command that continues it.",
    ),
    "presets": Entry(
        "ambient_train.commands.presets",
        "presets",
        "List presets: what each is for, its network, for how long it trains. `ambient config show NAME` prints one.",
    ),
    "config": Entry("ambient_train.commands.config", "config_app", "Settings of trainings: show them as a file."),
    "data": Entry("ambient_train.commands.data", "app", "Prepare and check sets of images."),
    "export": Entry(
        "ambient_train.commands.export",
        "export",
        "Write a network in hub format, which ambient generate and the reference's code load. Pickles are never run.",
    ),
}


def imported(name: str) -> Any:
    """The command of that name with its options, or the group of commands."""
    entry = COMMANDS[name]
    module = importlib.import_module(entry.module)
    found = getattr(module, entry.attribute)
    if entry.handed is not None:
        found = found(entry.handed)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False)
        alone.command(name, epilog=module.EXAMPLE)(found)
        found = alone
    made = typer.main.get_command(found)
    made.name = name
    return made


class WhenCalled(TyperGroup):
    """Lists commands by their summaries and imports only the one that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands.update({name: TyperCommand(name, help=entry.summary) for name, entry in COMMANDS.items()})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, imported(name) if name in COMMANDS else listed, rest


app = typer.Typer(
    name="ambient",
    cls=WhenCalled,
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
    from ambient_theory.compare.advice.adviser import RecordAdviser

    return RecordAdviser()


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Before a command: hf: names are read from the local cache alone.")
    ] = False,
) -> None:
    if offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")  # what both packages read when imported
    context.obj = _adviser


if __name__ == "__main__":
    app()
