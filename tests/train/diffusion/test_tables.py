"""A loss, a draw and a noise model are one file each; what they say of themselves is read before torch is loaded."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import member

from ambient_train.data.load import ImageSet
from ambient_train.data.mixture import corrupt
from ambient_train.data.noise_models import TABLE as NOISE_MODELS
from ambient_train.diffusion.draws import TABLE as DRAWS
from ambient_train.diffusion.losses import TABLE as LOSSES
from ambient_train.settings.config import TrainConfig
from ambient_train.training.loop import train
from ambient_train.training.state import TrainState

TINY = TrainConfig(
    n_clean=20, n_noisy=44, sigma_n=0.3, batch=16, network={"model_channels": 4, "channel_mult": [1], "emb_channels": 8}
)

HALF_Y = '''"""Half the error against the image as it is."""

from ambient_train.diffusion.losses import y
from ambient_train.diffusion.losses._base import Loss

MEMBER = Loss(per_image=lambda x: y.per_image(x) / 2, finite_at_lowest_level=True)
'''

IN_ORDER = '''"""Images in their order, at one level above all noise."""

from ambient_train.diffusion.draws._base import Draw

MEMBER = Draw(pair=lambda x: ((x.u[:, 1] * 0).long(), 0 * x.u[:, 0] + 9.0))
'''

CONSTANT = '''"""The same z for every image."""

import torch

from ambient_train.data.noise_models.white import White


class Constant(White):
    def noise(self, seed, ids, shape):
        return torch.ones(len(ids), *shape)


MEMBER = Constant()
'''


def images() -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8)).astype(np.uint8)
    return ImageSet("test", pixels, None, np.arange(64, dtype=np.int64))


def losses_of(config: TrainConfig, nimg: int = 16) -> list[float]:
    data = corrupt(images(), n_clean=config.n_clean, n_noisy=config.n_noisy, sigma_n=config.sigma_n, seed=config.seed)
    state = TrainState(config, (1, 8, 8), 0, torch.device("cpu"))
    return [end.loss for end in train(state, data, nimg)]


def test_a_loss_is_one_file(tmp_path: Path) -> None:
    with member(LOSSES, "half-y", HALF_Y, tmp_path / "half"):
        assert LOSSES.descriptions["half-y"] == "Half the error against the image as it is"
        first = losses_of(replace(TINY, weight="half-y"))[0]
    assert first == pytest.approx(losses_of(replace(TINY, weight="y"))[0] / 2, rel=1e-6)
    assert "half-y" not in LOSSES


def test_a_draw_is_one_file(tmp_path: Path) -> None:
    with member(DRAWS, "in-order", IN_ORDER, tmp_path / "order"):
        config = replace(TINY, draw="in-order")
        assert losses_of(config) != losses_of(TINY)
    assert "in-order" not in DRAWS


def test_a_noise_model_is_one_file(tmp_path: Path) -> None:
    with member(NOISE_MODELS, "constant", CONSTANT, tmp_path / "constant"):
        data = corrupt(images(), n_clean=0, n_noisy=64, sigma_n=0.5, seed=0, noise="constant")
        added = data.batch(torch.arange(64)).numpy() - data.source.pixels()
        np.testing.assert_allclose(added, 0.5, atol=1e-6)


def test_what_members_say_of_themselves_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from ambient_train.diffusion.losses import TABLE as losses\n"
        "from ambient_train.diffusion.draws import TABLE as draws\n"
        "from ambient_train.data.noise_models import TABLE as noises\n"
        "print({n: losses[n].finite_at_lowest_level for n in losses}, [n for n in losses if losses[n].needs_error])\n"
        "print({n: draws[n].reaches_lowest_level for n in draws}, list(noises), noises['white'])\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "{'optimal': False, 'x0': False, 'y': True} ['optimal']",
        "{'clean-first': False, 'image-first': False, 'paper': True, 'sigma-first': False} "
        "['correlated', 'poisson-gaussian', 'variance-map', 'white'] White()",
    ]


def test_settings_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from ambient_train.diffusion.sampler_settings import GeneralSamplerConfig, SamplerConfig\n"
        "print(SamplerConfig(steps=5).bounds, GeneralSamplerConfig(discretization='ve').bounds)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "(0.002, 80.0) (0.02, 100.0)\n"), done.stderr
