"""Recomputed activations: the same run to the bit, less memory kept, and a refusal where there are no blocks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import OPTIONS, assert_same_run, job, run

from ambient_theory.shared.errors import UsageError
from ambient_train.training.cost import measure

EDM: dict[str, Any] = {
    "arch": "SongUNet",
    "dropout": 0.1,
    "network": {"model_channels": 8, "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": []},
}
RECOMPUTE = replace(OPTIONS, recompute=True)


def test_a_run_with_recomputed_activations_is_the_same_run_to_the_bit(tmp_path: Path) -> None:
    for name, options in (("kept", OPTIONS), ("recomputed", RECOMPUTE)):
        run(tmp_path / name, options, duration=64, changes=EDM)
    assert_same_run(tmp_path / "kept", tmp_path / "recomputed")


def test_an_image_keeps_less_memory_where_activations_are_recomputed() -> None:
    asked = job(64, **EDM)
    kept, recomputed = (
        measure(asked.config, asked.training_set(), 0, torch.device("cpu"), recompute=on, budget_s=1.0)
        for on in (False, True)
    )
    assert recomputed.activation_bytes(8) < kept.activation_bytes(8) / 2


def test_a_network_without_blocks_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="SmallUNet has no blocks"):
        run(tmp_path / "run", RECOMPUTE)
    assert not (tmp_path / "run").exists()
