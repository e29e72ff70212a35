"""A checkpoint is whole or not there, whatever interrupts its writing, and the newest one that holds is found."""

from __future__ import annotations

import builtins
import errno
import json
import os
import pickle
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch

from ambient_theory.shared.errors import BusyError, DataError, StoppedError, UsageError
from ambient_theory.shared.files import exclusive_lock, write_sealed
from ambient_train.training import checkpoints
from ambient_train.training.checkpoints import Checkpoint


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was never disturbed."""
    path = tmp_path_factory.mktemp("reference") / "run"
    tiny_run.run(path)
    return path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training after SIGTERM at 256 images."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(StoppedError, match="stopped by SIGTERM: saved at 256 images") as caught:
        tiny_run.run(path, listener=stop_at(256))
    assert caught.value.exit_code == 143
    return path


def small(nimg: int, value: float = 0.0) -> Checkpoint:
    tensors = {"a": torch.full((3, 2), value + nimg), "b": torch.arange(5)}
    return Checkpoint({"network": tensors, "ema": {"a": tensors["a"] / 2}}, {"nimg": nimg, "config_hash": "x"})


def in_child(action: Callable[[], object]) -> int:
    """Exit status of a forked child: 0, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at_call(number: int) -> None:
    """kill -9 this process before its `number`-th call that touches the file system."""
    calls = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal calls
        if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "tempfile.mkstemp"):
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def test_killed_before_any_file_system_call_of_a_save_the_loader_sees_the_old_or_the_new_one(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, small(16))
    seen: list[int] = []
    for number in range(1, 200):

        def save(at: int = number) -> None:
            die_at_call(at)
            checkpoints.save(tmp_path, small(32))

        status = in_child(save)
        found, complaints = checkpoints.newest_valid(tmp_path)
        assert found is not None
        assert complaints == []
        seen.append(found.nimg)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        if found.nimg == 32:  # only the flush of the folder was left
            shutil.rmtree(tmp_path / "000000000032")
    assert status == 0
    assert len(seen) > 10
    assert seen[-1] == 32
    assert set(seen[:5]) == {16}
    checkpoints.prune(tmp_path, 1, set())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000000032"]  # nothing of the killed ones is left


@pytest.mark.parametrize("call", ["replace", "fsync", "mkdir", "builtins"])
def test_an_error_at_any_write_is_raised_and_the_earlier_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    checkpoints.save(tmp_path, small(16))
    module, name = (builtins, "open") if call == "builtins" else (os, call)
    original = getattr(module, name)
    failed = 0
    for number in range(50):
        calls = 0

        def failing(*arguments: object, at: int = number, **keywords: object) -> object:
            nonlocal calls
            calls += 1
            if calls == at + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments, **keywords)

        monkeypatch.setattr(module, name, failing)
        try:
            checkpoints.save(tmp_path, small(32))
        except OSError:
            failed += 1
        finally:
            monkeypatch.setattr(module, name, original)
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
        newest, complaints = checkpoints.newest_valid(tmp_path)
        assert newest is not None
        assert complaints == []
        if calls <= number:
            break
        assert newest.nimg in (16, 32)  # 32 where only a flush of a folder failed
        shutil.rmtree(tmp_path / "000000000032", ignore_errors=True)
    assert failed >= 1
    assert newest.nimg == 32


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


def poison(file: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(file.parents[2] / "executed"),)

    file.write_bytes(pickle.dumps(Evil()))


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("network.safetensors", truncate),
        ("optimizer.safetensors", flip),
        ("ema.safetensors", Path.unlink),
        ("network.safetensors", poison),
        ("meta.json", flip),
        ("manifest.json", Path.unlink),
        ("manifest.json", truncate),
    ],
)
def test_a_damaged_newest_checkpoint_is_passed_over_said_so_and_the_run_ends_the_same(
    reference: Path, stopped: Path, tmp_path: Path, harm: Callable[[Path], None], name: str
) -> None:
    path = Path(shutil.copytree(stopped, tmp_path / "run"))
    newest = checkpoints.available(path / "checkpoints")[-1]
    assert newest.name.endswith("256")
    harm(newest / name)
    said: list[str] = []
    tiny_run.run(path, talk=said.append)
    assert any("passed over" in line and newest.name in line for line in said)
    assert any("continuing at 224 images" in line for line in said)
    assert not (tmp_path / "executed").exists()
    tiny_run.assert_same_run(path, reference)


def stop_at(nimg: int) -> Callable[[object], None]:
    """A listener that sends this process SIGTERM after so many images of training."""

    def listen(progress: object) -> None:
        if progress.phase == "training" and progress.done == nimg:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)

    return listen


def test_only_damaged_checkpoints_are_refused_with_a_sentence(stopped: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(stopped, tmp_path / "run"))
    for directory in checkpoints.available(path / "checkpoints"):
        flip(directory / "ema.safetensors")
    with pytest.raises(DataError, match=r"no checkpoint in .* holds .*ema\.safetensors: damaged .*remove that folder"):
        tiny_run.run(path)


def test_pruning_counts_only_checkpoints_that_hold_and_deletes_nothing_if_the_newest_does_not(tmp_path: Path) -> None:
    for nimg in (16, 32, 48, 64):
        checkpoints.save(tmp_path, small(nimg))
    flip(tmp_path / "000000000048" / "network.safetensors")
    checkpoints.prune(tmp_path, 2, set())
    assert [p.name for p in checkpoints.available(tmp_path)] == ["000000000032", "000000000048", "000000000064"]
    flip(tmp_path / "000000000064" / "network.safetensors")
    checkpoints.prune(tmp_path, 1, set())
    assert (tmp_path / "000000000032").is_dir()
    found, complaints = checkpoints.newest_valid(tmp_path)
    assert found is not None
    assert found.nimg == 32
    assert len(complaints) == 2


