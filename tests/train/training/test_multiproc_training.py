"""A training does not depend on how many processes share it: same draws, same weights to rounding, any restart."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from groups import World, ranks, values

from ambient_theory.shared.errors import AmbientError, DataError
from ambient_train.diffusion.noise_levels import LevelTable
from ambient_train.runs import resolve as resolving
from ambient_train.runs.resolve import make_training_set
from ambient_train.training import checkpoints
from ambient_train.training import loop as training
from ambient_train.training.loop import train
from ambient_train.training.state import TrainState

pytestmark = pytest.mark.multiproc
STEPS = 96


def trained(world: World, micro: int | None, sharded: bool) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Weights, averages and V after STEPS images, and what every step drew on this rank."""
    config = tiny_run.config()
    drawn: list[tuple[Any, ...]] = []
    original = training.batch_loss

    def recording(config: Any, network: Any, batch: training.Batch, *others: Any) -> Any:
        drawn.append((batch.sample.tolist(), batch.index.tolist(), batch.sigma.tolist(), float(batch.y.double().sum())))
        return original(config, network, batch, *others)

    training.batch_loss = recording
    data = make_training_set(config, tiny_run.source())
    state = TrainState(config, data.shape, 0, world.device, sharded=sharded, world=world)
    ends = list(train(state, data, STEPS, world=world, micro_batch=micro))
    groups = state.checkpoint().groups
    tensors = {f"{g}.{k}": t.numpy() for g, ts in groups.items() for k, t in ts.items() if g != "optimizer"}
    return {**tensors, "losses": [end.loss for end in ends]}, drawn


@pytest.fixture(scope="module")
def alone() -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    original = training.batch_loss
    try:
        return trained(World(), None, False)
    finally:
        training.batch_loss = original


@pytest.mark.parametrize(
    ("size", "micro", "sharded"),
    [
        (2, 4, False),
        (2, 4, True),
        pytest.param(4, 2, False, marks=pytest.mark.slow),
        pytest.param(2, None, True, marks=pytest.mark.slow),
    ],
)
def test_ranks_and_micro_batches_and_shards_give_the_same_weights_and_draws(
    alone: Any, size: int, micro: int | None, sharded: bool
) -> None:
    """16 = 1 x 16 = 2 x 2 x 4 = 4 x 2 x 2, split weights or not: to 1e-5 in float32."""
    expected, steps = alone
    results = values(ranks(size, trained, micro, sharded))
    for tensors, _ in results:
        assert tensors.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(torch.as_tensor(tensors[name]), torch.as_tensor(value), rtol=1e-5, atol=1e-5)
    parts = 16 // size // (micro or 16 // size)
    for number, (sample, index, sigma, total) in enumerate(steps):
        mine = [drawn[number * parts + part] for _, drawn in results for part in range(parts)]
        for position, whole in enumerate((sample, index, sigma)):
            assert [v for part in mine for v in part[position]] == whole
        assert sum(part[3] for part in mine) == pytest.approx(total, rel=1e-12)


def noise_of(world: World) -> list[float]:
    config = tiny_run.config()
    data = make_training_set(config, tiny_run.source())
    sample = world.part(torch.arange(32, 48))
    batch = training.prepare_batch(config, data, LevelTable.of(data.sigma_n), sample, 0, world.device)
    from ambient_train import stateless

    eps = stateless.normal(config.seed, "diffusion-noise", batch.sample, batch.y.shape[1:])
    return (batch.y + batch.sigma.float().reshape(-1, 1, 1, 1) * eps).flatten().tolist()


def test_noise_of_a_step_is_bit_equal_for_any_number_of_ranks() -> None:
    whole = noise_of(World())
    assert [v for part in values(ranks(2, noise_of)) for v in part] == whole


def go(world: World, path: Path, options: Any, bad: int = -1, harm: str = "") -> str:
    """A whole run on this rank; the harm is done on the last rank only, at image `bad`."""
    last = world.rank == world.size - 1
    original = training.batch_loss

    def spoiled(config: Any, network: Any, batch: training.Batch, *others: Any) -> Any:
        here = last and int(batch.sample[0]) <= bad < int(batch.sample[-1]) + 1
        if here and harm == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if here and harm == "signal":
            os.kill(os.getpid(), signal.SIGUSR2)
        loss, measured = original(config, network, batch, *others)
        return (loss * torch.nan if here and harm == "nan" else loss), measured

    training.batch_loss = spoiled
    if harm == "data" and last:
        resolving.make_training_set = _broken
    disk = tiny_run.full_disk(errno.ENOSPC) if harm == "disk" and world.leader else contextlib.nullcontext()
    try:
        with disk:
            scores = tiny_run.run(path, options, world=world)
    except AmbientError as error:
        return f"{type(error).__name__} {error.exit_code}: {error}"
    return ",".join(f"{r.metric} {r.value}" for at in scores.values() for r in at)


