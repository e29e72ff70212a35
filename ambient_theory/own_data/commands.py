"""The command `ambient fit-gmm`. Heavy modules are imported inside the function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ambient_theory.own_data.options import DataOptions, FitConfig, FitFiles, ModelOptions, SureOptions
from ambient_theory.shared.console import command, print_json, starting, talk
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Given, from_mapping, with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.signals import leave_on_signal

EXAMPLE = "Example: ambient fit-gmm stars.csv --column x --noise sigma"


@command
@leave_on_signal()
@with_options
def fit_gmm(
    data: Given[DataOptions],
    model: Given[ModelOptions],
    sure: Given[SureOptions],
    files: FitFiles,
    output: Output,
    file: Annotated[
        Path, typer.Argument(help="CSV, TSV or plain text, JSON lines, .npy or .npz of samples.", show_default=False)
    ],
) -> None:
    """Fit your own noisy numbers: how many atoms, where, with which weights, and how sure that is."""
    if "k" in model.values and "max_k" in model.values:
        raise UsageError("--max-k is for choosing the number of atoms, and --k states it: leave one of them out")
    if "max_k" in model.values and model.values.get("method") == "npmle":
        raise UsageError(
            "--max-k is for choosing the number of atoms, and --method npmle has none: leave one of them out"
        )
    asked = sure.over(SureOptions())
    exact = asked.goodness is False and asked.intervals in ("likelihood", "fisher", "none")
    if "boot" in sure.values and exact and not model.values.get("ratio_test"):
        raise UsageError("--boot: nothing that is asked for is bootstrapped; leave it out, or ask for --goodness")
    values: dict[str, Any] = {**data.values, **model.values, **sure.values}
    config = from_mapping(FitConfig, values)
    with starting("loading SciPy", quiet=output.quiet):
        from ambient_theory.own_data.run import run_fit
        from ambient_theory.own_data.samples import samples_of_file
    samples = samples_of_file(file, config)
    talk(samples.sentence(), quiet=output.quiet)
    result = run_fit(samples, config, files.outdir, lambda what: talk(f"... {what}", quiet=output.quiet))
    if output.json:
        print_json(result.summary)
    else:
        from rich.console import Console

        Console().print(result.rendered)
    talk(f"wrote {', '.join(str(f) for f in result.files)}", quiet=output.quiet)
