"""Scores without a clean image: generated images made as noisy as the data, against held-out noisy images.

If generated images x' have the law of the clean x, then x' + noise of the data's own strengths has the law of the data,
and any distance of the two is at its floor. The converse holds for additive noise whose characteristic function has no
zero, as Gaussian noise has: the distance of the noisy laws is 0 only if that of the clean ones is. It is a *proximal*
score: the noise blurs differences finer than itself, so it ranks models by what can be seen through the noise.

Both sides are clipped and rounded to uint8 in the same way, as every score here does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from ambient_theory.shared.errors import DataError
from ambient_train import stateless
from ambient_train.data.images import to_pixels, to_uint8
from ambient_train.data.noise_models.white import MEMBER as WHITE
from ambient_train.evaluation.features import Extractor
from ambient_train.evaluation.references import Reference
from ambient_train.evaluation.scores import score_images

if TYPE_CHECKING:
    from ambient_train.data.noise_models._base import NoiseModel
    from ambient_train.evaluation.scores import Score

REFERENCE = "heldout-noisy"
"""Name of the reference in these scores."""
_CHUNK = 1000


def corrupt_like(
    generated: npt.NDArray[Any], sigma_n: npt.ArrayLike, *, seed: int, noise: NoiseModel = WHITE
) -> npt.NDArray[np.float32]:
    """Generated images with noise of strengths drawn from the data's own: float32 [n, C, H, W], not clipped.

    generated: uint8 or float32 in units of [-1, 1]. sigma_n [m]: strengths of the data's noisy images; image k gets one
    of them, and its noise, as a function of (seed, k) alone. noise: the model of those noisy images, in their order.
    """
    given = np.asarray(sigma_n, np.float64)
    order = np.argsort(given, kind="stable")
    levels = given[order]
    if not len(levels) or not (np.isfinite(levels).all() and levels[0] >= 0):
        raise DataError("the strengths of the data's noise must be finite numbers >= 0, and one at least")
    number = torch.arange(len(generated))
    u = stateless.uniform(seed, "proximal-level", number)[:, 0].numpy()
    chosen = np.minimum((u * len(levels)).astype(np.int64), len(levels) - 1)
    strengths, rows = torch.from_numpy(levels[chosen]), torch.from_numpy(order[chosen])
    parts = []
    for index in number.split(_CHUNK):
        x = torch.from_numpy(to_pixels(generated[index.numpy()]))
        # images of data have ids >= 0: with negative ones no noise of the data is used again
        model = noise.at(rows[index])
        z = model.noise(seed, -1 - index, x.shape[1:])
        parts.append(model.corrupt(x, strengths[index], z))
    return torch.cat(parts).numpy()


def noisy_reference(noisy: npt.NDArray[Any]) -> Reference:
    """Held-out noisy images [m, C, H, W], uint8 or float32 in units of [-1, 1], as a reference for many scores."""
    return Reference(REFERENCE, to_uint8(noisy))


def proximal_scores(
    generated: npt.NDArray[Any],
    reference: Reference,
    sigma_n: npt.ArrayLike,
    extractors: Sequence[Extractor],
    metrics: Sequence[str] | None = None,
    *,
    seed: int = 0,
    noise: NoiseModel = WHITE,
) -> list[Score]:
    """Scores of generated images, noised as the data are, against held-out noisy images (see the module).

    reference: `noisy_reference` of images whose strengths are `sigma_n` [m]. metrics: those that need a reference, by
    any extractor; see `score_images`. Raises what that raises.
    """
    noised = to_uint8(corrupt_like(generated, sigma_n, seed=seed, noise=noise))
    scores = score_images(noised, {reference.name: reference}, extractors, metrics)
    return [
        replace(score, method=f"proximal, generated images noised as the data are; {score.method}") for score in scores
    ]
