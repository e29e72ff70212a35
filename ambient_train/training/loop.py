"""The training loop, as a generator of events over one state. It reads top to bottom; listeners do the rest.

Images are the unit: step after step takes the next `batch` global sample indices, and every random draw is a function
of (seed, purpose, global sample index), so a restart, another number of ranks or of micro-batches sees the same images,
the same noise and the same sigma.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ambient_theory.shared.errors import DivergedError, UsageError
from ambient_train import stateless
from ambient_train.data.mixture import TrainingSet
from ambient_train.diffusion.augment import LABELS
from ambient_train.diffusion.denoising_error import DenoisingErrorTracker
from ambient_train.diffusion.ema import EMA
from ambient_train.diffusion.noise_levels import LevelTable
from ambient_train.networks.precond import EDMPrecond
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
from ambient_train.training.checkpoints import Checkpoint
from ambient_train.training.flight import AGREE_S, Flight, Numbers, Step
from ambient_train.training.loss_scale import LEAST, LossScale
from ambient_train.training.muon import Muon, is_hidden
from ambient_train.training.world import World, placed_like, shard, whole


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


def build_network(config: TrainConfig, shape: tuple[int, int, int], label_dim: int = 0) -> EDMPrecond:
    """The denoiser with weights that are a function of (config.seed, architecture) alone."""
    channels, height, _ = shape
    keywords = dict(config.network)
    if config.augment > 0:
        keywords.setdefault("augment_dim", LABELS)
    keywords.setdefault("dropout", config.dropout)  # the EDM networks' own default is not 0
    generator_state = torch.random.get_rng_state()
    try:
        torch.default_generator.manual_seed(stateless.key(config.seed, "weights")[0])
        return EDMPrecond(height, channels, label_dim=label_dim, model_type=config.arch, **keywords)
    except TypeError as error:
        raise UsageError(f"network settings do not fit {config.arch}: {error}") from None
    finally:
        torch.random.set_rng_state(generator_state)


MOMENTS = ("exp_avg", "exp_avg_sq", "momentum")
"""What an optimiser keeps of the shape of a parameter: Adam's two moments, Muon's one."""


def make_optimizer(
    config: TrainConfig, network: nn.Module, betas: tuple[float, float] = (0.9, 0.999), *, sharded: bool = False
) -> torch.optim.Optimizer:
    """The optimiser of a config. Raises UsageError for Muon over sharded weights: it needs whole matrices."""
    kind = torch.optim.AdamW if config.weight_decay > 0 else torch.optim.Adam
    every = list(network.parameters())
    muon = config.optimizer == "muon"
    optimizer: torch.optim.Optimizer
    if muon and sharded:
        raise UsageError("--optimizer muon needs whole weight matrices: train with --optimizer adam or without --fsdp")
    adam = kind(
        [p for p in every if not (muon and is_hidden(p))],
        lr=config.lr,
        betas=betas,
        eps=1e-8,
        weight_decay=config.weight_decay,
        fused=True,  # also what leaves out a step on the device, see `_update`
    )
    hidden = [p for p in every if is_hidden(p)]
    # a network narrower than a hidden weight is Adam's altogether
    optimizer = Muon(hidden, adam, config.muon_lr, config.weight_decay) if muon and hidden else adam
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def optimizer_state(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """The state of an optimiser by kind and name of the parameter."""
    names: dict[Tensor, str] = {p: name for name, p in network.named_parameters()}
    return {
        f"{kind}.{names[p]}": value if isinstance(value, Tensor) else torch.tensor(float(value))
        for p, state in optimizer.state.items()
        for kind, value in state.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, network: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Inverse of `optimizer_state`."""
    optimizer.state.clear()
    for name, p in network.named_parameters():
        # the fused optimiser walks raw memory: its state must have the memory format of the parameter
        state = {
            kind: torch.empty_like(p).copy_(placed_like(stored[f"{kind}.{name}"], p))
            for kind in MOMENTS
            if f"{kind}.{name}" in stored
        }
        if f"step.{name}" in stored:
            state["step"] = stored[f"step.{name}"].clone().to(p.device if p.device.type == "cuda" else "cpu")
        if state:
            optimizer.state[p] = state


