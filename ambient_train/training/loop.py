"""The training loop, as a generator of events over one state. It reads top to bottom; listeners do the rest.

Images are the unit: step after step takes the next `batch` global sample indices, and every random draw is a function
of (seed, purpose, global sample index), so a restart, another number of ranks or of micro-batches sees the same images,
the same noise and the same sigma.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ambient_theory.shared.errors import DivergedError, UsageError
from ambient_train.data.mixture import TrainingSet
from ambient_train.diffusion.noise_levels import LevelTable
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.run_options import process_share
from ambient_train.training.batches import (
    AS_THEY_ARE,
    Batch,
    Keyed,
    anchors_a_step,
    batch_loss,
    consistency_loss,
    prepare_batch,
    uses_error,
)
from ambient_train.training.flight import AGREE_S, Flight, Numbers, Step
from ambient_train.training.loss_scale import LEAST
from ambient_train.training.state import TrainState
from ambient_train.training.world import World, whole


@dataclass(frozen=True, eq=False)
class StepEnd:
    """After one optimiser step. step, flight: where its numbers come from.

    votes: for each of the flags given to `train` whether any rank had set it when the ranks last agreed, that is after
    every step in one process and on CPUs; all false after a step without an agreement.
    """

    nimg: int
    lr: float
    votes: tuple[bool, ...]
    step: Step
    flight: Flight

    @property
    def loss(self) -> float:
        """Mean over the global batch, per pixel: waits for the step, and in a group every rank must ask. nan where
        the step was not taken because of an overflow in fp16."""
        if self.step.loss is None:
            self.flight.settle_all()
        return math.nan if self.step.loss is None else self.step.loss

    @property
    def grad_norm(self) -> float:
        """Of the averaged gradient; waits as `loss` does."""
        if self.step.loss is None:
            self.flight.settle_all()
        return self.step.norm

    @property
    def known_loss(self) -> float | None:
        """The loss of the last step whose numbers are at hand: nobody waits."""
        return self.flight.loss


class BatchDivergedError(DivergedError):
    """A batch gave a NaN or an infinity. first_sample: its first global sample index."""

    def __init__(self, message: str, first_sample: int):
        super().__init__(message)
        self.first_sample = first_sample


def learning_rate(config: TrainConfig, nimg: int) -> float:
    """lr min(t/ramp, 1) / sqrt(max(t/decay, 1)) at t images: independent of the duration, so that a run can grow.

    Without `lr_decay_nimg` it stays constant after the ramp (Karras et al. 2022); with it, it falls like the inverse
    square root (Karras et al. 2024, arXiv 2312.02696).
    """
    t = nimg + config.batch
    decay = max(t / config.lr_decay_nimg, 1.0) if config.lr_decay_nimg else 1.0
    return config.lr * min(t / max(config.lr_ramp_nimg, 1), 1.0) / decay**0.5


def set_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, rate: float) -> None:
    """Give every group of parameters its own rate: `rate` where that is `config.lr` in full, others in proportion."""
    for group in optimizer.param_groups:
        group["lr"] = rate * (group["initial_lr"] / config.lr)


def first_sample(nimg: int, skipped: Sequence[int], batch: int) -> int:
    """Global sample index at which the step after `nimg` images begins: batches that were skipped are passed over."""
    first = nimg
    for start in sorted(skipped):
        if start <= first:
            first += batch
    return first


def train(
    state: TrainState,
    data: TrainingSet,
    duration_nimg: int,
    *,
    world: World | None = None,
    micro_batch: int | None = None,
    compiled: bool = False,
    flags: Callable[[], Sequence[bool]] = tuple,
    late: bool | None = None,
    agree_s: float | None = None,
) -> Iterator[StepEnd]:
    """Train until `state.nimg >= duration_nimg`, yielding after each step. `state` is valid at every yield.

    micro_batch: images at once on one rank (gradient accumulation), default all of a rank's share.
    flags: asked when ranks agree; whether any rank set each is in `StepEnd.votes`, the same on every rank.
    late: read a step's numbers when the next one is on its way, by default on a GPU; nothing else depends on it than
    when a step that diverged is noticed. agree_s: longest time between agreements of the ranks, by default `AGREE_S` on
    GPUs and none, which is every step, on CPUs.
    Raises BatchDivergedError (on all ranks) instead of an update that a NaN or an infinity would spoil, UsageError if
    the batch does not divide.
    """
    config, world = state.config, world or World()
    on_gpu = world.device.type == "cuda"
    late = on_gpu if late is None else late
    keyed = Keyed.compiled() if compiled else AS_THEY_ARE
    _, micro = process_share(config.batch, world.size, micro_batch)
    table = LevelTable.of(data.levels)
    network, alone = _wrapped(state, world, compiled)
    parameters = list(state.network.parameters())
    pixels = data.shape[0] * data.shape[1] * data.shape[2]
    per_step = anchors_a_step(config, data.n_noisy)
    pull = config.consistency * config.batch / max(per_step, 1)  # a sum over anchors in units of one over the batch
    if state.sharded and per_step % (world.size * (config.batch // world.size // micro)):
        raise UsageError(
            f"consistency_batch {per_step} does not divide into {world.size} processes and their micro-batches, "
            "as --shard needs: give another one"
        )
    flight = state.flight = Flight(
        world,
        config.batch * pixels,
        (AGREE_S if on_gpu else 0.0) if agree_s is None else agree_s,
        land=lambda step: _land(step, state, flight, data),
        count=lambda step: _count(step, state),
    )
    state.network.train()
    while state.nimg < duration_nimg:
        first = first_sample(state.nimg, state.skipped, config.batch)
        sample = world.part(torch.arange(first, first + config.batch))
        parts = sample.split(micro)
        own = torch.arange(per_step)[world.rank :: world.size] + first // config.batch * per_step
        anchors = own.tensor_split(len(parts))
        total = torch.zeros((), dtype=torch.float64, device=world.device)
        measured = state.errors.nothing()
        seen: list[tuple[Batch, Tensor]] = []
        factor = 1.0 if state.scale is None else state.scale.factor
        state.optimizer.zero_grad(set_to_none=True)
        for number, part in enumerate(parts):
            batch = prepare_batch(config, data, table, part, state.label_dim, world.device, keyed=keyed)
            last = number == len(parts) - 1
            if state.sharded:
                state.network.set_requires_gradient_sync(last)
            with contextlib.nullcontext() if last else _unsynchronised(network):
                loss, contribution = batch_loss(config, network, batch, table, state.errors, keyed)
                # DDP averages over ranks: scale so that the sum over all is the mean over the global batch
                sum_of_all = loss.sum()
                if len(anchors[number]):
                    args = (data, anchors[number], state.label_dim, world.device)
                    sum_of_all = sum_of_all + pull * consistency_loss(config, alone, *args, keyed=keyed).sum()
                scaled = sum_of_all * (factor * world.size / config.batch)
                # a loss that is not finite makes the gradient so, by which all ranks hear of it
                scaled.backward(torch.where(sum_of_all.detach().isfinite(), 1.0, torch.nan).to(scaled.dtype))
            total += sum_of_all.detach().to(torch.float64)
            measured += contribution
            seen.append((batch, loss.detach()))
        flight.settle()  # the step before, while the device is busy with this one
        rate = learning_rate(config, state.nimg)
        norm, good = _update(state, parameters, rate, factor)
        if uses_error(config):
            state.errors.update(world.sum(measured), good)
        numbers = [total, norm] if state.scale is None else [total, norm, state.scale.factor]
        step = Step(state.nimg, first, Numbers(numbers), seen)
        flight.launch(step)
        if state.scale is not None:
            state.scale.update(good)
        state.nimg += config.batch
        if not late:
            flight.settle()
        asked = tuple(flags())
        votes = flight.agree(asked) if flight.due() else (False,) * len(asked)
        yield StepEnd(state.nimg, rate, votes, step, flight)
    flight.settle_all()


def _wrapped(state: TrainState, world: World, compiled: bool) -> tuple[nn.Module, nn.Module]:
    """The network as a step calls it, and the same without the exchange of gradients."""
    network: nn.Module = state.network

    def exchanging(inner: nn.Module) -> nn.Module:
        if world.size == 1 or state.sharded:
            return inner
        on_gpu = world.device.type == "cuda"
        return nn.parallel.DistributedDataParallel(
            inner,
            device_ids=[world.device] if on_gpu else None,
            broadcast_buffers=False,  # they are constants
            gradient_as_bucket_view=True,
        )

    if not compiled:
        return exchanging(network), network
    alone: nn.Module = torch.compile(network)  # type: ignore[assignment]
    if getattr(state.network.model, "gradient_checkpointing", False):  # which cannot be cut where gradients are sent
        return exchanging(alone), alone
    exchanged = exchanging(network)
    return alone if exchanged is network else torch.compile(exchanged), alone  # type: ignore[return-value]


def _unsynchronised(network: nn.Module) -> contextlib.AbstractContextManager[object]:
    """Gradients stay on this rank."""
    own = getattr(network, "no_sync", None)
    return contextlib.nullcontext() if own is None else own()


def _update(
    state: TrainState, parameters: Sequence[nn.Parameter], rate: float, factor: float | Tensor
) -> tuple[Tensor, Tensor]:
    """One update of the weights; the norm of the gradient, and whether it was finite, both on the device.

    Where it was not, weights and optimiser stay as they are: the device decides, and nobody waits.
    """
    config, optimizer = state.config, state.optimizer
    gradients = [p.grad for p in parameters if p.grad is not None]
    if isinstance(factor, Tensor) or factor != 1:
        torch._foreach_div_(gradients, factor)
    norm = whole(torch.nn.utils.get_total_norm(gradients))
    if config.grad_clip > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, config.grad_clip, norm)
    set_rate(optimizer, config, rate)
    good = norm.isfinite()
    optimizer.found_inf = (~good).to(torch.float32)  # type: ignore[attr-defined]
    optimizer.step()
    return norm, good


def _land(step: Step, state: TrainState, flight: Flight, data: TrainingSet) -> bool:
    """What follows from the numbers of a step: the averages, or nothing for an overflow in fp16 (then False).

    Raises BatchDivergedError, on all ranks, with the state as it was before the step.
    """
    config = state.config
    if math.isfinite(step.norm):
        state._ema.update(state.network, config.batch, step.nimg + config.batch)
        return True
    if step.scale > LEAST:
        return False
    state.nimg = step.nimg
    flight.agree(also=step)
    raise BatchDivergedError(
        f"loss {step.loss} with gradient norm {step.norm} at image {state.nimg}: stopped before the update. "
        f"{_blame(step.seen, data, flight.world, step.first, config.batch)}. "
        "The last checkpoint is intact; try a lower --lr, --precision fp32 or --on-nan rollback",
        step.first,
    )


def _count(step: Step, state: TrainState) -> None:
    """Add a step to the running metrics."""
    assert step.loss is not None
    state._sums["loss"] += step.loss
    state._sums["grad_norm"] += step.norm
    state._sums["steps"] += 1


def _blame(seen: Sequence[tuple[Batch, Tensor]], data: TrainingSet, world: World, first: int, batch: int) -> str:
    """The batch that diverged, and its images with a non-finite loss, on whichever rank they were."""
    table = torch.full((8, 3), -1.0, dtype=torch.float64)
    levels = torch.cat([b.sigma for b, _ in seen]).cpu()
    bad = ~torch.isfinite(torch.cat([loss for _, loss in seen])).cpu()
    sample, index = torch.cat([b.sample for b, _ in seen]).cpu()[bad], torch.cat([b.index for b, _ in seen])[bad.cpu()]
    ids = torch.from_numpy(data.source.ids[index.numpy()])
    rows = torch.stack([sample.double(), ids.double(), levels[bad].double()], dim=1)[:8]
    table[: len(rows)] = rows
    low, high = (torch.stack(world.all_gather(v)) for v in (levels.min(), levels.max()))
    text = f"Batch: samples {first}-{first + batch - 1}, sigma {float(low.min()):.4g} to {float(high.max()):.4g}"
    named = [row for part in world.all_gather(table) for row in part.tolist() if row[0] >= 0]
    if named:
        text += "; not finite: " + ", ".join(f"sample {int(s)} (image {int(i)}, sigma {v:.4g})" for s, i, v in named)
    return text
