"""One fit from a file, or arrays, to files: read, fit with its stages told, tables, posterior means, figure."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from ambient_theory.own_data.fit import Fit, check_fit, fit_samples
from ambient_theory.own_data.options import FitConfig
from ambient_theory.own_data.report import atoms_csv, posterior_csv, render, summary
from ambient_theory.own_data.samples import OwnSamples, samples_of_arrays, samples_of_file
from ambient_theory.shared.files import atomic_write_text, content_hash
from ambient_theory.shared.frames import frame
from ambient_theory.shared.notebooks import picture_html
from ambient_theory.shared.options import from_mapping
from ambient_theory.shared.outdirs import claim

MANIFEST = "config.json"
OUTPUTS = ("fit.json", "atoms.csv", "posterior.csv", "fit.svg", "fit.png")


@dataclass(frozen=True, repr=False)
class FitResult:
    """fit: the fit itself, with its model. summary: JSON-ready; rendered: for a terminal; files: what was written."""

    fit: Fit
    summary: dict[str, Any]
    rendered: RenderableType
    files: tuple[Path, ...]

    def __repr__(self) -> str:
        where = str(self.files[0].parent) if self.files else "nothing written"
        return f"FitResult({where!r}, {self.summary['k']} atoms of {self.summary['n']:,} samples)"

    def _repr_html_(self) -> str:
        """The figure, for notebooks."""
        return picture_html(next((f for f in self.files if f.suffix == ".png"), None), repr(self))

    def to_frame(self) -> Any:
        """The numbers of the law as a `pandas.DataFrame`, one row each. Raises UsageError without pandas."""
        from ambient_theory.own_data.report import atom_rows

        names = ("atom", "what", "estimate", "stderr", "low", "high")
        return frame(dict(zip(names, row, strict=True)) for row in atom_rows(self.fit))


def run_fit(
    samples: OwnSamples, config: FitConfig, outdir: Path | None, stage: Callable[[str], None] = lambda what: None
) -> FitResult:
    """Fit and write fit.json, atoms.csv, posterior.csv and the figure below `outdir`, by default `runs/fit-gmm-<hash>`.

    Raises UsageError if `outdir` holds the fit of other samples or options, or other files of these names.
    """
    check_fit(samples, config)
    asked = {**config.to_dict(), "samples": samples.digest()}
    outdir = outdir or Path("runs") / f"fit-gmm-{content_hash(asked)}"
    claim(outdir, MANIFEST, "ambient.fit-config/1", asked, "fit", OUTPUTS)
    fit = fit_samples(samples, config, stage)
    found = summary(fit)
    stage("figure")
    from ambient_theory.own_data.figures import fit_figure
    from ambient_theory.simulation.figures import save

    files = [outdir / name for name in OUTPUTS[:3]]
    atomic_write_text(files[1], atoms_csv(fit))
    atomic_write_text(files[2], posterior_csv(fit))
    files += save(fit_figure(fit), outdir / "fit")
    atomic_write_text(files[0], json.dumps(found, indent=1, allow_nan=False) + "\n")
    return FitResult(fit, found, render(fit), tuple(files))


def fit_gmm(
    data: Any,
    noise: Any = None,
    *,
    outdir: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> FitResult:
    """Atoms seen through noise of known size, from a file or from arrays; `ambient fit-gmm`.

    data: the path of a CSV, .npy or .npz, with noise as `--noise` says it (a column, a number, another file); or
    samples (n,) or (n, d), with noise a number or (n,). settings: `columns`, `noise_is`, `unknown_noise`,
    `skip_missing`, `k`, `max_k`, `ratio_test`, `method`, `radius`, `level`, `intervals`, `boot`, `goodness`,
    `noise_scale`, `rescale_noise`, `seed`. outdir: where fit.json, tables and figure go, by default
    `runs/fit-gmm-<hash>`. `summary` of the result is JSON-ready, `fit.model` the estimator. Raises UsageError and
    DataError.
    """
    where = None if outdir is None else Path(outdir)
    if isinstance(data, str | os.PathLike):
        stated = None if noise is None else str(noise)
        config = from_mapping(FitConfig, {"noise": stated, **settings}, where="option")
        return run_fit(samples_of_file(Path(data), config), config, where)
    config = from_mapping(FitConfig, {"noise": None if noise is None else "as given", **settings}, where="option")
    return run_fit(samples_of_arrays(data, noise, config), config, where)
