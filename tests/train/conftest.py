"""A training small enough for a test, on the embedded digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

TINY = """
duration_nimg = 96
batch = 16
precision = "fp32"
lr_ramp_nimg = 32
network = { model_channels = 4, channel_mult = [1, 2], emb_channels = 8 }
evaluation = { n = 40, extractors = ["pixels"], metrics = ["fd"], denoise = 16, sampler = { steps = 2 } }
"""


@pytest.fixture
def tiny_config(tmp_path: Path) -> Path:
    """A config file for `ambient train --config`."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path
