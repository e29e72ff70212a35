"""What `data prepare`, `data corrupt` and `data check` can be asked for. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass

from ambient_theory.shared.options import REQUIRED, Checked, option
from ambient_train.data.noise_models import help_for_added

TRANSFORMS = ("none", "center-crop", "center-crop-wide", "resize")
FILTERS = ("area", "lanczos")
COLOURS = ("auto", "rgb", "grey")
SPLITS = ("all", "train", "heldout")

_WHICH, _SHAPE, _MACHINE = "Which images", "Shape and colour", "Machine and processes"


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(Checked):
    """What determines the bytes of an archive beside its source and its kind; see `geometry.Geometry` for the shape."""

    resolution: str | None = option(
        None,
        "Side in pixels, even; WIDTHxHEIGHT such as 64x48 for --transform center-crop-wide",
        shown_default="as it is",
        panel=_SHAPE,
    )
    transform: str | None = option(
        None,
        "How the images get there",
        choices=TRANSFORMS,
        shown_default="center-crop with --resolution, else none",
        panel=_SHAPE,
    )
    filter: str = option(
        "area", "Exact area average, or Pillow's Lanczos as EDM's tool uses", choices=FILTERS, panel=_SHAPE
    )
    colour: str = option(
        "auto",
        "Colour mode; auto keeps grey if all of 64 images looked at are grey, and else takes RGB",
        choices=COLOURS,
        panel=_SHAPE,
    )
    strict: bool = option(
        False,
        "Refuse palettes, alpha, CMYK, 16 bits and mixed colour modes instead of converting and counting them",
        panel=_SHAPE,
    )
    max_images: int | None = option(
        None, "At most this many images, drawn by a hash of their place", at_least=1, shown_default="all", panel=_WHICH
    )
    split: str = option(
        "all",
        "Part to take; all and train are the training part where the source holds one out, heldout is that",
        choices=SPLITS,
        panel=_WHICH,
    )
    skip_bad: bool = option(False, "Count and list unusable files instead of stopping", panel=_WHICH)


@dataclass(frozen=True, kw_only=True)
class CorruptOptions(Checked):
    """Which noise is written down: that of a training with the same values."""

    sigma_n: float = option(
        REQUIRED, "Standard deviation of the noise in units of [-1, 1]", key="sigma", above=0, in_files=False
    )
    noise: str = option("", f"Kind of the noise: {help_for_added()}", shown_default="white")
    share: float = option(1.0, "Share of noisy training images", at_least=0, at_most=1)
    seed: int = option(0, "Which images are noisy, and with which noise")
    resolution: int | None = option(None, "Area-resize to this side first", at_least=2, shown_default="as it is")


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(Checked):
    """How images are read; no byte of a result depends on it."""

    workers: int | None = option(
        None,
        "Threads that decode; changes no byte",
        at_least=1,
        shown_default="one a core, one for small files and, always, several stacks",
        panel=_MACHINE,
    )
