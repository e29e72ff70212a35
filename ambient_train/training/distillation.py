"""The second stage: a generator and its critic, trained in turns beside a frozen teacher (see `diffusion.distill`).

A step takes the next `batch` global sample indices, as in `loop.train`: first the critic on generated images with the
data's own law of levels, then the generator. Every draw is a function of (seed, purpose, global sample index), under a
seed of its own, so that nothing of the first stage is drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ambient_theory.shared.errors import UsageError
from ambient_train import stateless
from ambient_train.data.mixture import TrainingSet
from ambient_train.diffusion.distill import generator_levels, generator_loss
from ambient_train.diffusion.ema import EMA
from ambient_train.diffusion.noise_levels import LevelTable
from ambient_train.networks.execution import autocast
from ambient_train.networks.precond import EDMPrecond
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.run_options import process_share
from ambient_train.training.batches import Batch, assemble, batch_loss, draw_pairs, uses_error
from ambient_train.training.checkpoints import Checkpoint
from ambient_train.training.flight import Flight, Numbers, Step
from ambient_train.training.loop import BatchDivergedError, StepEnd, first_sample, learning_rate, set_rate
from ambient_train.training.state import TrainState, build_network, load_optimizer, make_optimizer, optimizer_state
from ambient_train.training.world import World

BETAS = (0.0, 0.999)


class DistillState(TrainState):
    """As `TrainState`; `network` and `ema` are the generator. critic, critic_optimizer: the critic. teacher: frozen.

    weights: the teacher's averaged network, with which generator and critic begin. errors: its V(sigma).
    """

    def __init__(
        self,
        config: TrainConfig,
        shape: tuple[int, int, int],
        label_dim: int,
        device: torch.device,
        *,
        weights: Mapping[str, Tensor],
        errors: Mapping[str, Tensor],
    ):
        super().__init__(config, shape, label_dim, device)
        self.teacher, self.critic = (self._copy(weights, shape, device) for _ in range(2))
        self.teacher.eval().requires_grad_(False)
        self.network.load_state_dict(dict(weights))
        self.optimizer = make_optimizer(config, self.network, BETAS)
        self.critic_optimizer = make_optimizer(config, self.critic, BETAS)
        self.ema = EMA(self.network, config.ema_halflife_nimg, config.ema_ramp)
        self.scale = None  # here the factor on the loss stays what it is
        self.errors.load(dict(errors))
        self.sums = {"loss": 0.0, "grad_norm": 0.0, "critic_loss": 0.0, "steps": 0.0}

    def _copy(self, weights: Mapping[str, Tensor], shape: tuple[int, int, int], device: torch.device) -> EDMPrecond:
        network = build_network(self.config, shape, self.label_dim)
        network.load_state_dict(dict(weights))
        return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def checkpoint(self) -> Checkpoint:
        """Everything but the teacher, which the config names by its content."""
        plain = super().checkpoint()
        critic = dict(self.critic.state_dict())
        more = {"critic": critic, "critic_optimizer": optimizer_state(self.critic_optimizer, self.critic)}
        return Checkpoint({**plain.groups, **more}, plain.meta)

    def restore(self, checkpoint: Checkpoint) -> None:
        super().restore(checkpoint)
        self.critic.load_state_dict(dict(checkpoint.groups["critic"]))
        load_optimizer(self.critic_optimizer, self.critic, checkpoint.groups["critic_optimizer"])

    def further_groups(self) -> dict[str, dict[str, torch.Size]]:
        return {"critic": {name: t.shape for name, t in self.critic.state_dict().items()}}


def critic_batch(
    draws: TrainConfig, generator: nn.Module, data: TrainingSet, table: LevelTable, sample: Tensor, label_dim: int
) -> Batch:
    """What the critic trains on: levels and labels as the teacher's draw has them, generated images, fresh noise."""
    index, sigma = draw_pairs(draws, data, table, sample)
    device = next(generator.parameters()).device

    def images(sigma_n: Tensor, labels: Tensor | None) -> Tensor:
        x = made(draws, generator, sample.to(device), data.shape, labels, "critic").detach()
        z = stateless.normal(draws.seed, "critic-noise", sample.to(device), data.shape)
        return data.on(device).noise(index, index.to(device)).corrupt(x, sigma_n, z)

    with torch.no_grad():
        return assemble(draws, data, sample, index, sigma, label_dim, device, images=images)


def made(
    draws: TrainConfig,
    generator: nn.Module,
    sample: Tensor,
    shape: tuple[int, int, int],
    labels: Tensor | None,
    purpose: str,
) -> Tensor:
    """x = G(s_G z, s_G) [B, C, H, W] of the samples [B]."""
    z = stateless.normal(draws.seed, f"{purpose}-latent", sample, shape)
    sigma = torch.full((len(sample),), draws.distill_sigma, dtype=torch.float64, device=sample.device)
    with autocast(z.device, draws.precision):
        return generator(draws.distill_sigma * z, sigma, class_labels=labels)


