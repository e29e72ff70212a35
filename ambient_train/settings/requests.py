"""What `generate` and `evaluate` are asked, beside how is sampled and scored. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ambient_theory.shared.options import Checked, check_at_default, option

FORMS = ("png", "npz", "grid")

_IMAGES, _WITH, _MACHINE = "Images", "Compared with", "Machine and processes"


@dataclass(frozen=True, kw_only=True)
class AtCheckpoint(Checked):
    """Which weights of a run are used."""

    nimg: int | None = option(
        None,
        "Of a run: its checkpoint after so many images, e.g. 100k",
        at_least=0,
        form="images",
        flag="--at",
        shown_default="newest",
    )


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(AtCheckpoint):
    """Which images are made, and as what they are written."""

    seeds: str = option("0-63", "One image a seed: 0-63, or 1,5,9-12", panel=_IMAGES)
    label: int | None = option(
        None, "Class label", at_least=0, flag="--class", shown_default="seed modulo classes", panel=_IMAGES
    )
    form: str = option("png", "One file an image, or one of all", choices=FORMS, flag="--format", panel=_IMAGES)
    subdirs: bool = option(False, "A sub-folder for every 1000 seeds", panel=_IMAGES)
    batch: int = option(256, "Images at once", at_least=1, panel=_MACHINE)
    device: str = option("auto", "auto, cpu, cuda or cuda:N", panel=_MACHINE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form != "png":
            check_at_default(
                self, ("subdirs",), f"is for one file an image, and --format {self.form} is one of all: leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class Question(AtCheckpoint):
    """What is to be measured on what."""

    data: str | None = option(
        None, "Data set to compare with (a name or a path)", shown_default="the run's own", panel=_WITH
    )
    resolution: int | None = option(
        None, "Area-resize --data to this side", at_least=2, shown_default="the run's", panel=_WITH
    )
    references: tuple[str, ...] = option(
        (),
        "heldout-clean, train-clean, images, or an .npz of statistics, several times",
        flag="--reference",
        shown_default="the first two",
        panel=_WITH,
    )
    repeats: int = option(
        1, "Independent sets of images of a network; gives mean, spread and standard error", at_least=1
    )
    save_stats: Path | None = option(  # a path is no mutable default
        None, "Write the reference statistics (EDM .npz) here", panel=_WITH
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N", panel=_MACHINE)
