"""What a step trains on and what it is charged: batches and losses as pure functions of global sample indices."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ambient_train import stateless
from ambient_train.data.mixture import TrainingSet
from ambient_train.data.placed import sent
from ambient_train.diffusion.augment import Keys, augment_of, map_keys, mirror_of
from ambient_train.diffusion.consistency import Anchors, consistency, default_batch, draw_anchors
from ambient_train.diffusion.denoising_error import DenoisingErrorTracker
from ambient_train.diffusion.draws import TABLE as DRAWS
from ambient_train.diffusion.losses import TABLE as LOSSES
from ambient_train.diffusion.losses._base import LossInputs
from ambient_train.diffusion.noise_levels import LevelTable, draw
from ambient_train.networks.dropout import dropout_keys, drops, keys_of
from ambient_train.networks.execution import autocast
from ambient_train.settings.config import TrainConfig

if TYPE_CHECKING:
    from ambient_train.data.noise_models._base import NoiseModel

_loss, _draw = functools.cache(LOSSES.__getitem__), functools.cache(DRAWS.__getitem__)
"""Members by name: a step does not list the tables' files again."""


@dataclass(frozen=True)
class Keyed:
    """Functions of keys and global sample indices that a step calls on the device: as they are, or compiled.

    Each is some hundred small operations on whole numbers, which a compiler makes one or two.
    """

    normal: Callable[..., Tensor] = stateless.normal_of
    dropout: Callable[..., Tensor] = keys_of
    mirror: Callable[..., Tensor] = mirror_of
    augment: Callable[..., tuple[Tensor, Tensor]] = augment_of

    @classmethod
    def compiled(cls) -> Keyed:
        """All of them through `torch.compile`: the same keys and the same law, rounded as the compiler does."""
        every = (stateless.normal_of, keys_of, mirror_of, _augment_without_asking)
        made: Any = [torch.compile(f, dynamic=False) for f in every]
        return cls(*made)


def _augment_without_asking(
    keys: Keys, images: Tensor, noisy: Tensor, probability: float, sample: Tensor, edm: bool = False
) -> tuple[Tensor, Tensor]:
    """Which images need interpolation would be a question to the device: all are interpolated."""
    return augment_of(keys, images, noisy, probability, sample, few=False, edm=edm)


AS_THEY_ARE = Keyed()


@dataclass(frozen=True)
class Batch:
    """What a step trains on, on one rank: sample [B] global indices, index [B] positions, sigma, sigma_n [B] float64,
    y [B, C, H, W] images with their fixed noise, noise: its model, labels [B, label_dim] or None, augment_labels [B, 9]
    or None."""

    sample: Tensor
    index: Tensor
    sigma: Tensor
    sigma_n: Tensor
    y: Tensor
    noise: NoiseModel
    labels: Tensor | None
    augment_labels: Tensor | None = None


def prepare_batch(
    config: TrainConfig,
    data: TrainingSet,
    table: LevelTable,
    sample: Tensor,
    label_dim: int,
    device: torch.device,
    *,
    keyed: Keyed = AS_THEY_ARE,
) -> Batch:
    """The batch of the global sample indices `sample` [B]: a pure function of them, of the config and of the data."""
    index, sigma = draw_pairs(config, data, table, sample)
    return assemble(config, data, sample, index, sigma, label_dim, device, keyed=keyed)


