"""From what a user asks for to one frozen config: defaults < preset < config file < flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ambient_theory.shared.errors import UsageError
from ambient_train.data.load import ImageSet, load_images
from ambient_train.data.mixture import check_amounts, counts
from ambient_train.diffusion.sampling import SamplerConfig
from ambient_train.evaluation.features import default_extractors
from ambient_train.networks.edm_presets import EDM_ARCHITECTURES
from ambient_train.settings.config import TrainConfig, default_preset, get_preset, read_toml
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.training.loop import build_network

PAPER = {"weight": "y", "draw": "paper", "buffer": 1.0}
"""`--compat paper`: the loss and the draws of Daras et al. (2024) as their released code has them."""

_DATA = ("data", "resolution", "holdout", "max_images")
_AMOUNT = ("keep", "corruption", "n_clean", "n_noisy")
_RUN = ("duration_nimg", "score_at")


@dataclass(frozen=True)
class Resolved:
    """config, the images it trains on, and how it is to be scored. duration_nimg, score_at: see `RunOptions`."""

    config: TrainConfig
    source: ImageSet
    evaluation: EvalConfig
    duration_nimg: int
    score_at: tuple[int, ...]
    preset: str


def resolve(settings: Mapping[str, Any], *, load: Any = None) -> Resolved:
    """Resolve flat settings: TrainConfig fields, keep | corruption | n_clean | n_noisy, preset, compat, duration_nimg,
    score_at and an `evaluation` table (n, seed, extractors, metrics, and SamplerConfig fields under `sampler`).

    load(data, resolution, holdout, max_images) -> ImageSet may be given to share loaded images.
    Raises UsageError for unknown keys and contradictions, DataError for unreadable data.
    """
    given = {k: v for k, v in settings.items() if v is not None}
    known = {f.name for f in fields(TrainConfig)} | {*_AMOUNT, *_RUN, "preset", "compat", "evaluation"}
    if unknown := sorted(set(given) - known):
        raise UsageError(
            f"unknown setting(s) {', '.join(unknown)}: known are {', '.join(sorted(known - {'data_hash'}))}"
        )
    data = str(given.get("data", "digits"))
    preset_name = str(given.get("preset", default_preset(data)))
    preset = get_preset(preset_name)
    train = {**preset.train}
    compat = given.get("compat")
    if compat == "paper":
        train |= PAPER
        if clash := sorted(k for k in PAPER if k in given and given[k] != PAPER[k]):
            raise UsageError(f"compat 'paper' sets {', '.join(clash)}: leave these options out")
    elif compat is not None:
        raise UsageError(f"compat {compat!r} is unknown: the only one is 'paper'")
    if "resolution" not in given and preset_name == "fashion" and data == "fashion":
        given["resolution"] = 8
    if given.get("arch") in EDM_ARCHITECTURES:
        architecture, network = EDM_ARCHITECTURES[given.pop("arch")]
        train |= {"arch": architecture, "network": network}
    if "network" in given:
        if not isinstance(given["network"], Mapping):
            raise UsageError(f"network must be a table of settings, not {given['network']!r}")
        same_arch = given.get("arch", train.get("arch")) == train.get("arch")
        given["network"] = {**(train.get("network", {}) if same_arch else {}), **given["network"]}
    elif "arch" in given and given["arch"] != train.get("arch"):
        given["network"] = {}
    train |= {k: v for k, v in given.items() if k in {f.name for f in fields(TrainConfig)}}
    train["data"] = data
    typed = TrainConfig.from_dict(train)

    loader = load or _load
    source = loader(typed.data, typed.resolution, typed.holdout, typed.max_images)
    n_clean, n_noisy = _amounts(given, source)
    config = TrainConfig.from_dict(
        {**train, "n_clean": n_clean, "n_noisy": n_noisy, "data_hash": source.content_hash[:16]}
    )
    check_amounts(source, n_clean=n_clean, n_noisy=n_noisy, sigma=config.sigma)
    _check_network(config, source)
    duration = _images("duration_nimg", given.get("duration_nimg", preset.duration_nimg))
    score_at = tuple(_images("score_at", n) for n in given.get("score_at", ()))
    return Resolved(
        config, source, _evaluation(given, preset.n_eval, preset.sampler, source), duration, score_at, preset_name
    )


def _check_network(config: TrainConfig, source: ImageSet) -> None:
    """Raise UsageError where the network does not fit the images; it is built without memory."""
    levels = config.network.get("channel_mult", ())
    if isinstance(levels, Sequence) and source.resolution % 2 ** max(len(levels) - 1, 0):
        raise UsageError(
            f"images of {source.resolution} pixels cannot be halved {len(levels) - 1} times as the network asks: "
            "choose --resolution or another preset"
        )
    if config.cond and source.labels is None:
        raise UsageError(f"--cond needs labels, and {config.data} has none")
    label_dim = int(source.labels.max()) + 1 if config.cond and source.labels is not None else 0
    with torch.device("meta"):
        build_network(config, (source.channels, source.resolution, source.resolution), label_dim)


def _load(data: str, resolution: int | None, holdout: float | None, max_images: int | None) -> ImageSet:
    return load_images(data, split="train", resolution=resolution, holdout=holdout, max_images=max_images)


def _images(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} must be a whole number of images >= 1, not {value!r}")
    return value


def _amounts(given: Mapping[str, Any], source: ImageSet) -> tuple[int, int]:
    """(n_clean, n_noisy); without any wish those of the data: its clean images and the ones that came with noise."""
    by_count = [k for k in ("n_clean", "n_noisy") if k in given]
    by_share = [k for k in ("keep", "corruption") if k in given]
    if by_count and by_share:
        raise UsageError(f"{by_count[0]} and {by_share[0]} exclude each other: give counts or shares")
    if by_count:
        numbers = [given.get(k, 0) for k in ("n_clean", "n_noisy")]
        if any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in numbers) or not sum(numbers):
            raise UsageError(f"n_clean and n_noisy must be whole numbers >= 0 and not both 0, not {numbers}")
        return numbers[0], numbers[1]
    if not by_share and source.sigma is not None:
        already = int((source.sigma > 0).sum())
        return len(source) - already, already
    shares = [given.get("keep", 1.0), given.get("corruption", 0.0)]
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in shares):
        raise UsageError(f"keep and corruption must be numbers, not {shares}")
    return counts(len(source), keep=float(shares[0]), corruption=float(shares[1]))


def _evaluation(given: Mapping[str, Any], n_eval: int, sampler: Mapping[str, Any], source: ImageSet) -> EvalConfig:
    table = given.get("evaluation", {})
    if not isinstance(table, Mapping):
        raise UsageError(f"evaluation must be a table of settings, not {table!r}")
    table = dict(table)
    steps = {**sampler, **dict(table.pop("sampler", {}))}
    for name in ("extractors", "metrics"):
        if name in table:
            table[name] = tuple(table[name])
    if "extractors" not in table:
        table["extractors"] = tuple(default_extractors(source.channels, source.resolution)[0])
    try:
        evaluation = EvalConfig(**{"n": n_eval, **table}, sampler=SamplerConfig(**steps))
    except TypeError as error:
        raise UsageError(f"evaluation: {str(error).split('__init__() ')[-1]}") from None
    if isinstance(evaluation.n, bool) or not isinstance(evaluation.n, int) or evaluation.n < 40:
        raise UsageError(f"evaluation.n {evaluation.n!r}: at least 40 generated images are needed for a score")
    return evaluation


def from_file(path: Path) -> dict[str, Any]:
    """Settings of a TOML config file, for `resolve`."""
    return read_toml(path)
