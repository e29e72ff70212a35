"""Where a command's files are and go, and whether it only says what it would do. Nothing of it changes a result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ambient_theory.shared.options import Checked, option
from ambient_theory.shared.output import OUTPUT

WEIGHT_SETS = ("ema", "network")
LOGGERS = ("tensorboard", "wandb")

_RUN, _MACHINE, _SLURM = "Run", "Machine and processes", "Cluster (SLURM)"


@dataclass(frozen=True, kw_only=True)
class TrainFiles(Checked):
    """Settings in, run directory out."""

    file: Path | None = option(
        None, "TOML file of settings; flags win over it", flag="--config", shown_default="none", panel=_RUN
    )
    outdir: Path | None = option(
        None, "Run directory", shown_default="runs/<dataset>-s<sigma>-c<share>-seed<k>-<hash>", panel=_RUN
    )
    log: tuple[str, ...] = option(
        (),
        "Also log to, beside metrics.jsonl; several times",
        choices=LOGGERS,
        shown_default="neither",
        panel=OUTPUT,
    )
    dry_run: bool = option(False, "Print what would be done, with time and memory", panel=OUTPUT)


@dataclass(frozen=True, kw_only=True)
class GenerateFiles(Checked):
    """Where generated images go."""

    outdir: Path = option(Path("generated"), "Folder for the images", panel=OUTPUT)


@dataclass(frozen=True, kw_only=True)
class EvaluateFiles(Checked):
    """Where scores go."""

    outdir: Path | None = option(
        None, "Also write scores.json and records.jsonl here", shown_default="nowhere", panel=OUTPUT
    )


@dataclass(frozen=True, kw_only=True)
class RestoreFiles(Checked):
    """Where restored images go."""

    outdir: Path = option(Path("restored"), "Folder for restored.npz, files, scores.json and grid.png", panel=OUTPUT)


@dataclass(frozen=True, kw_only=True)
class RunsFolder(Checked):
    """Where the run directories of a sweep are."""

    runs: Path = option(Path("runs"), "Folder of run directories", panel=_MACHINE)


@dataclass(frozen=True, kw_only=True)
class SweepFiles(RunsFolder):
    """Where a sweep puts its records, and whether a cluster runs it."""

    outdir: Path | None = option(
        None,
        "Where records and table go",
        shown_default="beside the runs, named like the grid",
        panel=OUTPUT,
    )
    slurm: bool = option(False, "Submit the workers as SLURM jobs (extra slurm) and print their numbers", panel=_SLURM)
    wait: bool = option(False, "With --slurm: wait for the jobs, then print the table", panel=_SLURM)


@dataclass(frozen=True, kw_only=True)
class PlanFiles(RunsFolder):
    """Where a chosen grid goes."""

    outdir: Path = option(Path("."), "With --target: where NAME-next.toml, the chosen grid, goes", panel=OUTPUT)


@dataclass(frozen=True, kw_only=True)
class WorthFiles(RunsFolder):
    """Where the answer goes."""

    outdir: Path | None = option(
        None,
        "Where answer and page go",
        shown_default="below the runs, named after data and noise",
        panel=OUTPUT,
    )
    dry_run: bool = option(False, "Print what would be trained and how long it takes", panel=OUTPUT)


@dataclass(frozen=True, kw_only=True)
class ArchiveFiles(Checked):
    """Whether an archive that exists may go."""

    overwrite: bool = option(False, "Replace DEST if it exists", panel=OUTPUT)


@dataclass(frozen=True, kw_only=True)
class NoiseFiles(Checked):
    """Where estimated noise levels go."""

    table: Path | None = option(
        None,
        "Write the levels as --data reads them: DATA/dataset.csv for a folder, STEM.sigma.npy beside one file",
        shown_default="nowhere",
        panel=OUTPUT,
    )
    spectrum: Path | None = option(
        None,
        "Write the power spectrum of DATA, whose images must hold nothing but noise (dark frames, empty fields): .npy, "
        "read as STEM.spectrum.npy beside noisy images",
        shown_default="nowhere",
        panel=OUTPUT,
    )
    overwrite: bool = option(False, "Replace files that exist", panel=OUTPUT)


@dataclass(frozen=True, kw_only=True)
class PictureFiles(Checked):
    """Where the picture of a set of images goes."""

    out: Path = option(Path("data.png"), "PNG to write", short="-o", panel=OUTPUT)
    overwrite: bool = option(False, "Replace a picture that exists", panel=OUTPUT)


@dataclass(frozen=True, kw_only=True)
class CurveFiles(Checked):
    """Where the curves of compared runs go."""

    out: Path = option(Path("runs.png"), "PNG to write", short="-o", panel=OUTPUT)
    html: Path | None = option(
        None, "Also write a page that needs no other file: HTML", shown_default="none", panel=OUTPUT
    )
    overwrite: bool = option(False, "Replace files that exist", panel=OUTPUT)


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Checked):
    """What of a run is exported."""

    weights: str = option("ema", "Which weights of a run: averaged, or as trained", choices=WEIGHT_SETS)
    push: str | None = option(
        None,
        "Also upload it to this repository of the Hugging Face hub, ORGANISATION/NAME (extra hub, and a login there); "
        "a repository that is not there yet is made, private",
        shown_default="nowhere",
        panel=OUTPUT,
    )
