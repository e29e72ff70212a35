"""EDM's presets build the full-size networks of the reference and are valid settings of ours."""

from __future__ import annotations

import json

import pytest
import torch
from edm_formula import FIXTURES

from ambient_train.diffusion.sampling import SamplerConfig
from ambient_train.networks.precond import EDMPrecond
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.edm_presets import EDM_ARCHITECTURES, EDM_PRESETS
from ambient_train.settings.layers import settings_from
from ambient_train.settings.presets import PRESETS, get_preset
from ambient_train.training.cost import count_parameters

REFERENCES = json.loads((FIXTURES / "full_size_state_dicts.json").read_text())


@pytest.mark.parametrize("name", EDM_PRESETS)
def test_presets_are_valid_settings(name: str) -> None:
    preset = get_preset(name)
    config = TrainConfig.from_dict(preset.train)
    SamplerConfig(**preset.sampler)
    assert config.to_dict()["network"] == EDM_PRESETS[name]["train"]["network"]


@pytest.mark.parametrize(
    ("preset", "architecture", "reference"),
    [
        ("cifar10", "ddpmpp", "ddpmpp-cifar10"),
        ("celeba64", "ncsnpp", "ncsnpp-celeba64"),
        ("imagenet64", "adm", "adm-imagenet64"),
    ],
)
def test_presets_build_the_full_size_reference_networks(preset: str, architecture: str, reference: str) -> None:
    train, expected = EDM_PRESETS[preset]["train"], REFERENCES[reference]
    model_type, keywords = EDM_ARCHITECTURES[architecture]
    if train["network"].get("channel_mult"):
        keywords = {**keywords, "channel_mult": train["network"]["channel_mult"]}
    with torch.device("meta"):
        network = EDMPrecond(
            expected["config"]["img_resolution"],
            3,
            label_dim=expected["config"]["label_dim"],
            model_type=model_type,
            augment_dim=9 if train["augment"] else 0,
            dropout=train["dropout"],
            **keywords,
        )
    assert network.config["dropout"] == expected["config"]["dropout"]
    ours = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    assert ours == expected["state_dict"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_how_many_parameters_its_network_has(name: str) -> None:
    preset = get_preset(name)
    config = settings_from({"preset": name}).train
    assert preset.parameters == count_parameters(config, preset.shape, 1000 if config.cond else 0)
