"""Kinds of noise that data can carry: what a noisy image is, and how a denoiser learns from one."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ambient_theory.shared.registry import Registry

if TYPE_CHECKING:
    from ambient_train.data.images import ImageSet
    from ambient_train.data.noise_models._base import NoiseKind, NoiseModel

TABLE: Registry[NoiseKind] = Registry("ambient_train.data.noise_models", "noise")


def kind_of(spec: str) -> str:
    """`correlated` of `correlated:0.7`. Raises UsageError for a kind that there is not."""
    return TABLE.check(spec.partition(":")[0])


def added_noise(spec: str, shape: tuple[int, int, int]) -> NoiseModel:
    """The model of noise added to images of (C, H, W): `NAME` or `NAME:ARGUMENT`. Raises UsageError, DataError."""
    return TABLE[kind_of(spec)].added(spec.partition(":")[2], shape)


def noise_of_images(images: ImageSet) -> NoiseModel:
    """The model of the noise that images came with, in their order; white where nothing else is stated."""
    found = (TABLE[name].of_images(images) for name in TABLE)
    return next(model for model in found if model is not None)


def noise_content(model: NoiseModel) -> str:
    """16 hex digits of what a model is beside the strengths of its images; empty for white noise."""
    arrays = model.describe()
    if not arrays:
        return ""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def noise_name(model: NoiseModel, spec: str) -> str:
    """A model in a word for records: `correlated:0.6`, or the kind and six digits of its content; never a path.

    spec: how it was asked for, "" where it came with the images. Maps that differ from image to image are named by
    their kind alone.
    """
    argument = spec.partition(":")[2]
    if argument.replace(".", "", 1).isdigit():
        return f"{model.kind}:{argument}"
    if len(model.describe().get("pattern", ())) > 1:
        return model.kind
    return f"{model.kind} {noise_content(model)[:6]}"


def help_for_added() -> str:
    """The kinds with what stands behind each, in one line."""
    kinds = ((name, TABLE[name].parameters) for name in TABLE)
    return "; ".join(f"{name}:{parameters}" if parameters else name for name, parameters in kinds)