def _broken(*_: object) -> None:
    raise DataError("this machine cannot read the images")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "run"
    tiny_run.run(path)
    return path


def assert_close_run(path: Path, reference: Path) -> None:
    left, right = tiny_run.final(path), tiny_run.final(reference)
    for name in right:
        if "exp_avg_sq" not in name:
            torch.testing.assert_close(left[name], right[name], rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert [line[0] for line in tiny_run.metrics(path)] == [line[0] for line in tiny_run.metrics(reference)]


@pytest.mark.slow
def test_a_checkpoint_of_two_ranks_resumes_on_one_and_on_four_and_two_are_exact(
    reference: Path, tmp_path: Path
) -> None:
    """And a run of two ranks that was stopped by a signal on one of them is bit-equal to one that was not."""
    whole, path = tmp_path / "whole", tmp_path / "run"
    said = values(ranks(2, go, path, tiny_run.OPTIONS, 104, "signal"))
    assert len(set(said)) == 1
    assert "StoppedError 75: stopped by SIGUSR2: saved at 112 images" in said[0]
    one, four, two = (Path(shutil.copytree(path, tmp_path / name)) for name in ("one", "four", "two"))
    assert go_here(one, reference)
    values(ranks(4, go, four, tiny_run.OPTIONS))
    assert_close_run(four, reference)
    first = values(ranks(2, go, whole, tiny_run.OPTIONS))
    assert first[0] == first[1]
    assert_close_run(whole, reference)
    values(ranks(2, go, two, tiny_run.OPTIONS))
    tiny_run.assert_same_run(two, whole)


def go_here(path: Path, reference: Path) -> bool:
    tiny_run.run(path)
    assert_close_run(path, reference)
    return True


def test_killed_with_one_rank_the_others_leave_and_the_same_command_is_exact(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole", tmp_path / "run"
    values(ranks(2, go, whole, tiny_run.OPTIONS))
    outcomes = ranks(2, go, path, tiny_run.OPTIONS, 200, "kill")
    assert outcomes[1] == ("died", -signal.SIGKILL)
    assert outcomes[0][0] == "error"  # gloo notices that its peer has gone; nobody waits for ever
    values(ranks(2, go, path, tiny_run.OPTIONS))
    tiny_run.assert_same_run(path, whole)


def test_nan_on_one_rank_stops_all_with_the_same_sentence(tmp_path: Path) -> None:
    said = values(ranks(2, go, tmp_path / "run", tiny_run.OPTIONS, 140, "nan"))
    assert said[0] == said[1]
    assert said[0].startswith("BatchDivergedError 4: loss nan")
    assert "samples 128-143" in said[0]
    assert "not finite: sample 136 (" in said[0]  # of the second rank's half
    assert checkpoints.newest_valid(tmp_path / "run" / "checkpoints")[0].nimg == 128  # type: ignore[union-attr]


def test_nan_on_one_rank_rolls_all_back(tmp_path: Path) -> None:
    options = replace(tiny_run.OPTIONS, on_nan="rollback")
    said = values(ranks(2, go, tmp_path / "run", options, 140, "nan"))
    assert said[0] == said[1]
    assert checkpoints.newest_valid(tmp_path / "run" / "checkpoints")[0].meta["skipped"] == [128]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [("data", "DataError 3: this machine cannot read the images"), ("disk", "DataError 3: .*No space left on device")],
)
def test_what_goes_wrong_on_one_rank_is_said_by_all(tmp_path: Path, harm: str, sentence: str) -> None:
    said = values(ranks(2, go, tmp_path / "run", tiny_run.OPTIONS, -1, harm))
    assert all(re.match(sentence, line) for line in said), said


def test_a_sharded_run_writes_whole_checkpoints_that_one_process_continues(reference: Path, tmp_path: Path) -> None:
    path, options = tmp_path / "run", replace(tiny_run.OPTIONS, shard=True)
    said = values(ranks(2, go, path, options, 104, "signal"))
    assert "saved at 112 images" in said[0]
    stored = checkpoints.newest_valid(path / "checkpoints")[0]
    expected = checkpoints.newest_valid(reference / "checkpoints")[0]
    assert stored is not None
    assert expected is not None
    for group, tensors in expected.groups.items():
        assert {k: t.shape for k, t in stored.groups[group].items()} == {k: t.shape for k, t in tensors.items()}
    other = Path(shutil.copytree(path, tmp_path / "other"))
    assert go_here(other, reference)
    values(ranks(2, go, path, options))
    assert_close_run(path, reference)
