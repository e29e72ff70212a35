"""What `restore` can be asked for. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Checked, option

LEAST_SAMPLES = 2
_WHAT, _HOW, _MACHINE = "What is restored", "How", "Machine and processes"


@dataclass(frozen=True, kw_only=True)
class RestoreOptions(Checked):
    """Which noisy images are restored, and how. Raises UsageError for what contradicts itself."""

    data: str | None = option(
        None,
        "Noisy images of another source (a path or a name), of the size and channels of the network",
        shown_default="the noisy images that the run was trained on",
        panel=_WHAT,
    )
    sigma_n: float | None = option(
        None,
        "Noise of the images of --data where they state none, or the noise added with --heldout: a standard deviation "
        "in units of [-1, 1]",
        key="sigma",
        above=0,
        shown_default="as stated by the images; for --heldout the levels of the run",
        panel=_WHAT,
    )
    heldout: bool = option(
        False,
        "Restore the run's held-out clean images, noised here: a score on images that the network never saw",
        panel=_WHAT,
    )
    originals: str | None = option(
        None, "Clean originals of --data, in the same order, to score against", shown_default="none", panel=_WHAT
    )
    resolution: int | None = option(
        None, "Area-resize --data and --originals to this side", shown_default="as they are", panel=_WHAT
    )
    max_images: int | None = option(
        None, "At most so many images, drawn by a hash of the id", at_least=1, shown_default="all", panel=_WHAT
    )
    samples: int = option(
        39,
        "Posterior samples an image, from which standard deviation and quantiles are taken; 0 = the posterior mean "
        "alone. 19, 39, 59, ... make the 90 % interval exact",
        at_least=0,
        panel=_HOW,
    )
    steps: int = option(18, "Noise levels of a sample, two evaluations each", at_least=2, panel=_HOW)
    sweeps: int = option(
        12,
        "Sweeps of the sampler under noise that is not white, half of STEPS levels each but the last; unused for white "
        "noise",
        at_least=2,
        panel=_HOW,
    )
    sigma_min: float | None = option(
        None, "Lowest noise level", above=0, shown_default="that of the run's sampler", panel=_HOW
    )
    seed: int = option(
        0, "Sample k of an image is a function of the seed, the image's id and k", at_least=0, panel=_HOW
    )
    keep_samples: bool = option(False, "Also write all samples, as float32", panel=_HOW)
    batch: int = option(256, "Noisy images at once", at_least=1, panel=_MACHINE)
    device: str = option("auto", "auto, cpu, cuda or cuda:N", panel=_MACHINE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.samples < LEAST_SAMPLES:
            raise UsageError(f"samples {self.samples} gives no spread: give 0 (the posterior mean alone), or 2 or more")
        if self.keep_samples and not self.samples:
            raise UsageError("keep_samples with samples 0: there are none to keep")
        if self.heldout and self.data is not None:
            raise UsageError("--heldout is of the run's own data: leave --data out")
        if self.originals is not None and self.data is None:
            raise UsageError("--originals are the clean ones of --data: give both, or neither")
        if self.resolution is not None and self.data is None:
            raise UsageError("--resolution: the run's own images have the size it was trained on; it is for --data")
        if self.sigma_n is not None and self.data is None and not self.heldout:
            raise UsageError("--sigma: the levels of the run's own images are known; it is for --data and --heldout")
