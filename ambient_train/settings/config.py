"""The frozen configuration of a training: what determines its weights, and nothing else.

Devices, processes, workers, logging and the duration are not here, so that a run can move, and grow. Every field is an
option (`shared.options`): the flag, its help, the key in files and the table in the docs are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.files import content_hash
from ambient_theory.shared.options import Checked, by_key, describe, from_mapping, option
from ambient_train.data.noise_models import help_for_added, kind_of
from ambient_train.data.readers import source_help
from ambient_train.diffusion.draws import TABLE as DRAWS
from ambient_train.diffusion.losses import TABLE as WEIGHTS

OPTIMIZERS = ("adam", "muon")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "auto")
AUTO = "auto"
"""The precision that is settled when a run begins; see `runs.precision`."""

_DATA, _LOSS, _OPTIMISER, _NETWORK = "Data and noise", "Loss and draws", "Optimiser and averages", "Network"
_CONSISTENCY, _DISTILL = "Consistency", "Distillation"
LABELLINGS = ("own", "edm")
FORMS = ("unbiased", "paper")
"""Of the consistency loss; see `diffusion.consistency`."""
BY_PRESET = "by preset"
_OF_THE_DATA = {
    *(
        "resolution",
        "holdout",
        "max_images",
        "data_hash",
        "n_clean",
        "n_noisy",
        "sigma",
        "noise_hash",
        "seed",
        "teacher",
    )
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Checked):
    """Everything that determines the weights after a given number of images. Raises UsageError where a rule is broken.

    data_hash, n_clean and n_noisy are what `resolve` found; the rest is what was asked for or preset.
    """

    data: str = option(
        "digits",
        f"Images: {source_help()}. Not part of what names a run: the same images under another path are the same data",
        hashed=False,
        panel=_DATA,
    )
    resolution: int | None = option(
        None, "Area-resize to this side in pixels", at_least=2, shown_default="as is, or by preset", panel=_DATA
    )
    holdout: float | None = option(
        None,
        "Share of the images held out for scores",
        at_least=0,
        below=1,
        shown_default="the data's own test part, else .2 for digits, .1 for others",
        panel=_DATA,
    )
    max_images: int | None = option(
        None, "Use at most so many training images", at_least=1, shown_default="all", panel=_DATA
    )
    data_hash: str = option(
        "", "Content of the training images; found, not asked for", on_command_line=False, in_files=False
    )
    n_clean: int = option(0, "Clean images; found from the amounts", on_command_line=False, in_files=False, at_least=0)
    n_noisy: int = option(0, "Noisy images; found from the amounts", on_command_line=False, in_files=False, at_least=0)
    sigma_n: float = option(
        0.0,
        "Noise added to the noisy images: its standard deviation in units of [-1, 1]; needs a share or a number of "
        "noisy images",
        key="sigma",
        at_least=0,
        panel=_DATA,
    )
    noise: str = option(
        "",
        f"Kind of the noise that is added to the noisy images: {help_for_added()}",
        shown_default="that of the images that came noisy, else white",
        hashed=False,
        added_later=True,
        panel=_DATA,
    )
    noise_hash: str = option(
        "",
        "Content of the noise that is added, empty for white; found, not asked for",
        on_command_line=False,
        in_files=False,
        added_later=True,
    )
    told_sigma: float | None = option(
        None,
        "Noise of the noisy images that the training is told of instead of the true one, 0 = that they are clean. A "
        "control: it shows what knowing the noise is worth, and biases the model",
        at_least=0,
        shown_default="the truth",
        added_later=True,
        panel=_DATA,
    )
    arch: str = option(
        "SmallUNet",
        "Network: ddpmpp, ncsnpp, adm (EDM's) or SmallUNet",
        shown_default=BY_PRESET,
        panel=_NETWORK,
    )
    network: Mapping[str, Any] = option(
        dict,
        "Keywords of the network. Two have flags (--width, --channel-mult); the others differ from network to network "
        "and are given in a file",
        on_command_line=False,
    )
    cond: bool = option(False, "Train with class labels", panel=_NETWORK)
    batch: int = option(128, "Images a step", at_least=1, shown_default=BY_PRESET, panel=_OPTIMISER)
    optimizer: str = option(
        "adam",
        "adam, or muon (orthogonalised momentum) for hidden weights with Adam for the rest",
        choices=OPTIMIZERS,
        shown_default=BY_PRESET,
        added_later=True,
        panel=_OPTIMISER,
    )
    muon_lr: float = option(
        2e-2,
        "Peak learning rate of Muon: the root mean square of an update is .2 of it",
        above=0,
        shown_default=BY_PRESET,
        added_later=True,
        panel=_OPTIMISER,
    )
    lr: float = option(2e-3, "Peak learning rate of Adam", above=0, shown_default=BY_PRESET, panel=_OPTIMISER)
    lr_ramp_nimg: int = option(
        10_000,
        "Images of linear warm-up",
        at_least=0,
        form="images",
        shown_default=BY_PRESET,
        panel=_OPTIMISER,
        flag="--lr-ramp",
    )
    lr_decay_nimg: int = option(
        0,
        "From so many images on the learning rate falls like their inverse square root, 0 = never (Karras et al. 2024)",
        at_least=0,
        form="images",
        flag="--lr-decay",
        panel=_OPTIMISER,
    )
    weight_decay: float = option(0.0, "Weight decay of AdamW, 0 = plain Adam", at_least=0, panel=_OPTIMISER)
    grad_clip: float = option(0.0, "Largest norm of the gradient, 0 = no limit", at_least=0, panel=_OPTIMISER)
    ema_halflife_nimg: int = option(
        20_000,
        "Half-life of the averaged weights, in images",
        at_least=0,
        form="images",
        flag="--ema",
        shown_default=BY_PRESET,
        panel=_OPTIMISER,
    )
    ema_ramp: float = option(
        0.05,
        "Largest half-life as a share of the images seen, 0 = no ramp",
        at_least=0,
        shown_default=BY_PRESET,
        panel=_OPTIMISER,
    )
    weight: str = option("x0", "Loss weight; y is the paper's", choices=lambda: WEIGHTS.names, panel=_LOSS)
    draw: str = option("clean-first", "How noise level and image are drawn", choices=lambda: DRAWS.names, panel=_LOSS)
    draw_epochs: float = option(
        100.0,
        "Epochs of the clean images within which noisy ones come in, for the draw clean-first",
        at_least=0,
        added_later=True,
        panel=_LOSS,
    )
    buffer: float = option(1.05, "A noisy image is used above buffer times its own noise", at_least=1, panel=_LOSS)
    weight_cap: float = option(10.0, "Largest relative weight of an image under `optimal`", above=0, panel=_LOSS)
    consistency: float = option(
        0.0,
        "Weight of the consistency loss, which trains the denoiser below the noise of the data, 0 = none",
        at_least=0,
        added_later=True,
        panel=_CONSISTENCY,
    )
    consistency_form: str = option(
        "unbiased",
        "Two independent halves of the samples, or one squared mean as published",
        choices=FORMS,
        added_later=True,
        panel=_CONSISTENCY,
    )
    consistency_samples: int = option(
        2, "Samples at the lower level of each image", at_least=2, added_later=True, panel=_CONSISTENCY
    )
    consistency_steps: int = option(
        1, "Steps of the reverse SDE between two levels", at_least=1, added_later=True, panel=_CONSISTENCY
    )
    consistency_batch: int | None = option(
        None,
        "Images of the consistency loss a step, all of them noisy",
        at_least=1,
        shown_default="a sixteenth of the batch",
        added_later=True,
        panel=_CONSISTENCY,
    )
    consistency_span: float = option(
        1.0,
        "Largest ln(sigma/lower) of the two levels that are compared",
        above=0,
        added_later=True,
        panel=_CONSISTENCY,
    )
    consistency_sigma_min: float = option(
        0.01, "Lowest upper level of the consistency loss", above=0, added_later=True, panel=_CONSISTENCY
    )
    distill: str = option(
        "",
        "Run to distill: train a generator that makes an image in one step, with the run's averaged network as teacher "
        "and on the run's own data and loss",
        hashed=False,
        added_later=True,
        panel=_DISTILL,
    )
    distill_at: int | None = option(
        None,
        "The teacher is the run's checkpoint after so many images",
        at_least=1,
        form="images",
        hashed=False,
        shown_default="the newest",
        added_later=True,
        panel=_DISTILL,
    )
    distill_alpha: float = option(
        1.2, "Weight of the squared score difference", at_least=0, added_later=True, panel=_DISTILL
    )
    distill_sigma: float = option(
        2.5, "Noise level of the generator's input", above=0, added_later=True, panel=_DISTILL
    )
    teacher: str = option(
        "",
        "Which weights were distilled; found, not asked for",
        on_command_line=False,
        in_files=False,
        added_later=True,
    )
    init: str = option(
        "",
        "Begin from the averaged weights of a trained network instead of random ones: a run directory, a hub "
        "directory, hf:ORGANISATION/NAME or an EDM snapshot of the same architecture. Prices are then what images are "
        "worth to a network that knows its images already",
        hashed=False,
        added_later=True,
        panel=_OPTIMISER,
    )
    start: str = option(
        "",
        "Content of the weights that it begins from; found, not asked for",
        on_command_line=False,
        in_files=False,
        added_later=True,
    )
    precision: str = option(
        "fp32",
        "Arithmetic of the network: fp32 in all its operations; tf32, GPUs' own rounding of their inputs to 10 bits; "
        "bf16, fast only on processors that have it; fp16, with a factor on the loss that adapts; auto: bf16 where the "
        "device has it, else fp32, settled when a run begins and kept",
        choices=PRECISIONS,
        shown_default=BY_PRESET,
        panel=_OPTIMISER,
    )
    loss_scale: float = option(
        1.0,
        "First factor on the loss in fp16, 1 = 65,536: it is halved when a gradient overflows, which leaves that step "
        "out, and doubled after 2,000 steps without",
        above=0,
        panel=_OPTIMISER,
    )
    dropout: float = option(0.0, "Probability of dropout", at_least=0, below=1, shown_default=BY_PRESET, panel=_NETWORK)
    augment: float = option(
        0.0,
        "Probability of each augmentation that keeps the noise what it is",
        at_least=0,
        at_most=1,
        shown_default=BY_PRESET,
        panel=_DATA,
    )
    augment_labels: str = option(
        "own",
        "What the network is told of the augmentations: own, with the y axis downwards; edm, as EDM's released "
        "networks know it and --compat paper has it: upwards, and every other anisotropy along the axes",
        choices=LABELLINGS,
        added_later=True,
        panel=_DATA,
    )
    xflip: bool = option(False, "Mirror images at random", panel=_DATA)
    seed: int = option(0, "Keys every random draw", panel=_OPTIMISER)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise:
            kind_of(self.noise)
        loss, draw = WEIGHTS[self.weight], DRAWS[self.draw]
        if draw.reaches_lowest_level and not loss.finite_at_lowest_level:
            raise UsageError(
                f"draw {self.draw!r} has draws at sigma = sigma_n, where weight {self.weight!r} is infinite: "
                "use weight 'y'"
            )
        if not loss.finite_at_lowest_level and not self.buffer > 1:
            raise UsageError(
                f"weight {self.weight!r} grows without bound as sigma approaches sigma_n: use a buffer > 1"
            )

        if not draw.ramps and self.draw_epochs != type(self).draw_epochs:
            raise UsageError(f"draw {self.draw!r} has no epochs in which noisy images come in: leave draw_epochs out")
        self._check_consistency()
        self._check_distillation()

    def _check_distillation(self) -> None:
        """Raise UsageError for details of a distillation that is not asked for, and for the loss that it has not."""
        details = [d for d in describe(type(self)) if d.key.startswith("distill_")]
        if not (self.distill or self.teacher):
            if idle := [d.key for d in details if getattr(self, d.name) != d.default]:
                raise UsageError(f"{', '.join(idle)} without a run to distill: add --distill RUN, or leave it out")
        elif self.init:
            raise UsageError("a distillation begins from its teacher: leave --init out")
        elif self.consistency:
            raise UsageError("a distillation has no consistency loss: leave --consistency out")

    @property
    def one_step(self) -> bool:
        """Whether the network is a generator that was distilled, no denoiser."""
        return bool(self.teacher)

    def _check_consistency(self) -> None:
        """Raise UsageError for details of a loss that is not asked for, and for samples without two halves."""
        details = [d for d in describe(type(self)) if d.key.startswith("consistency_")]
        if self.consistency == 0 and (idle := [d.key for d in details if getattr(self, d.name) != d.default]):
            raise UsageError(f"{', '.join(idle)} without a consistency loss: add --consistency WEIGHT, or leave it out")
        if self.consistency_form == "unbiased" and self.consistency_samples % 2:
            raise UsageError(
                f"consistency_samples {self.consistency_samples} does not divide into two halves: give an even number"
            )

    def identity(self) -> dict[str, Any]:
        """What names the training: every setting that is hashed, by key; Muon's rate only where there is Muon, the
        labels of augmentation only where there is one."""
        values = self.to_dict()
        named = (d for d in describe(type(self)) if d.option.hashed)
        if self.optimizer != "muon":
            named = (d for d in named if d.name != "muon_lr")
        if self.augment == 0:
            named = (d for d in named if d.name != "augment_labels")
        return {d.key: values[d.key] for d in named if not (d.option.added_later and values[d.key] == d.default)}

    def training(self) -> dict[str, Any]:
        """What of `identity` says how was trained, whatever the data, the seed and the teacher."""
        return {k: v for k, v in self.identity().items() if k not in _OF_THE_DATA}

    @property
    def hash(self) -> str:
        """8 hex digits that name this training."""
        return content_hash(self.identity())

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> TrainConfig:
        """Inverse of `to_dict`. Raises UsageError for an unknown key or a value of the wrong type."""
        return from_mapping(cls, d, "config key")

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """`key: theirs -> ours` for each setting that names a training and differs in a stored config."""
        mine = self.identity()
        try:
            theirs: Mapping[str, Any] = TrainConfig.from_dict(other).identity()
        except UsageError:  # of another version
            unnamed = {d.key for d in by_key(type(self)).values() if not d.option.hashed}
            theirs = {k: v for k, v in other.items() if k not in unnamed}
        keys = sorted(set(mine) | set(theirs))
        return [f"{k}: {theirs.get(k)!r} -> {mine.get(k)!r}" for k in keys if mine.get(k) != theirs.get(k)]
