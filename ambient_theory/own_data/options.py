"""What `fit-gmm` can be asked for, as options. Nothing heavy is imported here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Checked, option, options_table
from ambient_theory.shared.output import OUTPUT

CHECKED_UP_TO = 20_000
"""Samples up to which the checks that fit many times are made without being asked for."""
KINDS = ("auto", "likelihood", "fisher", "bootstrap", "none")
METHODS = ("auto", "dmm", "mle", "em", "npmle")

_DATA, _MODEL, _SURE = "Data", "Model", "How sure"


@dataclass(frozen=True, kw_only=True)
class DataOptions(Checked):
    """Which numbers of the file are the samples, and how noisy each is."""

    columns: tuple[str, ...] = option(
        (),
        "Columns (or arrays of an .npz) that are the samples, several times",
        flag="--column",
        shown_default="the only one beside the noise; of files without names all of them",
        panel=_DATA,
    )
    noise: str | None = option(
        None,
        "Noise of each sample: a column, an array of the .npz, one number for all, or another file of one column",
        shown_default="none, must be given, or --unknown-noise",
        panel=_DATA,
    )
    noise_is: str = option("std", "What --noise states of each coordinate", choices=("std", "variance"), panel=_DATA)
    unknown_noise: bool = option(
        False, "All samples have the same noise, and nobody knows it: estimate it, too", panel=_DATA
    )
    skip_missing: bool = option(
        False, "Leave out rows with a missing value, by name; otherwise they end the command", panel=_DATA
    )


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Checked):
    """The law that is fitted."""

    k: int | None = option(
        None, "Number of atoms", short="-k", at_least=1, shown_default="the least BIC up to --max-k", panel=_MODEL
    )
    max_k: int = option(5, "Without --k: the largest number of atoms that is tried", at_least=1, panel=_MODEL)
    ratio_test: bool = option(
        False,
        "Bootstrapped likelihood ratio of k against k + 1 atoms; without --k it chooses k instead of BIC",
        panel=_MODEL,
    )
    method: str = option(
        "auto",
        "How it is fitted; npmle knows no number of atoms",
        choices=METHODS,
        panel=_MODEL,
    )
    radius: float | None = option(
        None, "Radius R of the ball around 0 that holds the atoms", above=0, shown_default="the data's", panel=_MODEL
    )


@dataclass(frozen=True, kw_only=True)
class SureOptions(Checked):
    """Intervals and checks."""

    level: float = option(0.9, "Level of intervals; tests reject below 1 - level", at_least=0.5, below=1, panel=_SURE)
    intervals: str = option(
        "auto",
        "Of atoms and weights; auto is the likelihood's on the line, else the bootstrap's",
        choices=KINDS,
        panel=_SURE,
    )
    boot: int = option(199, "Bootstrap samples of each interval and test", at_least=19, panel=_SURE)
    goodness: bool | None = option(
        None,
        "Could atoms with this noise have given these samples? Bootstrapped",
        shown_default=f"up to {CHECKED_UP_TO:,} samples",
        panel=_SURE,
    )
    noise_scale: bool | None = option(
        None,
        "Is the stated noise right? The likelihood's factor c on it, with interval",
        shown_default=f"up to {CHECKED_UP_TO:,} samples",
        panel=_SURE,
    )
    rescale_noise: bool = option(False, "Fit with the stated noise times that factor c", panel=_SURE)
    seed: int = option(0, "Seed of starts and of the bootstrap", at_least=0, panel=_SURE)


@dataclass(frozen=True, kw_only=True)
class FitFiles(Checked):
    """Where the fit goes."""

    outdir: Path | None = option(
        None,
        "Where to write fit.json, atoms.csv, posterior.csv and the figure",
        shown_default="runs/fit-gmm-<hash of data and options>",
        panel=OUTPUT,
    )


@dataclass(frozen=True, kw_only=True)
class FitConfig(DataOptions, ModelOptions, SureOptions):
    """Options that go together. Raises UsageError for those that contradict each other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unknown_noise and self.noise is not None:
            raise UsageError(f"--unknown-noise and --noise {self.noise} contradict each other: leave one of them out")
        if not self.unknown_noise and self.noise is None:
            raise UsageError(
                "--noise is required: the column that holds the standard deviation of each sample's noise, or one "
                "number for all; --unknown-noise estimates one for all"
            )
        if self.unknown_noise and self.noise_is != "std":
            raise UsageError(
                "--noise-is says what --noise states, and --unknown-noise states none: leave one of them out"
            )
        if self.unknown_noise and (self.rescale_noise or self.noise_scale is not None):
            raise UsageError("--unknown-noise estimates the noise itself: leave --noise-scale and --rescale-noise out")
        if self.rescale_noise and self.noise_scale is False:
            raise UsageError("--rescale-noise needs the factor that --no-noise-scale leaves out: leave one of them out")
        if self.ratio_test and (self.unknown_noise or self.rescale_noise):
            raise UsageError("--ratio-test takes the noise as known: fit with the noise that was estimated, as --noise")
        least = math.ceil(1 / (1 - self.level) - 1e-9)
        if self.boot < least and (self.ratio_test or self.goodness is not False):
            raise UsageError(
                f"--boot {self.boot} cannot reject at --level {self.level:g}: a p of {1 - self.level:.2g} takes "
                f"{least} bootstrap samples or more"
            )
        if self.method == "npmle":
            self._check_without_atoms()

    def _check_without_atoms(self) -> None:
        asked = {
            "--k": self.k is not None,
            "--ratio-test": self.ratio_test,
            f"--intervals {self.intervals}": self.intervals not in ("auto", "none"),
            "--noise-scale": bool(self.noise_scale),
            "--rescale-noise": self.rescale_noise,
            "--unknown-noise": self.unknown_noise,
        }
        if flags := [flag for flag, given in asked.items() if given]:
            raise UsageError(
                f"{flags[0]} needs a fixed number of atoms, and --method npmle has none: among all laws any smaller "
                "noise fits, and neither atoms nor k are numbers to be sure of; choose another method"
            )


def options_section() -> str:
    """The section of `fit-gmm` in the page of options."""
    table = options_table(DataOptions, ModelOptions, SureOptions, FitFiles, files=False)
    return f"\n## Own data\n\n`ambient fit-gmm FILE`; not in files.\n\n{table}"


if __name__ == "__main__":
    print(options_section(), end="")
