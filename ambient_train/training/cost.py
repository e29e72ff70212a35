"""What a training costs: measured on a few small micro-batches of the real data, and from published reference times.

A step of B images in micro-batches of m takes (B/m) t(m) + u: t(m) for draws, forward and backward of one
micro-batch, u for the optimiser and the averages, once. All are timed with an m that keeps a pass short, never with
the whole batch: with the CIFAR-10 network and its batch of 512 that would take minutes and many GB on a CPU.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ambient_train.data.mixture import TrainingSet
from ambient_train.diffusion.noise_levels import LevelTable
from ambient_train.networks.execution import recompute_blocks
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.edm_presets import EDM_ARCHITECTURES, EDM_PRESETS
from ambient_train.settings.run_options import process_share
from ambient_train.training.batches import batch_loss, prepare_batch, relative_cost
from ambient_train.training.state import TrainState, build_network

BUDGET_S = 6.0
_SHORT_S = 0.5


@dataclass(frozen=True)
class StepCost:
    """Cost of training one network on one device.

    parameters: of the network. micro_batch: images at once that were timed. train_img_per_s: whole steps of the plain
    loss, optimiser and averages included; see `rate`. evaluations_per_s: images through the denoiser without gradients.
    state_bytes: weights, gradients, two Adam moments and the averaged weights. fixed_bytes, image_bytes: what autograd
    keeps for the backward pass, whatever the micro-batch and for each image of it (measured by counting saved tensors;
    buffers that live only inside an operation come on top).
    """

    parameters: int
    micro_batch: int
    train_img_per_s: float
    evaluations_per_s: float
    state_bytes: int
    fixed_bytes: int
    image_bytes: int

    def rate(self, config: TrainConfig) -> float:
        """Training images a second, with all that a step of the config does beside the plain loss."""
        return self.train_img_per_s / relative_cost(config)

    def activation_bytes(self, images: int) -> int:
        """Bytes kept for the backward pass of `images` at once."""
        return self.fixed_bytes + images * self.image_bytes


def measure(
    config: TrainConfig,
    data: TrainingSet,
    label_dim: int,
    device: torch.device,
    *,
    micro_batch: int | None = None,
    recompute: bool = False,
    budget_s: float = BUDGET_S,
) -> StepCost:
    """Time passes of 1, 2, 4, ... images until one takes half a second, `micro_batch` (default the batch) is reached,
    or `budget_s` seconds would be exceeded; building the network comes on top.

    The state is a throwaway one; nothing is written. Raises UsageError if micro_batch does not divide the batch.
    """
    _, largest = process_share(config.batch, 1, micro_batch)
    state = TrainState(config, data.shape, label_dim, device)
    if recompute:
        recompute_blocks(state.network)
    table = LevelTable.of(data.levels)
    state.network.train()

    def run(images: int) -> float:
        begun = time.perf_counter()
        batch = prepare_batch(config, data, table, torch.arange(images), label_dim, device)
        loss, _ = batch_loss(config, state.network, batch, table, state.errors)
        (loss.sum() * (config.loss_scale / config.batch)).backward()
        _wait(device)
        return time.perf_counter() - begun

    def update() -> float:
        begun = time.perf_counter()
        state.optimizer.step()
        state.ema.update(state.network, config.batch, config.batch)
        _wait(device)
        return time.perf_counter() - begun

    started = time.perf_counter()
    parameters = list(state.network.parameters())
    with saved_bytes(parameters) as one:
        taken = run(1)
    images, fixed, each = 1, 0, one[0]
    left = budget_s - taken
    if largest > 1 and 2 * taken < left / 2:
        with saved_bytes(parameters) as two:
            taken = run(2)
        images, each = 2, max(two[0] - one[0], 0)
        fixed = max(one[0] - each, 0)
    while True:
        left = budget_s - (time.perf_counter() - started)
        if taken < left / 2:  # the passes before were the first of their size: once more, now warm
            taken = run(images)
        if images >= largest or taken > _SHORT_S or 3 * taken > left:
            break
        images = min(2 * images, largest)
        taken = run(images)
    update()  # allocates the moments
    step_s = config.batch / images * taken + update()
    state.optimizer.zero_grad(set_to_none=True)
    return StepCost(
        parameters=sum(p.numel() for p in parameters),
        micro_batch=images,
        train_img_per_s=config.batch / step_s,
        evaluations_per_s=_evaluations_per_s(state, data, images, device),
        state_bytes=5 * sum(p.numel() * p.element_size() for p in parameters),
        fixed_bytes=fixed,
        image_bytes=each,
    )


def _evaluations_per_s(state: TrainState, data: TrainingSet, images: int, device: torch.device) -> float:
    """Images a second through the denoiser, as the sampler calls it."""
    from ambient_train.diffusion.generate import denoiser

    denoise = denoiser(state.network.eval(), state.config.precision)
    x, sigma = torch.zeros(images, *data.shape, device=device), torch.tensor(1.0, device=device)
    with torch.no_grad():
        denoise(x[:1], sigma)
        _wait(device)
        begun = time.perf_counter()
        denoise(x, sigma)
        _wait(device)
    return images / max(time.perf_counter() - begun, 1e-9)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def saved_bytes(parameters: list[Tensor]) -> Iterator[list[int]]:
    """Counts the memory that autograd keeps alive for the backward passes begun inside: `[bytes]` after the block.

    Each storage counts once; the weights themselves do not.
    """
    known = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, Tensor] = {}
    total = [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place not in known and place not in kept:
            kept[place] = tensor  # held, so that the address is not given to another one meanwhile
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total


def count_parameters(config: TrainConfig, shape: tuple[int, int, int], label_dim: int) -> int:
    """Parameters of the network of a config, built without memory."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_network(config, shape, label_dim).parameters())


