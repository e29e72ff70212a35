"""From a network to images: the denoiser under the training's precision, and batches of uint8 images, one a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train.data.images import to_uint8
from ambient_train.diffusion.sampling import Sampler, sample
from ambient_train.networks.execution import autocast
from ambient_train.networks.precond import EDMPrecond


def denoiser(network: EDMPrecond, precision: str) -> Callable[..., Tensor]:
    """The network as a function (x, sigma, class_labels) -> D under autocast of the training's precision."""

    def denoise(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        with autocast(x.device, precision):
            return network(x, sigma, class_labels=class_labels)

    return denoise


def generate(
    network: EDMPrecond,
    seeds: Sequence[int],
    sampler: Sampler,
    *,
    precision: str = "fp32",
    batch: int = 256,
    device: torch.device | str = "cpu",
    classes: int | Sequence[int] | None = None,
) -> Iterator[np.ndarray]:
    """Batches of uint8 images [b, C, H, W], one per seed, in order.

    classes: for a conditional network one class for all, one per seed, or None: class `seed mod label_dim`.
    Raises UsageError for a class the network does not have.
    """
    labels = None
    if network.label_dim:
        if classes is None:
            chosen = [s % network.label_dim for s in seeds]
        else:
            chosen = [classes] * len(seeds) if isinstance(classes, int) else list(classes)
        if chosen and not 0 <= min(chosen) <= max(chosen) < network.label_dim:
            raise UsageError(f"class {max(chosen)}: this network has classes 0 to {network.label_dim - 1}")
        labels = torch.nn.functional.one_hot(torch.tensor(chosen), network.label_dim).float()
    elif classes is not None:
        raise UsageError("a class was asked for, but this network was trained without labels")
    shape = (network.img_channels, network.img_resolution, network.img_resolution)
    was_training = network.training
    network.eval()
    try:
        for images in sample(
            denoiser(network, precision), seeds, shape, sampler, batch=batch, device=device, class_labels=labels
        ):
            yield to_uint8(images)
    finally:
        network.train(was_training)
