"""Feature extractors by name: `pixels` and the embedded `smallcnn` here, large networks in `pretrained`.

    extractor(images uint8 [N, C, H, W]) -> features float [N, d]

Every extractor carries a hash of all that determines its features (weights, architecture, preprocessing), because a
Frechet or kernel distance is comparable only with another one in the same features. `label` is `name:hash8`.
Generated images are clipped and rounded to uint8 first (`to_uint8`), as Heusel et al. (2017) do for FID.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt
import torch

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.evaluation.extractors import smallcnn

Images = npt.NDArray[np.uint8] | torch.Tensor
Features = npt.NDArray[np.floating]


def exact_convolutions() -> AbstractContextManager[None]:
    """Convolutions in full float32 on a GPU, where cuDNN otherwise rounds to TF32 (about three digits)."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


class Extractor(ABC):
    """A named map from uint8 images to feature vectors.

    name: what the user types. hash: 8 hex digits of what determines the features. dim: features per image, None if it
    depends on the image size. channels: accepted numbers of channels, None for any. classes: number of class
    probabilities (`probabilities`), None without a classifier.
    """

    name: str
    hash: str
    dim: int | None = None
    channels: tuple[int, ...] | None = None
    classes: int | None = None
    batch_size: int = 500

    @property
    def label(self) -> str:
        """`name:hash8`, as records store it."""
        return f"{self.name}:{self.hash}"

    @property
    def metric_name(self) -> str:
        """Name of the Frechet distance in these features. Only Inception's is called FID."""
        return "fd"

    def __call__(self, images: Images) -> Features:
        """uint8 images [N, C, H, W] -> features [N, d]. The result does not depend on the batch size beyond rounding.

        Raises DataError for another type, shape or number of channels, or features that are not finite.
        """
        batch = self._check(images)
        with exact_convolutions():
            parts = [self._features(part) for part in batch.split(self.batch_size)]
        features: Features = np.concatenate(parts) if parts else np.empty((0, self.dim or 0), np.float32)
        return self._finite(features)

    def probabilities(self, images: Images) -> npt.NDArray[np.float64]:
        """Class probabilities [N, classes]. Raises UsageError if this extractor has no classifier."""
        return self.with_probabilities(images)[1]

    def with_probabilities(self, images: Images) -> tuple[Features, npt.NDArray[np.float64]]:
        """Features [N, d] and class probabilities [N, classes] from one pass. Raises as the two alone do."""
        if self.classes is None:
            raise UsageError(f"extractor {self.name!r} has no class probabilities, so no Inception Score")
        with exact_convolutions():
            parts = [self._both(part) for part in self._check(images).split(self.batch_size)]
        if not parts:
            return np.empty((0, self.dim or 0), np.float32), np.empty((0, self.classes))
        return self._finite(np.concatenate([f for f, _ in parts])), np.concatenate([p for _, p in parts])

    @abstractmethod
    def _features(self, batch: torch.Tensor) -> Features: ...

    def _both(self, batch: torch.Tensor) -> tuple[Features, npt.NDArray[np.float64]]:
        raise NotImplementedError(f"{type(self).__name__} sets `classes` without `_both`")

    def _finite(self, features: Features) -> Features:
        if not np.isfinite(features).all():
            raise DataError(f"{self.label} gave features that are not finite")
        return features

    def _check(self, images: Images) -> torch.Tensor:
        dtype = getattr(images, "dtype", type(images).__name__)
        if dtype not in (np.uint8, torch.uint8):
            raise DataError(f"extractor {self.name!r} takes uint8 images, not {dtype} (use `to_uint8`)")
        if images.ndim != 4:
            raise DataError(f"images must be [N, C, H, W], not of shape {tuple(images.shape)}")
        if self.channels is not None and images.shape[1] not in self.channels:
            allowed = " or ".join(map(str, self.channels))
            raise DataError(
                f"extractor {self.name!r} takes images of {allowed} channel(s), not {images.shape[1]}; "
                f"use one made for them, such as `pixels`"
            )
        return images if isinstance(images, torch.Tensor) else torch.tensor(images)


