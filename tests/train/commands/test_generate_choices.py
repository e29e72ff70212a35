"""`ambient generate` with the choices of EDM's ablation: the default ones change no bit, the others are as named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from invoke import ambient

from ambient_theory.shared.options import Given
from ambient_train.diffusion.ablation_sampler import GeneralSamplerConfig, general_sampler
from ambient_train.diffusion.generate import sample
from ambient_train.diffusion.sampling import SamplerConfig
from ambient_train.interchange.load import load_trained
from ambient_train.stateless import normal
from ambient_train.tasks.generate import sampler_for


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    (folder / "tiny.toml").write_text(
        "duration_nimg = 32\nbatch = 16\nprecision = 'fp32'\n"
        "network = { model_channels = 4, channel_mult = [1, 2], emb_channels = 8 }\n"
        "evaluation = { n = 40, extractors = ['pixels'], metrics = ['fd'], denoise = 0, best = false,"
        " sampler = { steps = 2 } }\n"
    )
    out = folder / "run"
    result = ambient("train", "--config", folder / "tiny.toml", "--outdir", out, "--device", "cpu", "--quiet")
    assert result.exit_code == 0, result.output
    return out


def images(run: Path, out: Path, *more: object) -> tuple[np.ndarray, dict]:
    command = ["generate", run, "--outdir", out, "--seeds", "0-3", "--format", "npz", "--json", "--quiet"]
    result = ambient(*command, "--steps", 4, *more)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    return np.load(answer["path"])["images"], answer["sampler"]


def test_details_of_a_churn_that_is_not_asked_for_are_refused(run: Path, tmp_path: Path) -> None:
    refused = ambient("generate", run, "--outdir", tmp_path / "a", "--s-noise", 1.01)
    assert (refused.exit_code, "s_noise without churn: add --churn" in refused.stderr) == (2, True)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "more", [(), ("--solver", "euler"), ("--churn", 2, "--s-noise", 1.01), ("--stop-sigma", 1), ("--sigma-max", 5)]
)
def test_edm_linear_none_is_the_default_sampler_bit_for_bit(run: Path, tmp_path: Path, more: tuple) -> None:
    plain, settings = images(run, tmp_path / "a", *more)
    choices = ("--discretization", "edm", "--schedule", "linear", "--scaling", "none")
    general, named = images(run, tmp_path / "b", *more, *choices)
    assert (plain == general).all()
    assert "schedule" not in settings
    assert named["schedule"] == "linear"
    assert {k: named[k] for k in settings} == settings
    loaded = load_trained(run)
    flags = {"solver": "euler"} if "euler" in more else {}
    samplers = [
        sampler_for(loaded, Given(GeneralSamplerConfig, {**flags, **extra}))
        for extra in ({}, {"discretization": "edm"})
    ]
    assert [type(s) for s in samplers] == [SamplerConfig, GeneralSamplerConfig]
    a, b = (next(sample(loaded.network, [0, 1], (1, 8, 8), s)) for s in samplers)
    assert torch.equal(a, b)  # before rounding to uint8, too


@pytest.mark.parametrize(
    "choice",
    [
        {"discretization": "vp", "schedule": "vp", "scaling": "vp"},
        {"discretization": "ve", "schedule": "ve"},
        {"discretization": "iddpm"},
    ],
)
def test_other_choices_are_carried_out_with_their_published_range(
    run: Path, tmp_path: Path, choice: dict[str, str]
) -> None:
    options = [word for name, value in choice.items() for word in (f"--{name}", value)]
    made, settings = images(run, tmp_path / "a", *options)
    assert (settings["sigma_min"], settings["sigma_max"]) == (None, None)
    plain, _ = images(run, tmp_path / "b")
    assert (made != plain).any()
    denoise = load_trained(run).network
    with torch.no_grad():
        x = general_sampler(
            denoise, normal(0, "latent", torch.arange(4), (1, 8, 8)), GeneralSamplerConfig(steps=4, **choice)
        )
    wanted = ((x.float() + 1) * 127.5).round().clamp(0, 255).numpy()
    assert np.abs(made.astype(float) - wanted).max() <= 1


@pytest.mark.parametrize("option", ["--discretization", "--schedule", "--scaling"])
def test_a_name_that_does_not_exist_leaves_with_2_and_lists_the_names(run: Path, tmp_path: Path, option: str) -> None:
    result = ambient("generate", run, "--outdir", tmp_path / "x", "--quiet", option, "cosine")
    assert result.exit_code == 2
    assert "vp" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "x").exists()
