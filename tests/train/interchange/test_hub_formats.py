"""Networks in and out: every format gives the same network, and what does not fit together is a sentence."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from edm_formula import FIXTURES, fixture_config, load_formula_weights
from invoke import ambient
from safetensors.torch import load_file, save_file

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.interchange import hub
from ambient_train.interchange.edm_snapshot import read_edm_snapshot
from ambient_train.interchange.load import export, load_trained
from ambient_train.networks.precond import EDMPrecond
from ambient_train.training import checkpoints

torch.set_num_threads(1)
SNAPSHOT = FIXTURES / "ddpmpp.network-snapshot.pkl"


@pytest.fixture
def network() -> EDMPrecond:
    made = EDMPrecond(**fixture_config("ddpmpp")).eval()
    load_formula_weights(made)
    return made


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[k], right[k]) for k in left)


def test_snapshot_holds_the_fixture_network(network: EDMPrecond) -> None:
    loaded = load_trained(SNAPSHOT).network
    config = loaded.config
    assert same_weights(loaded, network)
    assert config == fixture_config("ddpmpp")
    assert not loaded.training
    io = load_file(FIXTURES / "ddpmpp.io.safetensors")
    with torch.no_grad():
        out = loaded(io["x"], io["sigma"], None, io["augment_labels"])
    torch.testing.assert_close(out, io["denoised"], atol=1e-5, rtol=0)
    assert read_edm_snapshot(SNAPSHOT).dataset["path"] == "cifar10-32x32.zip"


@pytest.mark.parametrize("name", ["ddpmpp", "ncsnpp", "adm"])
def test_hub_directory_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    made = EDMPrecond(**fixture_config(name)).to(memory_format=torch.channels_last)
    load_formula_weights(made)
    written = hub.write_hub(made, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == fixture_config(name)
    loaded = load_trained(tmp_path / "out").network
    config = loaded.config
    assert same_weights(made, loaded)
    assert config["sigma_max"] == math.inf
    assert written.parameters == sum(p.numel() for p in made.parameters())
    again = load_trained(tmp_path / "out" / "model.safetensors").network
    assert same_weights(again, loaded)
    assert all(p.requires_grad for p in loaded.parameters())


def test_converted_snapshot_equals_exported_snapshot(tmp_path: Path, network: EDMPrecond) -> None:
    export(SNAPSHOT, tmp_path / "a")
    export(SNAPSHOT, tmp_path / "b")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert same_weights(load_trained(tmp_path / "a").network, network)


def test_old_weight_files_are_read(tmp_path: Path, network: EDMPrecond) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fixture_config("ddpmpp")))
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    assert same_weights(load_trained(tmp_path).network, network)


def test_filters_may_be_missing_but_not_differ(tmp_path: Path, network: EDMPrecond) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fixture_config("ddpmpp")))
    state = network.state_dict()
    save_file({k: v for k, v in state.items() if "resample_filter" not in k}, tmp_path / "model.safetensors")
    assert same_weights(load_trained(tmp_path).network, network)
    state["model.enc.8x8_down.conv0.resample_filter"] = state["model.enc.8x8_down.conv0.resample_filter"] * 1.1
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="not the filter"):
        load_trained(tmp_path)


def test_half_precision_weights_become_float32(tmp_path: Path, network: EDMPrecond) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fixture_config("ddpmpp")))
    save_file({k: v.half() for k, v in network.state_dict().items()}, tmp_path / "model.safetensors")
    loaded = load_trained(tmp_path).network
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    name = "model.dec.16x16_block0.conv0.weight"
    torch.testing.assert_close(loaded.state_dict()[name], network.state_dict()[name], atol=1e-3, rtol=1e-3)


def test_run_directory_gives_averaged_or_plain_weights(tmp_path: Path, network: EDMPrecond) -> None:
    state = network.state_dict()
    averaged = {name: p.detach() * 0.5 for name, p in network.named_parameters()}
    for nimg, scale in ((100, 3.0), (200, 1.0)):
        groups = {"network": {k: v * (scale if "filter" not in k else 1) for k, v in state.items()}, "ema": averaged}
        meta = {"nimg": nimg, "architecture": network.config}
        checkpoints.save(tmp_path / "checkpoints", checkpoints.Checkpoint(groups, meta))
    plain = load_trained(tmp_path, weights="network").network
    config = plain.config
    assert same_weights(plain, network)
    assert config["model_channels"] == 16
    ema = load_trained(tmp_path).network
    assert all(torch.equal(p, averaged[name]) for name, p in ema.named_parameters())
    older = load_trained(tmp_path / "checkpoints" / checkpoints.directory_name(100), weights="network").network
    assert torch.equal(older.state_dict()["model.map_layer0.weight"], 3 * state["model.map_layer0.weight"])
    with pytest.raises(UsageError, match="ema, network"):
        load_trained(tmp_path, weights="best")
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(DataError, match="no checkpoint that holds"):
        load_trained(tmp_path)


def test_a_checkpoint_is_found_by_images_rounded_up_to_steps_and_others_are_named(trained: Path) -> None:
    assert load_trained(trained, nimg=85).nimg == load_trained(trained, nimg=96).nimg == 96
    kept = ", ".join(str(int(p.name)) for p in checkpoints.available(trained / "checkpoints"))
    with pytest.raises(UsageError, match=f"no checkpoint after 1000 images: give one of {kept}$"):
        load_trained(trained, nimg=1000)


def test_a_moment_or_a_set_of_weights_is_refused_of_what_holds_one(trained: Path, tmp_path: Path) -> None:
    export(trained, tmp_path / "out")
    newest = checkpoints.available(trained / "checkpoints")[-1]
    for source in (tmp_path / "out", tmp_path / "out" / "model.safetensors", newest, SNAPSHOT):
        with pytest.raises(UsageError, match="leave --at out"):
            load_trained(source, nimg=96)
        if source != newest:
            with pytest.raises(UsageError, match="leave weights 'network' out"):
                load_trained(source, weights="network")
    load_trained(newest, weights="network")


def test_another_network_is_never_overwritten(tmp_path: Path, network: EDMPrecond) -> None:
    hub.write_hub(network, tmp_path)
    hub.write_hub(network, tmp_path)  # the same again changes nothing
    before = (tmp_path / "model.safetensors").read_bytes()
    with torch.no_grad():
        next(network.parameters()).add_(1)
    with pytest.raises(UsageError, match="another network"):
        hub.write_hub(network, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    with pytest.raises(UsageError, match="is a file"):
        hub.write_hub(network, tmp_path / "config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_channels": 32}, "has shape"),
        ({"channel_mult": [1, 2, 2]}, "do not fit"),
        ({"model_type": "Transformer"}, "unknown architecture"),
        ({"wings": 2}, "make no network"),
        ({"img_resolution": None}, "img_resolution"),
        ({"num_blocks": 10**6}, "num_blocks"),
        ({"model_channels": 10**12}, "not between"),
        ({"model_channels": -16}, "not between"),
        ({"model_channels": "wide"}, "make no network"),
        ({"channel_mult": [1] * 1000}, "1000 entries"),
        ({"channel_mult": [[1, 2]]}, "type list"),
        ({"channel_mult": []}, "levels"),
        ({"img_resolution": 15}, "multiple of 2"),
        ({"dropout": 7}, "make no network"),
        ({"a b": 1}, "no name of a setting"),
    ],
)
def test_settings_that_do_not_fit_the_weights_are_a_sentence(tmp_path: Path, change: dict, message: str) -> None:
    export(SNAPSHOT, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**fixture_config("ddpmpp"), **change}))
    with pytest.raises((DataError, UsageError), match=message):
        load_trained(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\x00", '{"img_resolution": 16', "null"])
def test_broken_config_is_a_sentence(tmp_path: Path, text: str) -> None:
    export(SNAPSHOT, tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"config\.json"):
        load_trained(tmp_path)


def test_unknown_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_trained(tmp_path / "nothing")
    with pytest.raises(UsageError, match="neither a hub directory"):
        load_trained(tmp_path)
    (tmp_path / "image.png").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"\.pkl snapshot"):
        load_trained(tmp_path / "image.png")
    (tmp_path / "config.json").write_text(json.dumps(fixture_config("ddpmpp")))
    with pytest.raises(DataError, match="neither model"):
        load_trained(tmp_path)


def test_hugging_face_name_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"ambient-worth\[hub\]"):
        load_trained("hf:somebody/something")


def test_hugging_face_client_is_imported_only_when_asked_for() -> None:
    code = "import sys, ambient_train.interchange.hub; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_images_with_other_channels_than_the_network_makes_are_told() -> None:
    said = ambient("evaluate", SNAPSHOT, "--data", "digits", "--n-eval", 40, "--steps", 2, "--quiet")
    assert said.exit_code == 3
    assert "images with 1 channel(s), the network makes 3: give --data" in said.stderr
