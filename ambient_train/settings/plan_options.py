"""What a grid begins with (`ambient sweep init`), and what `ambient sweep plan --target price` is asked of it."""

from __future__ import annotations

from dataclasses import dataclass

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Checked, option
from ambient_theory.shared.output import OUTPUT
from ambient_train.data.readers import source_help

TARGETS = ("price",)
_PANEL = "What to train next"
_GRID = "Grid"


@dataclass(frozen=True, kw_only=True)
class GridStart(Checked):
    """The data and the noise that a new grid is about."""

    data: str = option("digits", f"Images: {source_help()}", panel=_GRID)
    resolution: int | None = option(
        None, "Area-resize to this side in pixels", at_least=2, shown_default="as is, or by preset", panel=_GRID
    )
    sigma_n: tuple[float, ...] = option(
        (0.2,),
        "Noise of the noisy images, in units of [-1, 1]; several times for one cell each",
        key="sigma",
        above=0,
        panel=_GRID,
    )
    corruption: float = option(0.9, "Share of noisy images in a mixture", above=0, below=1, panel=_GRID)
    duration_nimg: int | None = option(
        None,
        "Images to train on in each cell: 200k, 1.5M",
        at_least=1,
        form="images",
        flag="--duration",
        shown_default="by preset",
        panel=_GRID,
    )
    seeds: int = option(2, "Trainings of each cell; two or more give error bars", at_least=1, panel=_GRID)
    overwrite: bool = option(False, "Replace GRID if it exists", panel=OUTPUT)


@dataclass(frozen=True, kw_only=True)
class PlanOptions(Checked):
    """Without a target nothing is chosen. Raises UsageError where a target lacks a level or an amount."""

    target: str | None = option(
        None,
        "Choose the cells to train next for the narrowest interval of this",
        choices=TARGETS,
        shown_default="none, list the grid",
        panel=_PANEL,
    )
    sigma_n: float = option(
        0.0,
        "With --target: noise of the noisy images, in units of [-1, 1]",
        key="sigma",
        at_least=0,
        shown_default="none, must be given",
        panel=_PANEL,
    )
    cells: int | None = option(None, "With --target: trainings to choose", at_least=1, panel=_PANEL)
    budget_nimg: int | None = option(
        None,
        "With --target: images that the chosen trainings may take together, instead of --cells",
        at_least=1,
        form="images",
        flag="--budget",
        panel=_PANEL,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is None:
            return
        if not self.sigma_n > 0:
            raise UsageError("--target price needs --sigma, the noise of the noisy images, above 0")
        if (self.cells is None) == (self.budget_nimg is None):
            raise UsageError("--target price needs --cells or --budget, one of them: how much more may be trained")
