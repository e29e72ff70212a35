"""From a network to images: the denoiser under the training's precision, and batches of uint8 images, one a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train import stateless
from ambient_train.data.images import to_uint8
from ambient_train.diffusion.ablation_sampler import general_sampler
from ambient_train.diffusion.sampler_settings import AnySampler, GeneralSamplerConfig, OneStep
from ambient_train.diffusion.sampling import SEEDS_END, Denoiser, edm_sampler
from ambient_train.networks.execution import arithmetic, autocast
from ambient_train.networks.precond import EDMPrecond


def denoiser(network: EDMPrecond, precision: str) -> Callable[..., Tensor]:
    """The network as a function (x, sigma, class_labels) -> D under autocast of the training's precision."""

    def denoise(x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        with arithmetic(precision), autocast(x.device, precision):
            return network(x, sigma, class_labels=class_labels)

    return denoise


def generate(
    network: EDMPrecond,
    seeds: Sequence[int],
    sampler: AnySampler,
    *,
    precision: str = "fp32",
    batch: int = 256,
    device: torch.device | str = "cpu",
    classes: int | Sequence[int] | None = None,
    floats: bool = False,
) -> Iterator[np.ndarray]:
    """Batches of uint8 images [b, C, H, W], one per seed, in order; with `floats` as float32 in units of [-1, 1].

    classes: for a conditional network one class for all, one per seed, or None: class `seed mod label_dim`.
    Raises UsageError for a class the network does not have and for a seed that is too large, before the first one is
    made.
    """
    if beyond := [s for s in seeds if abs(s) >= SEEDS_END]:
        raise UsageError(f"seed {beyond[0]}: a seed is a whole number below 10^15")
    labels = _labels(network, seeds, classes)
    shape = (network.img_channels, network.img_resolution, network.img_resolution)

    def batches() -> Iterator[np.ndarray]:
        was_training = network.training
        network.eval()
        try:
            for images in sample(
                denoiser(network, precision), seeds, shape, sampler, batch=batch, device=device, class_labels=labels
            ):
                yield images.to("cpu").numpy() if floats else to_uint8(images)
        finally:
            network.train(was_training)

    return batches()


def _labels(network: EDMPrecond, seeds: Sequence[int], classes: int | Sequence[int] | None) -> Tensor | None:
    """[len(seeds), label_dim], None for a network without classes. Raises UsageError for a class that it has not."""
    if not network.label_dim:
        if classes is not None:
            raise UsageError("a class was asked for, but this network was trained without labels: leave it out")
        return None
    if classes is None:
        chosen = [s % network.label_dim for s in seeds]
    else:
        chosen = [classes] * len(seeds) if isinstance(classes, int) else list(classes)
    if chosen and not 0 <= min(chosen) <= max(chosen) < network.label_dim:
        raise UsageError(f"class {max(chosen)}: this network has classes 0 to {network.label_dim - 1}")
    return torch.nn.functional.one_hot(torch.tensor(chosen), network.label_dim).float()


def sample(
    denoise: Callable[..., Tensor],
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    config: AnySampler,
    *,
    batch: int = 256,
    device: torch.device | str = "cpu",
    class_labels: Tensor | None = None,
) -> Iterator[Tensor]:
    """Batches of images [b, C, H, W] float32 in units of [-1, 1], one per seed, in the order of `seeds`.

    denoise(x float64, sigma, class_labels=...) -> D, e.g. an EDMPrecond. class_labels: [len(seeds), label_dim].
    Image k is a function of seeds[k] alone: latents and churn are keyed by it.
    """
    for start in range(0, len(seeds), batch):
        index = torch.tensor(list(seeds[start : start + batch]), dtype=torch.int64, device=device)
        labels = None if class_labels is None else class_labels[start : start + batch].to(device)
        latents = stateless.normal(0, "latent", index, shape)

        def noise(step: int, index: Tensor = index) -> Tensor:
            return stateless.normal(0, f"churn-{step}", index, shape)

        def denoise_batch(x: Tensor, sigma: Tensor, labels: Tensor | None = labels) -> Tensor:
            return denoise(x, sigma) if labels is None else denoise(x, sigma, class_labels=labels)

        with torch.no_grad():
            out = carry_out(config, denoise_batch, latents, noise)
        yield out.to(torch.float32)


def carry_out(config: AnySampler, denoise: Denoiser, latents: Tensor, noise: Callable[[int], Tensor]) -> Tensor:
    """From unit latents [B, C, H, W] ~ N(0, I) to images, float64, with the sampler that the settings are of.

    denoise(x, sigma) -> D; noise(i): see `sampling.integrate`.
    """
    if isinstance(config, OneStep):
        sigma = latents.new_tensor(config.one_step_sigma, dtype=torch.float64)
        return denoise(latents.to(torch.float64) * sigma, sigma).to(torch.float64)
    if isinstance(config, GeneralSamplerConfig):
        return general_sampler(denoise, latents, config, noise=noise)
    return edm_sampler(denoise, latents, config, noise=noise)
