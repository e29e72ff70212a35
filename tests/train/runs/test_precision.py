"""What `auto` means is settled when a run begins; fp32 is fp32 in convolutions too; checks by what a device has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ambient_theory.shared.errors import UsageError
from ambient_train.networks.execution import arithmetic
from ambient_train.runs import precision
from ambient_train.runs.directory import RunDirectory
from ambient_train.runs.precision import absent, check_precision, settled
from ambient_train.settings.layers import TrainSettings, settings_from
from ambient_train.settings.presets import PRESETS
from ambient_train.settings.run_options import RunOptions
from ambient_train.sweep.grid import SweepCell
from ambient_train.sweep.pool import cell_state, run_cell
from ambient_train.tasks.train import TrainResult, train

CPU = torch.device("cpu")
TINY = {
    "preset": "digits",
    "precision": "auto",
    "max_images": 64,
    "batch": 16,
    "duration": 32,
    "network": {"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8},
    "evaluation": {"n": 40, "extractors": ["pixels"], "metrics": ["fd"], "denoise": 0, "sampler": {"steps": 2}},
}


def device_with(monkeypatch: pytest.MonkeyPatch, bf16: bool) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: bf16)


def stored(path: Path) -> tuple[str, str]:
    """Precision and content of the newest weights of a run."""
    return RunDirectory(path).precision(), (path / "log.txt").read_text()


def test_large_presets_leave_the_arithmetic_to_the_device_and_small_ones_do_not() -> None:
    assert {name: p.train["precision"] for name, p in PRESETS.items()} == {
        **dict.fromkeys(("cifar10", "celeba64", "imagenet64"), "auto"),
        **dict.fromkeys(("digits", "fashion", "small"), "fp32"),
    }


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_device_has(monkeypatch: pytest.MonkeyPatch, bf16: bool, expected: str) -> None:
    device_with(monkeypatch, bf16)
    assert settled(settings_from(TINY), CPU).train.precision == expected
    asked = settings_from({**TINY, "precision": "fp32"})
    assert settled(asked, CPU) is asked


@pytest.mark.parametrize("named", [True, False])
def test_a_run_keeps_its_arithmetic_on_another_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], named: bool
) -> None:
    monkeypatch.chdir(tmp_path)

    def go(duration: int) -> Path:
        settings: TrainSettings = settings_from({**TINY, "duration": duration})
        result = train(settings, RunOptions(device="cpu", score=False), outdir=Path("run") if named else None)
        assert isinstance(result, TrainResult)
        return result.directory

    device_with(monkeypatch, True)
    first = go(32)
    assert "precision bf16: auto on this cpu device, kept by the run" in capsys.readouterr().err
    device_with(monkeypatch, False)
    assert go(64) == first
    assert "precision bf16: as the run began" in capsys.readouterr().err
    said, log = stored(first)
    assert said == "bf16"
    assert log.count("precision bf16 on cpu") == 2


def test_a_cell_of_a_sweep_keeps_its_arithmetic_on_another_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cell = SweepCell("only", 0, settings_from(TINY), {})
    assert cell_state(cell, tmp_path) == ("missing", None)
    device_with(monkeypatch, False)
    first = run_cell(cell, tmp_path)
    assert first.state == "done", first.message
    assert stored(Path(first.directory))[0] == "fp32"
    device_with(monkeypatch, True)
    assert cell_state(cell, tmp_path) == ("done", Path(first.directory))
    assert run_cell(cell, tmp_path).directory == first.directory


@pytest.mark.parametrize(("name", "rounded"), [("fp32", False), ("tf32", True), ("bf16", True), ("fp16", True)])
def test_float32_is_rounded_in_products_and_convolutions_alike_and_the_choice_ends_with_the_block(
    name: str, rounded: bool
) -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [f.allow_tf32 for f in flags]
    with arithmetic(name):
        assert [f.allow_tf32 for f in flags] == [rounded, rounded]
        assert not torch.are_deterministic_algorithms_enabled()
        with arithmetic("fp32", deterministic=True):
            assert [f.allow_tf32 for f in flags] == [False, False]
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.backends.cudnn.deterministic
            with arithmetic(name):  # sampling on the way
                assert torch.are_deterministic_algorithms_enabled()
    assert [f.allow_tf32 for f in flags] == before
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("name", ["fp16", "tf32"])
def test_what_a_cpu_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"precision {name} needs a GPU: use bf16 or fp32 on a CPU"):
        check_precision(name, CPU)
    assert absent(name, torch.device("cuda")) == absent("bf16", CPU) == ""


def test_a_deterministic_run_is_the_same_run(tmp_path: Path) -> None:
    settings = settings_from({**TINY, "precision": "fp32"})
    train(settings, RunOptions(device="cpu", score=False, deterministic=True), outdir=tmp_path / "run")
    train(settings, RunOptions(device="cpu", score=False), outdir=tmp_path / "run")
    assert "precision fp32 on cpu, deterministic" in stored(tmp_path / "run")[1]