def test_protected_checkpoints_stay(tmp_path: Path) -> None:
    for nimg in (16, 32, 48):
        checkpoints.save(tmp_path, small(nimg))
    checkpoints.prune(tmp_path, 1, {16})
    assert [int(p.name) for p in checkpoints.available(tmp_path)] == [16, 48]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_the_run_with_a_sentence_and_loses_nothing(
    reference: Path, tmp_path: Path, number: int
) -> None:
    path = tmp_path / "run"
    said = r"what was saved before is intact; make room, then the same command"
    with tiny_run.full_disk(number), pytest.raises(DataError, match=said) as caught:
        tiny_run.run(path)
    assert caught.value.exit_code == 3
    found, complaints = checkpoints.newest_valid(path / "checkpoints")
    assert found is not None
    assert (found.nimg, complaints) == (64, [])
    assert [p for p in (path / "checkpoints").iterdir() if p.name.startswith(".")] == []
    tiny_run.run(path)
    tiny_run.assert_same_run(path, reference)


def test_a_file_size_limit_of_the_system_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    import resource

    big = Checkpoint({"network": {"a": torch.zeros(40_000)}}, {"nimg": 32})
    checkpoints.save(tmp_path, small(16))

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        with pytest.raises(OSError, match="File too large"):
            checkpoints.save(tmp_path, big)

    assert in_child(limited) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["000000000016"]
    assert checkpoints.holds(tmp_path / "000000000016")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"sigma": 0.4}, "sigma: 0.3 -> 0.4"),
        ({"n_clean": 31}, "n_clean: 30 -> 31"),
        ({"network": {"model_channels": 8}}, "network: "),
        ({"seed": 1, "lr": 1e-3}, "lr: .*; seed: 0 -> 1"),
    ],
)
def test_another_config_on_the_same_directory_is_refused_with_the_keys(
    reference: Path, change: dict[str, object], key: str
) -> None:
    with pytest.raises(UsageError, match=f"holds a run with another config .*{key}"):
        tiny_run.run(reference, changes=change)


def test_a_checkpoint_of_another_architecture_is_passed_over(reference: Path, stopped: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(stopped, tmp_path / "run"))
    found = checkpoints.load(checkpoints.available(path / "checkpoints")[-1])
    groups = {**found.groups, "network": dict(list(found.groups["network"].items())[1:])}
    checkpoints.save(path / "checkpoints", Checkpoint(groups, {**found.meta, "nimg": 272}))
    said: list[str] = []
    tiny_run.run(path, talk=said.append)
    assert any("its network is not of this architecture" in line for line in said)
    tiny_run.assert_same_run(path, reference)


def test_a_second_process_on_a_run_directory_is_refused_and_a_dead_one_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        with exclusive_lock(path / "lock"):
            os.write(ready[1], b"x")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    with pytest.raises(BusyError, match="in use by another process"):
        tiny_run.run(path)
    assert BusyError.exit_code == 2
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    tiny_run.run(path, duration=32)


@pytest.mark.parametrize("seed", range(40))
def test_fuzzed_checkpoints_give_an_error_or_the_same_tensors_never_anything_else(tmp_path: Path, seed: int) -> None:
    """Bytes flipped, inserted and cut at random; with the seal made to fit, so that the parsers see them."""
    generator = np.random.default_rng(seed)
    directory = checkpoints.save(tmp_path, small(16))
    names = ["network.safetensors", "ema.safetensors", "meta.json"]
    name = names[seed % 3]
    data = bytearray((directory / name).read_bytes())
    for _ in range(generator.integers(1, 6)):
        place = int(generator.integers(0, min(len(data), 120)))
        data[place : place + int(generator.integers(0, 3))] = generator.bytes(int(generator.integers(0, 3)))
    if bytes(data) == (directory / name).read_bytes():
        data[0] ^= 1
    (directory / name).write_bytes(data)
    with pytest.raises(DataError):
        checkpoints.load(directory)
    hashes = {n: checkpoints.hashlib.sha256((directory / n).read_bytes()).hexdigest() for n in names}
    write_sealed(directory / "manifest.json", {"schema": checkpoints.SCHEMA, "nimg": 16, "files": hashes})
    try:
        loaded = checkpoints.load(directory)
    except DataError:
        return
    assert all(isinstance(t, torch.Tensor) for tensors in loaded.groups.values() for t in tensors.values())


@pytest.mark.parametrize(
    "files",
    [None, [], {"../outside.json": "0"}, {"meta.json": 5}, {}],
)
def test_a_manifest_with_a_fitting_seal_but_wrong_content_is_an_error(tmp_path: Path, files: object) -> None:
    directory = checkpoints.save(tmp_path, small(16))
    write_sealed(directory / "manifest.json", {"schema": checkpoints.SCHEMA, "nimg": 16, "files": files})
    with pytest.raises(DataError):
        checkpoints.load(directory)
    (directory / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(DataError):
        checkpoints.load(directory)


def test_result_that_was_edited_is_scored_again(reference: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(reference, tmp_path / "run"))
    stored = json.loads((path / "result.json").read_text())
    stored["points"][0]["records"][0]["value"] = 0.0
    (path / "result.json").write_text(json.dumps(stored))
    tiny_run.run(path)
    tiny_run.assert_same_run(path, reference)


def test_what_a_kill_left_of_a_checkpoint_goes_with_the_next_start_also_where_none_is_saved_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run"
    tiny_run.run(path)
    (path / "result.json").unlink()
    left = path / "checkpoints" / ".000000000320.4711.tmp"
    left.mkdir()
    (left / "network.safetensors").write_bytes(b"half")
    tiny_run.run(path)
    assert not left.exists()
    assert (path / "result.json").exists()
