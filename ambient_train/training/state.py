"""All that a training carries from step to step: network, optimiser, averages, V(sigma) and counters, to and from a
checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ambient_theory.shared.errors import UsageError
from ambient_train import stateless
from ambient_train.diffusion.augment import LABELS
from ambient_train.diffusion.denoising_error import DenoisingErrorTracker
from ambient_train.diffusion.ema import EMA
from ambient_train.networks.precond import EDMPrecond
from ambient_train.settings.config import TrainConfig
from ambient_train.training.checkpoints import Checkpoint
from ambient_train.training.flight import Flight
from ambient_train.training.loss_scale import LossScale
from ambient_train.training.muon import Muon, is_hidden
from ambient_train.training.world import World, placed_like, shard, whole


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
        raise UsageError("--optimizer muon needs whole weight matrices: train with --optimizer adam or without --shard")
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
        layout = torch.contiguous_format if sharded else torch.channels_last  # contiguous is all that FSDP2 can split
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
