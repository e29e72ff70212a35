"""The command line as a test calls it."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from cli import app

TINY = """
duration_nimg = 96
batch = 16
precision = "fp32"
lr_ramp_nimg = 32
network = { model_channels = 4, channel_mult = [1, 2], emb_channels = 8 }
evaluation = { n = 40, extractors = ["pixels"], metrics = ["fd"], denoise = 16, sampler = { steps = 2 } }
"""
"""A training small enough for a test, on the embedded digits: a config file."""


def ambient(*arguments: object) -> Result:
    """`ambient ARGUMENTS` in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments])
