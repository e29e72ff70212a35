"""64 features of the embedded classifier of grey images (digits and Fashion-MNIST, 20 classes).

    image uint8 [N, 1, H, W] -> canonical [N, 1, 16, 16] in [-1, 1] -> four convolutions -> 64 features -> 20 logits

Every size is first brought to 16x16: larger images by the mean over areas, smaller ones by linear interpolation. Both
are linear maps, so the canonical image is `R_h x R_w^T` with two fixed matrices. The 64 features are the linear outputs
of the last hidden layer, scaled to mean 0 and variance 1 on the training images. Batch normalisation is used
in training only (`experiments/train_features.py`) and folded into the weights, which leaves convolutions with a bias.

A Frechet distance in these features is comparable only with another one in the same features: it is not FID.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from ambient_theory.shared.errors import DataError
from ambient_train.data.resize import area_weights
from ambient_train.evaluation.extractors._base import Device, Extractor, ExtractorKind, Features

CANONICAL_SIZE = 16
FEATURE_DIM = 64
CLASSES = (
    *(f"digit {k}" for k in range(10)),
    *("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
DEFINITION = "smallcnn/1: uint8/127.5-1, area or linear to 16x16, conv 3x3 32 relu, 48/2, 64, 96/2, mean 2x2, linear 64"


@functools.cache
def resize_matrix(size: int, target: int = CANONICAL_SIZE) -> torch.Tensor:
    """Matrix [target, size] of the one-dimensional resize; every row sums to 1.

    size >= target: row i is the mean over the interval [i, i+1) size/target (exact fractional areas).
    size < target: linear interpolation between pixel centres, the border pixel repeated outside.
    """
    if size < 1:
        raise DataError(f"an image side must be at least 1 pixel, not {size}")
    if size >= target:
        overlaps, total = area_weights(size, target)
        return torch.from_numpy(overlaps / total).float()
    matrix = np.zeros((target, size))
    position = np.clip((np.arange(target) + 0.5) * (size / target) - 0.5, 0, size - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, size - 1)
    np.add.at(matrix, (np.arange(target), low), 1 - (position - low))
    np.add.at(matrix, (np.arange(target), high), position - low)
    return torch.from_numpy(matrix).float()


def canonicalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 [N, 1, H, W] -> float32 [N, 1, 16, 16] in [-1, 1]: `R_h (x / 127.5 - 1) R_w^T`."""
    x = images.to(torch.float32) / 127.5 - 1
    rows = resize_matrix(x.shape[-2]).to(x.device)
    columns = resize_matrix(x.shape[-1]).to(x.device)
    return rows @ x @ columns.T


class SmallCNN(nn.Module):
    """Canonical images [N, 1, 16, 16] -> features [N, 64]; `logits` maps features to the 20 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 48, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(48, 64, 3, padding=1)
        self.conv4 = nn.Conv2d(64, 96, 3, stride=2, padding=1)
        self.features = nn.Linear(96 * 2 * 2, FEATURE_DIM)
        self.classifier = nn.Linear(FEATURE_DIM, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.relu(conv(x))
        return self.features(F.avg_pool2d(x, 2).flatten(1))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N, 64] -> class logits [N, 20], through a rectifier."""
        return self.classifier(F.relu(features))


def weights_bytes() -> bytes:
    """The safetensors file inside the package, as bytes. Raises DataError if the installation lacks it."""
    try:
        return _weights_directory().joinpath("smallcnn.safetensors").read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"the embedded feature network is missing from this installation ({error.filename})") from None


def card() -> Mapping[str, Any]:
    """What the embedded weights were trained on, by which command, and what accuracy they reach."""
    return json.loads(_weights_directory().joinpath("smallcnn.json").read_text(encoding="utf-8"))


def load_smallcnn(data: bytes | None = None) -> SmallCNN:
    """The network with the embedded weights (or those of `data`), in evaluation mode, without gradients."""
    from safetensors.torch import load

    network = SmallCNN()
    network.load_state_dict(load(weights_bytes() if data is None else data))
    return network.eval().requires_grad_(False)


def _weights_directory() -> Any:
    return resources.files("ambient_train.evaluation").joinpath("weights")


class SmallCNNFeatures(Extractor):
    """64 features of the embedded classifier of grey images (see the module); hash of weights and definition."""

    name = "smallcnn"
    dim = FEATURE_DIM
    channels = (1,)
    classes = len(CLASSES)

    def __init__(self, device: Device = "cpu") -> None:
        weights = weights_bytes()
        self.hash = hashlib.sha256(DEFINITION.encode() + b"\0" + weights).hexdigest()[:8]
        self._device = torch.device(device)
        network = load_smallcnn(weights).to(self._device)
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def _forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self._network(canonicalise(batch.to(self._device)))

    def _features(self, batch: torch.Tensor) -> Features:
        return self._forward(batch).cpu().numpy()

    @torch.inference_mode()
    def _both(self, batch: torch.Tensor) -> tuple[Features, npt.NDArray[np.float64]]:
        features = self._forward(batch)
        return features.cpu().numpy(), self._network.logits(features).double().softmax(1).cpu().numpy()


def _build(path: str, device: Device) -> Extractor:
    return SmallCNNFeatures(device)


MEMBER = ExtractorKind(build=_build, default_channels=(1,), default_rank=1)
