"""What is promised on a GPU and can only be seen there. `AMBIENT_GPU_TESTS=cpu` walks through all of it on a CPU, where
it must hold too, except what only a GPU has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ambient_train.data.images import ImageSet
from ambient_train.data.mixture import TrainingSet, corrupt
from ambient_train.data.placed import Placed
from ambient_train.diffusion.generate import generate
from ambient_train.diffusion.sampler_settings import SamplerConfig
from ambient_train.networks.execution import arithmetic
from ambient_train.settings.config import TrainConfig
from ambient_train.training import checkpoints
from ambient_train.training.loop import train
from ambient_train.training.state import TrainState
from ambient_train.training.world import World

pytestmark = pytest.mark.gpu
NETWORK = {"model_channels": 16, "channel_mult": [1, 2], "emb_channels": 16}
CONFIG = TrainConfig(
    n_clean=20,
    n_noisy=44,
    sigma_n=0.3,
    batch=16,
    network=NETWORK,
    lr_ramp_nimg=64,
    dropout=0.1,
    augment=0.3,
    xflip=True,
)
VARIANTS = {
    "adam": CONFIG,
    "V": replace(CONFIG, weight="optimal"),
    "muon": replace(CONFIG, optimizer="muon"),
    "consistency": replace(CONFIG, consistency=1.0),
}


@pytest.fixture(scope="module")
def device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    if os.environ.get("AMBIENT_GPU_TESTS") == "cpu":
        return torch.device("cpu")
    pytest.skip("no CUDA device here")


@pytest.fixture
def repeatable(device: torch.device) -> Iterator[None]:
    with arithmetic("fp32", deterministic=True):
        yield


def data() -> TrainingSet:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 3, 16, 16)).astype(np.uint8)
    source = ImageSet("test", pixels, None, np.arange(64, dtype=np.int64))
    return corrupt(source, n_clean=20, n_noisy=44, sigma_n=0.3, seed=0)


def run(state: TrainState, nimg: int, **options: Any) -> list[float]:
    device = next(state.network.parameters()).device
    return [end.loss for end in train(state, data(), nimg, world=World(device=device), **options)]


def tensors(state: TrainState) -> dict[str, torch.Tensor]:
    groups = state.checkpoint().groups
    return {f"{group}.{name}": t.detach().cpu().clone() for group, ts in groups.items() for name, t in ts.items()}


def assert_equal(left: TrainState, right: TrainState) -> None:
    a, b = tensors(left), tensors(right)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_batches_are_those_of_the_cpu_to_rounding(device: torch.device) -> None:
    mixture, index = data(), torch.arange(64)
    for resident in (True, False):
        for kept in (0, 2**30):
            placed = Placed(mixture, device, resident=resident, kept_bytes=kept)
            got = placed.batch(index, index.to(device)).cpu()
            torch.testing.assert_close(got, mixture.batch(index), rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_reading_late_changes_no_number(device: torch.device, precision: str, repeatable: None) -> None:
    config = replace(CONFIG, precision=precision)
    late, at_once = (TrainState(config, (3, 16, 16), 0, device) for _ in range(2))
    np.testing.assert_array_equal(run(late, 320, late=True), run(at_once, 320, late=False))
    assert_equal(late, at_once)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_deterministic_run_that_is_continued_is_bit_equal(
    device: torch.device, precision: str, repeatable: None, tmp_path: Path
) -> None:
    config = replace(CONFIG, precision=precision, weight="optimal")
    whole, part, rest = (TrainState(config, (3, 16, 16), 0, device) for _ in range(3))
    run(whole, 320)
    run(part, 160)
    checkpoints.save(tmp_path, part.checkpoint())
    rest.restore(checkpoints.load(checkpoints.available(tmp_path)[0]))
    run(rest, 320)
    assert_equal(rest, whole)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_waits_for_nothing_that_cuda_knows_as_a_wait(device: torch.device, name: str) -> None:
    """Under CUDA's own watch of synchronising calls; the event that is waited for late is none of them."""
    state, mixture = TrainState(VARIANTS[name], (3, 16, 16), 0, device), data()
    for end in train(state, mixture, 16 * 8, world=World(device=device), late=True):
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error" if 48 <= end.nimg < 112 else "default")
    assert state.nimg == 128


def test_training_learns_as_on_a_cpu(device: torch.device) -> None:
    here, cpu = (TrainState(CONFIG, (3, 16, 16), 0, d) for d in (device, torch.device("cpu")))
    with arithmetic("fp32"):
        np.testing.assert_allclose(run(here, 160), run(cpu, 160), rtol=2e-3)


def test_images_do_not_depend_on_the_batch(device: torch.device, repeatable: None) -> None:
    state = TrainState(CONFIG, (3, 16, 16), 0, device)
    run(state, 64)
    sampler = SamplerConfig(steps=3)
    whole, parts = (
        np.concatenate(list(generate(state.network, range(8), sampler, device=device, batch=batch))) for batch in (8, 3)
    )
    assert np.abs(whole.astype(int) - parts.astype(int)).max() <= 1


def test_fp32_is_exact_in_convolutions_too(device: torch.device) -> None:
    """A product of ten bits more than TF32 keeps."""
    x, w = torch.full((1, 8, 8, 8), 1 + 2.0**-13, device=device), torch.ones(8, 8, 3, 3, device=device)
    with arithmetic("fp32"):
        assert float(torch.nn.functional.conv2d(x, w)[0, 0, 0, 0]) == 72 * (1 + 2.0**-13)


@pytest.mark.slow
def test_a_compiled_run_has_the_same_law(device: torch.device) -> None:
    eager, compiled = (TrainState(CONFIG, (3, 16, 16), 0, device) for _ in range(2))
    np.testing.assert_allclose(run(compiled, 96, compiled=True), run(eager, 96), rtol=1e-2)
