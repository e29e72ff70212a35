"""What a run is judged by on held-out images while it trains, and which of its checkpoints does best on them.

With clean held-out images it is their denoising error (`evaluation.denoising`). One half of them chooses the
checkpoint, by the nats of a quick part; the other half is what the chosen one is scored on, so that the choice does not
flatter the score. Without clean images the proximal score chooses (`evaluation.proximal`).

The points at which candidates are compared depend on the number of images alone, not on the duration, so that a run
that is continued has the same candidates as one that was long from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from ambient_theory.shared.errors import DataError
from ambient_train.data.images import ImageSet
from ambient_train.data.noise_models import noise_of_images
from ambient_train.diffusion.generate import denoiser, generate
from ambient_train.diffusion.sampler_settings import OneStep
from ambient_train.evaluation.denoising import (
    LEVELS,
    QUICK_IMAGES,
    QUICK_LEVELS,
    DenoisingError,
    denoising_error,
    halves,
    images_hash,
    log_levels,
    quick_part,
    total_nats,
)
from ambient_train.evaluation.features import Extractor, get_extractor
from ambient_train.evaluation.metrics._base import Score
from ambient_train.evaluation.own_references import clean_part, heldout_images, noisy_part
from ambient_train.evaluation.proximal import noisy_reference, proximal_scores
from ambient_train.evaluation.references import Reference
from ambient_train.networks.precond import EDMPrecond
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig

FIRST_POINT, POINTS_PER_DOUBLING = 4096, 2
"""Candidates are compared first after so many images, then so often each time their number doubles."""

PROXIMAL_IMAGES = 512
"""Images generated for a proximal score during training."""


def candidate_points(batch: int, upto: int) -> tuple[int, ...]:
    """Image counts, whole steps, at which candidates are compared: 4,096, 5,793, 8,192, ... up to `upto`."""
    out, k = [], 0
    while (n := round(FIRST_POINT * 2 ** (k / POINTS_PER_DOUBLING))) <= upto:
        out.append(-(-n // batch) * batch)
        k += 1
    return tuple(dict.fromkeys(p for p in out if p <= upto))


@dataclass(frozen=True)
class HeldOut:
    """The held-out images of a run's data, and what is measured on them.

    A distilled generator is no denoiser: it has no such error, and no checkpoint is chosen by it.
    """

    config: TrainConfig
    evaluation: EvalConfig

    @cached_property
    def clean(self) -> ImageSet | None:
        """Clean held-out images, at most as many as the evaluation asks for; None where there are too few."""
        c, wanted = self.config, self.evaluation.denoise
        every = heldout_images(c.data, c.resolution, c.holdout)
        if every is None or wanted < 2:
            return None
        clean = clean_part(every)
        chosen = quick_part(clean.ids, self.evaluation.seed, wanted)
        return clean.subset(chosen) if len(chosen) >= 2 else None

    @cached_property
    def noisy(self) -> ImageSet | None:
        """Held-out images that came with noise; None where there is none."""
        c = self.config
        every = heldout_images(c.data, c.resolution, c.holdout)
        return None if every is None else noisy_part(every)

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels at which the denoising error is measured: over the range of the sampler."""
        return log_levels(*self._bounds, LEVELS)

    @property
    def _bounds(self) -> tuple[float, float]:
        sampler = self.evaluation.sampler
        assert not isinstance(sampler, OneStep)
        return sampler.bounds

    @property
    def criterion(self) -> str:
        """What chooses a checkpoint: `denoise`, `proximal`, or empty where nothing can."""
        if not self.evaluation.best or self.config.one_step:
            return ""
        if self.clean is not None and len(self.clean) >= 4:
            return "denoise"
        return "proximal" if self.noisy is not None and len(self.noisy) >= 2 and self._proximal_features else ""

    @property
    def _proximal_features(self) -> tuple[str, ...]:
        return self.evaluation.extractors[:1]

    def error(self, network: EDMPrecond, *, half: bool, device: torch.device) -> DenoisingError | None:
        """E(s) of the network on the clean held-out images, or on the half that chooses no checkpoint."""
        images = None if self.config.one_step else self.clean
        if images is None:
            return None
        if self.criterion != "denoise":
            return self._measure(network, images, self.levels, device)
        both = halves(images.ids, self.evaluation.seed)
        if half:
            return self._measure(network, images.subset(both[1]), self.levels, device)
        return self._measure(network, images, self.levels, device, groups=both)

    def half_of(self, error: DenoisingError | None) -> DenoisingError | None:
        """What `error` with `half` would measure again of the same network, out of what it found without."""
        if error is None or self.criterion != "denoise":
            return error
        assert self.clean is not None
        chosen = halves(self.clean.ids, self.evaluation.seed)[1]
        alone = self.clean.subset(chosen)
        return replace(error.part(chosen), images=images_hash(alone.images, alone.ids))

    def quick(self, network: EDMPrecond, device: torch.device) -> float | None:
        """The number by which candidates are compared, smaller is better; None where nothing can be measured."""
        if self.criterion == "denoise":
            assert self.clean is not None
            seed = self.evaluation.seed
            images = self.clean.subset(halves(self.clean.ids, seed)[0])
            images = images.subset(quick_part(images.ids, seed, QUICK_IMAGES))
            levels = log_levels(*self._bounds, QUICK_LEVELS)
            return total_nats(self._measure(network, images, levels, device)).value
        if self.criterion == "proximal":
            return self._proximal(network, device)
        return None

    def _measure(
        self,
        network: EDMPrecond,
        images: ImageSet,
        levels: Sequence[float],
        device: torch.device,
        groups: Sequence[np.ndarray] | None = None,
    ) -> DenoisingError:
        labels = None
        if network.label_dim:
            if images.labels is None:
                raise DataError(f"{images.name}: the network is told classes, and the held-out images have none")
            labels = torch.nn.functional.one_hot(torch.from_numpy(images.labels), network.label_dim).float()
        was_training = network.training
        network.eval()
        try:
            return denoising_error(
                denoiser(network, self.config.precision),
                images.images,
                images.ids,
                levels,
                seed=self.evaluation.seed,
                class_labels=labels,
                groups=groups,
                device=device,
            )
        finally:
            network.train(was_training)

    @cached_property
    def noisy_reference(self) -> Reference | None:
        """Held-out noisy images as a reference for proximal scores."""
        return None if self.noisy is None or len(self.noisy) < 2 else noisy_reference(self.noisy.images)

    def _proximal(self, network: EDMPrecond, device: torch.device) -> float | None:
        evaluation = self.evaluation
        seeds = range(evaluation.seed, evaluation.seed + min(PROXIMAL_IMAGES, evaluation.n))
        made = generate(network, seeds, evaluation.sampler, precision=self.config.precision, device=device)
        features = [get_extractor(name) for name in self._proximal_features]
        scores = self.proximal_scores(np.concatenate(list(made)), features, ("fd",))
        return scores[0].value if scores else None

    def proximal_scores(
        self, generated: np.ndarray, extractors: Sequence[Extractor], metrics: Sequence[str]
    ) -> list[Score]:
        """Scores of generated images, noised as the data are, against held-out noisy ones; empty without such."""
        if self.noisy is None or self.noisy_reference is None or self.noisy.sigma_n is None:
            return []
        return proximal_scores(
            generated,
            self.noisy_reference,
            self.noisy.sigma_n,
            extractors,
            metrics,
            seed=self.evaluation.seed,
            noise=noise_of_images(self.noisy),
        )