def draw_pairs(config: TrainConfig, data: TrainingSet, table: LevelTable, sample: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and diffusion levels [B] of the samples, by the config's draw."""
    return draw(
        _draw(config.draw),
        config.seed,
        sample,
        data.levels,
        buffer=config.buffer,
        table=table,
        epochs=config.draw_epochs,
    )


def assemble(
    config: TrainConfig,
    data: TrainingSet,
    sample: Tensor,
    index: Tensor,
    sigma: Tensor,
    label_dim: int,
    device: torch.device,
    *,
    images: Callable[[Tensor, Tensor | None], Tensor] | None = None,
    keyed: Keyed = AS_THEY_ARE,
) -> Batch:
    """The batch of the images at `index` [B] and of the diffusion levels sigma [B]; `sample` [B] keys augmentation.

    images: (sigma_n [B], labels) -> y [B, C, H, W], in place of the data's own images.
    """
    placed = data.on(device)
    sample, there, sigma = sent(device, sample, index, sigma)
    labels = None
    if label_dim:
        classes = placed.labels(there)
        assert classes is not None
        labels = (classes[:, None] == torch.arange(label_dim, device=device)).to(torch.float32)
    sigma_n, noise = placed.told[there], placed.noise(index, there)
    y = placed.batch(index, there) if images is None else images(sigma_n, labels)
    augment_labels = None
    if config.xflip:
        k = stateless.key(config.seed, "mirror")
        mirror = functools.partial(keyed.mirror, k, sample=sample)
        y, noise = mirror(y), noise.moved(lambda pattern: mirror(_of_each(pattern, y)))
    if config.augment > 0:
        moved = functools.partial(
            keyed.augment,
            map_keys(config.seed),
            noisy=sigma_n > 0,
            probability=config.augment,
            sample=sample,
            edm=config.augment_labels == "edm",
        )
        (y, augment_labels), noise = moved(y), noise.moved(lambda pattern: moved(_of_each(pattern, y))[0])
    return Batch(sample, index, sigma, sigma_n, y, noise, labels, augment_labels)


def _of_each(pattern: Tensor, y: Tensor) -> Tensor:
    """A pattern [B or 1, C or 1, H, W] as one of each image y [B, C, H, W]: those that share one move apart."""
    return pattern.expand(len(y), -1, -1, -1)


def batch_loss(
    config: TrainConfig,
    network: nn.Module,
    batch: Batch,
    table: LevelTable,
    errors: DenoisingErrorTracker,
    keyed: Keyed = AS_THEY_ARE,
) -> tuple[Tensor, Tensor]:
    """Loss of each image [B] summed over pixels, and this batch's contribution to the denoising-error tracker."""
    loss = _loss(config.weight)
    eps = keyed.normal(stateless.key(config.seed, "diffusion-noise"), batch.sample, batch.y.shape[1:])
    x_t = batch.noise.diffuse(batch.y, batch.sigma, batch.sigma_n, eps)
    with autocast(x_t.device, config.precision), _dropout(config, network, batch.sample, keyed):
        denoised = network(x_t, batch.sigma, class_labels=batch.labels, augment_labels=batch.augment_labels)
    inputs = LossInputs(
        denoised=denoised,
        y=batch.y,
        x_t=x_t,
        sigma=batch.sigma,
        sigma_n=batch.sigma_n,
        noise=batch.noise,
        table=table,
        error=errors(batch.sigma) if loss.needs_error else None,
        buffer=config.buffer,
        cap=config.weight_cap,
    )
    return loss(inputs), errors.measure(inputs) if loss.needs_error else errors.nothing()


_DROPS: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def _dropout(config: TrainConfig, network: nn.Module, sample: Tensor, keyed: Keyed) -> AbstractContextManager[object]:
    """The keys of the batch's dropout, where the network drops anything."""
    if network not in _DROPS:
        _DROPS[network] = drops(network)
    if not _DROPS[network]:
        return contextlib.nullcontext()
    return dropout_keys(keyed.dropout(stateless.key(config.seed, "dropout"), sample))


def consistency_loss(
    config: TrainConfig,
    network: nn.Module,
    data: TrainingSet,
    sample: Tensor,
    label_dim: int,
    device: torch.device,
    *,
    keyed: Keyed = AS_THEY_ARE,
) -> Tensor:
    """Consistency loss of each of the samples [B], the same weight at every level (see `diffusion.consistency`).

    Labels of classes and of augmentation go with every evaluation; dropout is off.
    """
    found = draw_anchors(
        config.seed,
        sample,
        data.levels,
        buffer=config.buffer,
        sigma_min=config.consistency_sigma_min,
        span=config.consistency_span,
    )
    batch = assemble(config, data, sample, found.index, found.start, label_dim, device, keyed=keyed)
    anchors = Anchors(found.index, *sent(device, found.start, found.sigma, found.lower))

    def noise(purpose: str) -> Tensor:
        return keyed.normal(stateless.key(config.seed, f"consistency-{purpose}"), batch.sample, batch.y.shape[1:])

    def denoise(x: Tensor, sigma: Tensor, copies: int) -> Tensor:
        labels, maps = (None if one is None else one.repeat(copies, 1) for one in (batch.labels, batch.augment_labels))
        with autocast(device, config.precision):
            return network(x, sigma, class_labels=labels, augment_labels=maps)

    x = batch.noise.diffuse(batch.y, batch.sigma, batch.sigma_n, noise("start"))
    was_training = network.training
    network.eval()
    try:
        return consistency(
            denoise,
            x,
            anchors,
            noise,
            samples=config.consistency_samples,
            steps=config.consistency_steps,
            form=config.consistency_form,
        )
    finally:
        network.train(was_training)


def anchors_a_step(config: TrainConfig, n_noisy: int) -> int:
    """Images of the consistency loss in a step; none without noisy images, which alone have something to gain."""
    if config.consistency == 0 or n_noisy == 0:
        return 0
    return config.consistency_batch or default_batch(config.batch)


def relative_cost(config: TrainConfig) -> float:
    """Evaluations of the network in a step over those of a plain one, where a backward pass counts as two.

    A plain step has 3 an image. A distillation has 4 for the critic (G, psi and back) and 7 for the generator (G and
    back, phi and psi and back to their input); an anchor of the consistency loss steps (1 + K) + 3 (1 + K).
    """
    if config.distill or config.one_step:
        return 11 / 3
    an_anchor = (config.consistency_steps + 3) * (1 + config.consistency_samples)
    return 1 + anchors_a_step(config, config.n_noisy) * an_anchor / (3 * config.batch)


def uses_error(config: TrainConfig) -> bool:
    """Whether the loss weight needs V(sigma) to be tracked."""
    return _loss(config.weight).needs_error