class Pixels(Extractor):
    """The pixels themselves, `x / 127.5 - 1`, flattened: d = C H W. The hash names the scaling."""

    name = "pixels"
    hash = hashlib.sha256(b"pixels/1: uint8/127.5-1, C H W flattened").hexdigest()[:8]

    def _features(self, batch: torch.Tensor) -> Features:
        return batch.to("cpu").flatten(1).numpy() / np.float32(127.5) - np.float32(1)


class SmallCNNFeatures(Extractor):
    """64 features of the embedded classifier of grey images (see `smallcnn`); hash of weights and definition."""

    name = "smallcnn"
    dim = smallcnn.FEATURE_DIM
    channels = (1,)
    classes = len(smallcnn.CLASSES)

    def __init__(self, device: str | torch.device = "cpu") -> None:
        weights = smallcnn.weights_bytes()
        self.hash = hashlib.sha256(smallcnn.DEFINITION.encode() + b"\0" + weights).hexdigest()[:8]
        self._device = torch.device(device)
        network = smallcnn.load_smallcnn(weights).to(self._device)
        self._network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def _forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self._network(smallcnn.canonicalise(batch.to(self._device)))

    def _features(self, batch: torch.Tensor) -> Features:
        return self._forward(batch).cpu().numpy()

    @torch.inference_mode()
    def _both(self, batch: torch.Tensor) -> tuple[Features, npt.NDArray[np.float64]]:
        features = self._forward(batch)
        return features.cpu().numpy(), self._network.logits(features).double().softmax(1).cpu().numpy()


MAX_DIM = 4096
EXTRACTORS = ("pixels", "smallcnn", "effnet-lite0", "inception", "inception:PATH", "torchscript:PATH")


def default_extractors(channels: int, resolution: int) -> tuple[list[str], list[str]]:
    """Names of the extractors to use when none is asked for, and a sentence for each one that cannot be used.

    `pixels` where its covariance fits (C H W <= 4096), `smallcnn` for grey images, and for colour `inception` if its
    weights are at hand, else `effnet-lite0` if that package is, else pixels alone.
    """
    from ambient_train.evaluation.extractors import pretrained

    names, notes = [], []
    if channels * resolution**2 <= MAX_DIM:
        names.append("pixels")
    else:
        notes.append(f"pixels: {channels * resolution**2} of them are more than a covariance takes ({MAX_DIM})")
    if channels == 1:
        return [*names, "smallcnn"], notes
    for name, check in (
        ("inception", pretrained.inception_missing),
        ("effnet-lite0", pretrained.effnet_missing),
    ):
        if (reason := check()) is None:
            return [*names, name], notes
        notes.append(f"{name}: {reason}")
    return names, notes


def get_extractor(spec: str, *, device: str | torch.device = "cpu") -> Extractor:
    """The extractor of a name.

    `pixels`; `smallcnn` (embedded, grey images); `effnet-lite0` (extra `features`); `inception` or `inception:PATH`
    (extra `fid`, and a weights file); `torchscript:PATH`. Raises UsageError for an unknown name or one whose package or
    weights are not there, saying what to do, and DataError if weights cannot be read.
    """
    from ambient_train.evaluation.extractors import pretrained

    kind, separator, path = spec.partition(":")
    if separator and not path:
        raise UsageError(f"extractor {spec!r} names no file after the colon")
    if spec == "pixels":
        return Pixels()
    if spec == "smallcnn":
        return SmallCNNFeatures(device)
    if spec == "effnet-lite0":
        return pretrained.EffNetLite0(device)
    if kind == "inception":
        return pretrained.InceptionFeatures(path or None, device)
    if kind == "torchscript" and path:
        return pretrained.TorchScriptFeatures(path, device)
    raise UsageError(f"unknown extractor {spec!r}: choose one of {', '.join(EXTRACTORS)}")