def generator_losses(
    draws: TrainConfig, state: DistillState, networks: Sequence[nn.Module], data: TrainingSet, sample: Tensor
) -> Tensor:
    """The generator's loss of each of the samples [B]. networks: generator, teacher, critic. No augmentation."""
    generator, teacher, critic = networks
    device = next(generator.parameters()).device
    labels = None
    if state.label_dim:
        chosen = (stateless.uniform(draws.seed, "generator-class", sample)[:, 0] * len(data)).long()
        classes = data.labels(chosen.clamp_max(len(data) - 1))
        assert classes is not None
        labels = nn.functional.one_hot(classes, state.label_dim).to(device, torch.float32)
    sample = sample.to(device)
    x = made(draws, generator, sample, data.shape, labels, "generator").to(torch.float32)
    levels = generator_levels(stateless.uniform(draws.seed, "generator-level", sample)[:, 0])
    noise = stateless.normal(draws.seed, "generator-noise", sample, data.shape)
    x_t = x + levels.reshape(-1, 1, 1, 1).to(x.dtype) * noise
    with autocast(device, draws.precision):
        phi, psi = (network(x_t, levels, class_labels=labels) for network in (teacher, critic))
    return generator_loss(phi, psi, x, draws.distill_alpha)


def train_distilled(
    state: DistillState,
    data: TrainingSet,
    duration_nimg: int,
    *,
    world: World | None = None,
    micro_batch: int | None = None,
    compiled: bool = False,
    flags: Callable[[], Sequence[bool]] = tuple,
) -> Iterator[StepEnd]:
    """As `loop.train`: until `state.nimg >= duration_nimg`, yielding after each step of critic and generator.

    `StepEnd` is of the generator; the critic's loss is in `state.sums`.
    """
    config, world = state.config, world or World()
    _, micro = process_share(config.batch, world.size, micro_batch)
    table, draws = LevelTable.of(data.levels), replace(config, seed=stateless.key(config.seed, "distill")[0])
    networks: list[nn.Module] = [state.network, state.teacher, state.critic]
    if compiled:
        networks = [torch.compile(n) for n in networks]  # type: ignore[misc]
    pixels = math.prod(data.shape)
    flight = Flight(world, config.batch * pixels, 0.0, land=lambda step: True, count=lambda step: None)
    while state.nimg < duration_nimg:
        first = first_sample(state.nimg, state.skipped, config.batch)
        parts = world.part(torch.arange(first, first + config.batch)).split(micro)
        rate = learning_rate(config, state.nimg)
        measured = state.errors.nothing()
        state.network.eval()
        state.critic.train()

        def critic_part(part: Tensor, into: Tensor = measured) -> Tensor:
            batch = critic_batch(draws, state.network, data, table, part, state.label_dim)
            loss, contribution = batch_loss(draws, networks[2], batch, table, state.errors)
            into += contribution
            return loss

        critic = _step(state.critic, state.critic_optimizer, critic_part, parts, config, rate, world, first)
        if uses_error(config):
            state.errors.update(world.sum(measured))
        state.critic.eval().requires_grad_(False)
        try:
            step = _step(
                state.network,
                state.optimizer,
                lambda part: generator_losses(draws, state, networks, data, part),
                parts,
                config,
                rate,
                world,
                first,
            )
        finally:
            state.critic.requires_grad_(True)
        state.nimg += config.batch
        state.ema.update(state.network, config.batch, state.nimg)
        flight.loss = step.loss = step.total / pixels
        for name, value in (("loss", step.loss), ("grad_norm", step.norm), ("critic_loss", critic.total / pixels)):
            state.sums[name] += value
        state.sums["steps"] += 1
        votes = world.sum(torch.tensor([float(f) for f in flags()], dtype=torch.float64))
        yield StepEnd(state.nimg, rate, tuple(bool(v > 0) for v in votes), step, flight)


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: Callable[[Tensor], Tensor],
    parts: Sequence[Tensor],
    config: TrainConfig,
    rate: float,
    world: World,
    first: int,
) -> Step:
    """One update by the mean loss over the global batch; `total` is that mean, `norm` that of its gradient.

    Raises BatchDivergedError before the update where one of them is not finite.
    """
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64, device=world.device)
    for part in parts:
        loss = losses(part)
        (loss.sum() * (config.loss_scale / config.batch)).backward()
        total += loss.detach().sum().to(torch.float64)
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    if config.loss_scale != 1:
        torch._foreach_div_(gradients, config.loss_scale)
    for gradient in gradients:
        world.sum(gradient)
    norm = torch.nn.utils.get_total_norm(gradients)
    numbers = Numbers([world.sum(total), norm])
    value, size = numbers.read()
    value /= config.batch
    if not (math.isfinite(value) and math.isfinite(size)):
        raise BatchDivergedError(
            f"loss {value} with gradient norm {size} in the batch of samples {first}-{first + config.batch - 1}: "
            "stopped before the update. The last checkpoint is intact; try a lower --lr, --precision fp32 or "
            "--on-nan rollback",
            first,
        )
    if config.grad_clip > 0:
        torch.nn.utils.clip_grads_with_norm_(network.parameters(), config.grad_clip, norm)
    set_rate(optimizer, config, rate)
    optimizer.step()
    return Step(first, first, numbers, total=value, norm=size)


def check_sharding(sharded: bool) -> None:
    """Raise UsageError: the three networks of a distillation are not split."""
    if sharded:
        raise UsageError("--shard does not apply to a distillation: leave it out")