class TrainState:
    """All that a training carries from step to step; `checkpoint` and `restore` are exact inverses.

    network, optimizer, ema, errors: the learned state. scale: of the loss in fp16, else None. nimg: images seen.
    sums: running metrics since the last tick. Who asks for `ema`, `sums` or a checkpoint waits for the step that is
    under way; if that one diverged, this is where BatchDivergedError is raised.
    best: images seen and criterion of the best candidate so far (smaller is better), None before the first.
    skipped: first global sample indices of the batches that are left out (see `first_sample`).
    sharded: the weights are split over the ranks of `world` (checkpoints hold them whole all the same).
    """

    def __init__(
        self,
        config: TrainConfig,
        shape: tuple[int, int, int],
        label_dim: int,
        device: torch.device,
        *,
        sharded: bool = False,
        world: World | None = None,
    ):
        self.config = config
        self.sharded = sharded
        self.label_dim = label_dim
        layout = torch.contiguous_format if sharded else torch.channels_last  # FSDP2 cannot split channels-last weights
        self.network = build_network(config, shape, label_dim).to(device, memory_format=layout)  # type: ignore[call-overload]
        if sharded:
            shard(self.network, world or World())
        self.optimizer = make_optimizer(config, self.network, sharded=sharded)
        self.flight: Flight | None = None
        self.ema = EMA(self.network, config.ema_halflife_nimg, config.ema_ramp)
        self.errors = DenoisingErrorTracker(sigma_data=self.network.sigma_data, device=device)
        self.scale = LossScale(config, device) if config.precision == "fp16" else None
        self.nimg = 0
        self.skipped: tuple[int, ...] = ()
        self.best: tuple[int, float] | None = None
        self.sums = {"loss": 0.0, "grad_norm": 0.0, "steps": 0.0}

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Put weights where the random ones are, and into the averages; before the first step."""
        own = self.network.state_dict()
        self.network.load_state_dict({k: placed_like(t, own[k]) for k, t in weights.items()})
        self.ema = EMA(self.network, self.config.ema_halflife_nimg, self.config.ema_ramp)

    def settle(self) -> None:
        """Wait for the step under way; in a group every rank must. Raises BatchDivergedError as `train` does."""
        if self.flight is not None:
            self.flight.settle_all()

    @property
    def ema(self) -> EMA:
        self.settle()
        return self._ema

    @ema.setter
    def ema(self, value: EMA) -> None:
        self._ema = value

    @property
    def sums(self) -> dict[str, float]:
        self.settle()
        return self._sums

    @sums.setter
    def sums(self, value: dict[str, float]) -> None:
        self._sums = value

    def checkpoint(self) -> Checkpoint:
        """Everything, as named whole tensors and JSON (a sharded state gathers: every rank must call)."""
        self.settle()
        groups = {
            "network": dict(self.network.state_dict()),
            "ema": self.ema.state(),
            "optimizer": optimizer_state(self.optimizer, self.network),
            "errors": self.errors.state(),
            **({} if self.scale is None else {"loss_scale": self.scale.state()}),
        }
        groups = {group: {k: whole(t) for k, t in tensors.items()} for group, tensors in groups.items()}
        meta = {
            "nimg": self.nimg,
            "skipped": list(self.skipped),
            "config": self.config.to_dict(),
            "config_hash": self.config.hash,
            "architecture": self.network.config,
            "sums": self.sums,
            "best": None if self.best is None else list(self.best),
        }
        return Checkpoint(groups, meta)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of the same config; `misfit` says beforehand whether it can be."""
        own, weights, averages = self.network.state_dict(), checkpoint.groups["network"], checkpoint.groups["ema"]
        self.network.load_state_dict({k: placed_like(t, own[k]) for k, t in weights.items()})
        self.ema.load({k: placed_like(t, self.ema.shadow[k]) for k, t in averages.items()})
        self.errors.load(dict(checkpoint.groups["errors"]))
        load_optimizer(self.optimizer, self.network, checkpoint.groups["optimizer"])
        if self.scale is not None and "loss_scale" in checkpoint.groups:  # fp16 runs from before had a constant
            self.scale.load(dict(checkpoint.groups["loss_scale"]))
        self.nimg = checkpoint.nimg
        self.skipped = tuple(checkpoint.meta.get("skipped", ()))
        self.sums = {k: float(checkpoint.meta["sums"][k]) for k in self.sums}  # in the order of a new one
        best = checkpoint.meta.get("best")
        self.best = None if best is None else (int(best[0]), float(best[1]))

    def further_groups(self) -> dict[str, dict[str, torch.Size]]:
        """Names and shapes of what a checkpoint has beside network, averages and V."""
        return {}

    def misfit(self, checkpoint: Checkpoint) -> str:
        """Why a checkpoint cannot be restored into this state; empty if it can."""
        if checkpoint.meta.get("config_hash") != self.config.hash:
            return "of another config"
        shapes = {name: p.shape for name, p in self.network.named_parameters()}
        expected = {
            "network": {name: t.shape for name, t in self.network.state_dict().items()},
            "ema": {name: t.shape for name, t in self.ema.shadow.items()},
            "errors": {name: t.shape for name, t in self.errors.state().items()},
        }
        expected |= self.further_groups()
        moments = {f"{kind}.{name}": shape for name, shape in shapes.items() for kind in MOMENTS}
        for group, tensors in expected.items():
            if {k: t.shape for k, t in checkpoint.groups.get(group, {}).items()} != tensors:
                return f"its {group} is not of this architecture"
        for name, tensor in checkpoint.groups.get("optimizer", {}).items():
            if not name.startswith("step.") and moments.get(name) != tensor.shape:
                return f"its optimiser state {name} is not of this architecture"
        if "optimizer" not in checkpoint.groups or set(checkpoint.meta.get("sums", ())) != set(self.sums):
            return "it has no optimiser state or no running metrics"
        return ""


def learning_rate(config: TrainConfig, nimg: int) -> float:
    """lr min(t/ramp, 1) / sqrt(max(t/decay, 1)) at t images: independent of the duration, so that a run can grow.

    Without `lr_decay_nimg` it stays constant after the ramp (Karras et al. 2022); with it, it falls like the inverse
    square root (Karras et al. 2024, arXiv 2312.02696).
    """
    t = nimg + config.batch
    decay = max(t / config.lr_decay_nimg, 1.0) if config.lr_decay_nimg else 1.0
    return config.lr * min(t / max(config.lr_ramp_nimg, 1), 1.0) / decay**0.5


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
    per_step = anchors_a_step(config, data)
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
    for group in optimizer.param_groups:
        group["lr"] = rate * (group["initial_lr"] / config.lr)
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
