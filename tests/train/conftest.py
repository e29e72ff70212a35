"""A training small enough for a test, on the embedded digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from invoke import TINY, ambient

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `tiny_config`, trained once; for tests that only read it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(TINY)
    arguments = ("--config", folder / "tiny.toml", "--outdir", folder / "run", "--device", "cpu", "--quiet")
    result = ambient("train", *arguments)
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture
def tiny_config(tmp_path: Path) -> Path:
    """A config file for `ambient train --config`."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path
