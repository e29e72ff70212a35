"""`make gpu` runs to its end on a CPU at toy size, and writes one JSON with every number or null."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_the_sitting_on_a_gpu_runs_to_its_end_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [ROOT / "experiments" / "gpu.sh", out, "--cpu"],
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert (found["schema"], found["toy"]) == ("ambient.gpu/1", True)
    assert found["tests"]["passed"] >= 3
    assert [(r["network"], r["precision"], r["compiled"]) for r in found["steps"]] == [
        (network, precision, compiled)
        for network in ("CIFAR-10 DDPM++", "ImageNet-64 ADM")
        for precision, compiled in (("fp32", False), ("tf32", False), ("fp16", False), ("bf16", False), ("bf16", True))
    ]
    for row in found["steps"]:
        assert row["step_s"] > 0
        assert row["flops_per_image"] > 1e6
        assert row["mfu"] is row["idle_share"] is None  # of no GPU
    assert found["ranks"]["largest_difference"] < 1e-4
    assert found["grid"]["cells_done"] == 2
    assert {r["cell"] for r in found["grid"]["records"]} == {"clean", "10 % clean + 90 % noisy"}


def test_without_a_gpu_it_says_what_to_do(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([ROOT / "experiments" / "gpu.sh", tmp_path / "x"], env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "give --cpu" in done.stderr
