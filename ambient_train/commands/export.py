"""The command `ambient export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ambient_theory.shared.console import command, print_json, starting, talk
from ambient_theory.shared.options import with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.settings.files import ExportOptions

EXAMPLE = "Example: ambient export runs/NAME exported"


@command
@leave_on_signal()
@with_options
def export(
    source: Annotated[
        str,
        typer.Argument(
            help="A run directory of ambient train, one of its checkpoints, an EDM network-snapshot-*.pkl, "
            "a hub directory, or hf:ORGANISATION/NAME (extra hub)."
        ),
    ],
    destination: Annotated[Path, typer.Argument(help="Directory to write config.json and model.safetensors to.")],
    options: ExportOptions,
    output: Output,
) -> None:
    """Write a network in hub format, which ambient generate and the reference's code load. Pickles are never run."""
    with starting("loading PyTorch", quiet=output.quiet):
        from ambient_train.interchange.load import export as write

    written = write(source, destination, weights=options.weights, push=options.push)
    talk(f"{written.parameters:,} parameters, {written.config['model_type']}, from {source}", quiet=output.quiet)
    if output.json:
        print_json(written.to_dict())
    else:
        print(written.path)
        if written.pushed:
            print(written.pushed)
