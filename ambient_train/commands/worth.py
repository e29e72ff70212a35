"""The command `ambient worth`."""

from __future__ import annotations

from typing import Annotated

import typer

from ambient_theory.shared.console import command, print_json, starting
from ambient_theory.shared.options import with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.signals import leave_on_signal
from ambient_train.commands.common import adviser_of
from ambient_train.data.readers import source_help
from ambient_train.settings.files import WorthFiles
from ambient_train.settings.worth import WorthOptions

EXAMPLE = "Example: ambient worth photos/ --sigma 0.2 --time 1h --workers 2"


@command
@leave_on_signal()
@with_options
def worth(
    context: typer.Context,
    data: Annotated[str, typer.Argument(help=f"Images of which some are clean: {source_help()}.")],
    options: WorthOptions,
    files: WorthFiles,
    output: Output,
) -> None:
    """What is a noisy image worth in MY data? Trains small networks on mixtures of them until the time is up.

    Ends with the price, how sure it is, what it holds for, and a page. The same command continues after a stop.
    """
    with starting("loading PyTorch", quiet=output.quiet):
        from ambient_train.pricing.run import worth as task

    result = task(data, options, adviser_of(context), **vars(files), quiet=output.quiet)
    if output.json:
        print_json(result.to_dict())
    else:
        result.show()
