"""The command `ambient export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ambient_theory.shared.console import command, print_json, talk

EXAMPLE = "Example: ambient export runs/NAME exported"


@command
def export(
    source: Annotated[
        str,
        typer.Argument(
            help="A run directory of ambient train, one of its checkpoints, an EDM network-snapshot-*.pkl, "
            "a hub directory, or hf:ORGANISATION/NAME (extra hub)."
        ),
    ],
    destination: Annotated[Path, typer.Argument(help="Directory to write config.json and model.safetensors to.")],
    weights: Annotated[
        str, typer.Option(help="Which weights of a run: ema (averaged) or network (as trained).")
    ] = "ema",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No talk on stderr.")] = False,
) -> None:
    """Write a network in hub format, which ambient generate and the reference's code load. Pickles are never run."""
    from ambient_train.interchange.load import export as write

    written = write(source, destination, weights=weights)
    talk(f"{written.parameters:,} parameters, {written.config['model_type']}, from {source}", quiet=quiet)
    if json:
        print_json(written.to_dict())
    else:
        print(written.path)
