"""Clean and noisy parts of a data set: who is noisy, and the one fixed noise of each noisy image.

What noise is, a noise model says; for white noise y_i = x_i + sigma_n z_i. z_i is a function of (seed, image id) alone:
the same in every epoch, process and run (Daras, Cherapanamjeri, Daskalakis 2024, arXiv 2411.02780). Pixels are in units
of [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train import stateless
from ambient_train.data.counts import check_counts
from ambient_train.data.images import ImageSet
from ambient_train.data.noise_models import added_noise, noise_of_images
from ambient_train.data.noise_models.white import MEMBER as WHITE
from ambient_train.data.placed import Placed

if TYPE_CHECKING:
    from ambient_train.data.noise_models._base import NoiseModel


@dataclass(frozen=True)
class TrainingSet:
    """Images with a noise level each, sorted by level so that those below a diffusion level are a prefix.

    source: the clean images that were chosen, in this order. sigma_n: [N] float64, strength of the noise of each image
    as it is given to training. added: [N] bool, True where noise of strength sigma_n is added here (False where the
    image is clean or came with its noise). seed: keys the noise. noise: what kind of noise it is, in this order.
    told_sigma: what the training is told of every noisy image instead (a control), None for the truth.
    """

    source: ImageSet
    sigma_n: Tensor
    added: Tensor
    seed: int
    noise: NoiseModel = field(default=WHITE)
    told_sigma: float | None = None

    def __len__(self) -> int:
        return len(self.sigma_n)

    @property
    def n_clean(self) -> int:
        return int((self.sigma_n == 0).sum())

    @property
    def n_noisy(self) -> int:
        return len(self) - self.n_clean

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        c, h, w = self.source.images.shape[1:]
        return c, h, w

    @property
    def told(self) -> Tensor:
        """[N] float64, ascending: the strength of noise that the training is told of."""
        if self.told_sigma is None:
            return self.sigma_n
        return self.sigma_n.new_full((), self.told_sigma).where(self.sigma_n > 0, 0.0)

    @property
    def levels(self) -> Tensor:
        """[N] float64, ascending: the diffusion level above which each image can be used, as far as is told."""
        return self.noise.lowest_level(self.told)

    def clean_images(self) -> ImageSet:
        """The images that are used without noise."""
        return self.source.subset(np.flatnonzero((self.sigma_n == 0).numpy()))

    def batch(self, index: Tensor) -> Tensor:
        """Images [B, C, H, W] float32 at positions `index` [B]: clean pixels, or y with its one fixed noise."""
        positions = index.numpy()
        y = torch.from_numpy(self.source.pixels(positions))
        rows = torch.nonzero(self.added[index])[:, 0]
        if len(rows):
            ids = torch.from_numpy(self.source.ids[positions[rows.numpy()]])
            noise = self.noise.at(index[rows])
            y[rows] = noise.corrupt(y[rows], self.sigma_n[index[rows]], noise.noise(self.seed, ids, self.shape))
        return y

    def on(self, device: torch.device) -> Placed:
        """The set where it is trained on; what is kept there serves all trainings of this process."""
        places: dict[torch.device, Placed] = self.__dict__.setdefault("_places", {})  # frozen, and no field of it
        if device not in places:
            places[device] = Placed(self, device)
        return places[device]

    def labels(self, index: Tensor) -> Tensor | None:
        """Class labels [B] int64, or None for unlabelled data."""
        return None if self.source.labels is None else torch.from_numpy(self.source.labels[index.numpy()])


def corrupt(
    source: ImageSet,
    *,
    n_clean: int,
    n_noisy: int,
    sigma_n: float,
    seed: int,
    noise: str = "",
    told_sigma: float | None = None,
) -> TrainingSet:
    """Choose n_clean clean and n_noisy noisy images; sigma_n is the strength of the noise of the noisy ones.

    noise: kind of the noise added here, as `noise_models.added_noise` reads it; "" is that of the noise that came with
    the images (their maps of pixels in turn, each at strength sigma_n), white where none came. told_sigma: see
    `TrainingSet`.

    One random order of the ids, keyed by `seed`, decides: the first n_clean images stay clean, the n_noisy from the
    other end become noisy. So clean subsets are nested across budgets, noisy sets across shares, the two are disjoint,
    and which images are used never depends on sigma_n. Images that came with noise (`source.sigma_n > 0`) are taken as
    they are and count as noisy first; they are never noised again.
    Raises UsageError on an impossible request.
    """
    check_counts(len(source), source.already_noisy, n_clean=n_clean, n_noisy=n_noisy, sigma_n=sigma_n)
    given = np.zeros(len(source.ids), dtype=bool) if source.sigma_n is None else np.asarray(source.sigma_n) > 0
    rank = stateless.order(seed, "subset", torch.from_numpy(source.ids)).numpy()
    pure, noisy_given = rank[~given[rank]], rank[given[rank]]
    clean = pure[:n_clean]
    already = noisy_given[:n_noisy]
    fresh = pure[len(pure) - (n_noisy - len(already)) :] if n_noisy > len(already) else pure[:0]
    fresh_sigma = np.full(len(fresh), float(sigma_n))
    chosen = np.concatenate([clean, fresh, already])
    level = np.concatenate(
        [np.zeros(len(clean)), fresh_sigma, source.sigma_n[already] if source.sigma_n is not None else np.zeros(0)]
    ).astype(np.float64)
    added = np.concatenate([np.zeros(len(clean), bool), fresh_sigma > 0, np.zeros(len(already), bool)])
    images = source.subset(chosen)
    # from the end, where the fresh ones of a smaller share are the last
    like = np.concatenate([clean, source.noisy_in_turn(len(fresh))[::-1], already])
    model = noise_of_images(source).at(torch.from_numpy(like))
    if noise and not (added.any() or not already.size):
        raise UsageError(f"--noise {noise} is of noise that is added, and all noise came with the images: leave it out")
    if noise:
        asked = added_noise(noise, (source.channels, source.resolution, source.resolution))
        if len(already) and not (asked.white and model.white):
            raise UsageError(
                f"--noise {noise}: {source.noise_summary()}, and one set has one kind of noise: leave --noise out, so "
                "that noise of their kind is added"
            )
        model = asked
    by_level = torch.argsort(model.lowest_level(torch.from_numpy(level)), stable=True)
    order = by_level.numpy()
    return TrainingSet(
        images.subset(order),
        torch.from_numpy(level[order]),
        torch.from_numpy(added[order]),
        seed,
        model.at(by_level),
        told_sigma,
    )