@dataclass(frozen=True)
class ReferenceTime:
    """A published training time. gpu_hours: of `nimg` training images on that kind of GPU."""

    gpu: str
    gpu_hours: float
    nimg: int
    source: str

    def hours(self, train_nimg: float, evaluations: int) -> float:
        """GPU-hours of training and of `evaluations` images through the denoiser.

        One evaluation is a forward pass, a third of a training image (backward costs about two forwards); the
        optimiser is left out.
        """
        return self.gpu_hours / self.nimg * (train_nimg + evaluations / 3)


_EDM_README = "README of EDM's code (Karras et al. 2022), training configurations"
REFERENCE_TIMES: dict[str, ReferenceTime] = {
    "cifar10": ReferenceTime("V100", 8 * 2 * 24.0, 200_000_000, f"{_EDM_README}: about 2 days on 8 V100"),
    "celeba64": ReferenceTime("V100", 8 * 4 * 24.0, 200_000_000, f"{_EDM_README}: FFHQ-64, about 4 days on 8 V100"),
    "imagenet64": ReferenceTime("A100", 32 * 13 * 24.0, 2_500_000_000, f"{_EDM_README}: about 13 days on 32 A100"),
}
"""By preset; EDM's own runs, of networks of the same size at the same resolution."""

_RESOLUTION = {"cifar10": 32, "celeba64": 64, "imagenet64": 64}


def reference_time(config: TrainConfig, resolution: int) -> ReferenceTime | None:
    """The published time of the same architecture, width and resolution; None where there is none."""
    for name, reference in REFERENCE_TIMES.items():
        published: Mapping[str, Any] = EDM_PRESETS[name]["train"]
        alike = [published["network"]]
        if name == "cifar10":  # both of EDM's networks took the same time
            alike.append(EDM_ARCHITECTURES["ncsnpp"][1])
        same = config.arch == published["arch"] and any(dict(config.network) == dict(n) for n in alike)
        if same and resolution == _RESOLUTION[name]:
            return reference
    return None
