"""The denoising error of a run, of an export and of a foreign network, for a price from one denoiser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invoke import ambient

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.reading import read_records
from ambient_train.interchange.load import export
from ambient_train.tasks.denoise import measure_denoising

TINY = """
data = "digits"
duration_nimg = 96
batch = 16
precision = "fp32"
lr_ramp_nimg = 32
network = { model_channels = 4, channel_mult = [1, 2], emb_channels = 8 }
[evaluation]
n = 40
extractors = ["pixels"]
metrics = ["fd"]
denoise = 40
sampler = { steps = 2 }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("denoise")
    (folder / "tiny.toml").write_text(TINY)
    out = folder / "run"
    result = ambient("train", "--config", folder / "tiny.toml", "--outdir", out, "--device", "cpu", "--quiet")
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    export(run, run.parent / "hub")
    return run.parent / "hub"


def test_a_run_and_its_export_measure_what_its_records_say(run: Path, exported: Path) -> None:
    records = [r for r in read_records(run) if r.metric == "denoise" and r.checkpoint == "last"]
    last = max(r.duration_nimg or 0 for r in records)
    wanted = {r.level: r.value for r in records if r.duration_nimg == last}
    for place in (run, exported):
        found = measure_denoising(place, images=40, device="cpu", quiet=True)
        assert dict(zip(found["levels"], found["mean"], strict=True)) == pytest.approx(wanted, rel=1e-4)
        assert found["n"] == 40
        assert found["n_clean"] == records[0].n_clean


def test_a_network_of_no_run_is_measured_on_the_data_that_are_named(exported: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    with pytest.raises(UsageError, match="give --data"):
        measure_denoising(tmp_path, device="cpu", quiet=True)
    found = measure_denoising(tmp_path, data="digits", images=30, device="cpu", quiet=True)
    assert (found["n_clean"], found["n"], found["dataset"]) == (None, 30, "digits")
    with pytest.raises(DataError, match="do not fit a network"):
        measure_denoising(tmp_path, data="photos32", images=30, resolution=32, device="cpu", quiet=True)


def test_price_predicts_from_a_run_and_from_an_export(run: Path, exported: Path) -> None:
    for source, most in ((run, ()), (exported, ("--n-denoise", 40))):  # the run holds records
        result = ambient("price", "--sigma", 0.4, "--from", source, *most, "--json", "--quiet")
        assert result.exit_code == 0, result.output
        answer = json.loads(result.stdout)
        assert answer["dataset"] == "digits"
        assert answer["price_above_the_noise"][0] >= 1
