"""How a run is scored: what is generated, with which sampler, and what is measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.options import Checked, describe, from_mapping, option
from ambient_train.diffusion.sampler_settings import (
    GENERAL_ONLY,
    AnySampler,
    GeneralSamplerConfig,
    OneStep,
    SamplerConfig,
)
from ambient_train.evaluation.extractors import TABLE as EXTRACTORS
from ambient_train.evaluation.metrics import metric_name

LEAST_IMAGES = 40
"""Fewer generated images give no interval."""

GENERATE_AT = ("every", "end")

_PANEL = "Scores"


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(Checked):
    """What is generated and measured for one score. Raises UsageError for a metric or features that are not known."""

    n: int = option(
        2000,
        "Images to generate for a score",
        at_least=LEAST_IMAGES,
        flag="--n-eval",
        shown_default="by preset",
        panel=_PANEL,
    )
    seed: int = option(
        1_000_000,
        "Seed of the first generated image; image k has seed + k",
        at_most=10**14,
        flag="--eval-seed",
        panel=_PANEL,
    )
    extractors: tuple[str, ...] = option(
        ("pixels", "smallcnn"),
        "Features of the scores, several times: pixels, smallcnn, effnet-lite0, inception[:FILE], torchscript:FILE",
        flag="--extractor",
        shown_default="those that fit the images",
        panel=_PANEL,
    )
    metrics: tuple[str, ...] = option(
        ("fd", "kid"), "Distances, several times: fd, kid, is", flag="--metric", panel=_PANEL
    )
    denoise: int = option(
        1000,
        "Held-out clean images on which the denoising error is measured, level by level; 0 = none",
        at_least=0,
        flag="--n-denoise",
        panel=_PANEL,
    )
    memorisation: bool = option(
        False,
        "Also measure how many generated images lie nearer to one of the run's clean training images than held-out "
        "images do",
        added_later=True,
        panel=_PANEL,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, names, check in (
            ("metrics", self.metrics, metric_name),
            ("extractors", (spec.partition(":")[0] for spec in self.extractors), EXTRACTORS.check),
        ):
            for name in names:
                try:
                    check(name)
                except UsageError as error:
                    raise UsageError(f"{key}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class EvalConfig(ScoreOptions):
    """How a run is scored, also on the way. Raises UsageError where a rule is broken. sampler: see `SamplerConfig`."""

    best: bool = option(
        True,
        "Keep the checkpoint that does best on held-out images beside the last one, and score it too; held-out "
        "denoising error decides, or without clean images the proximal score",
        panel=_PANEL,
    )
    generate_at: str = option(
        "every",
        "Scored points at which images are generated for the distances: every one, or the end; the denoising error is "
        "measured at every one",
        choices=GENERATE_AT,
        added_later=True,
        panel=_PANEL,
    )
    sampler: AnySampler = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.generate_at == "end" and not self.denoise:
            raise UsageError("generate_at end leaves only the denoising error before the end: give denoise > 0")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the inverse is `from_dict`. What was added later is left out at its default, so that the same
        scoring says the same of itself as before."""
        later = {d.key for d in describe(type(self)) if d.option.added_later and getattr(self, d.name) == d.default}
        plain = {key: value for key, value in super().to_dict().items() if key not in later}
        return {**plain, "sampler": self.sampler.to_dict()}

    @classmethod
    def from_stored(cls, d: Mapping[str, Any]) -> EvalConfig:
        """From what a result says of how it was scored; what it did not know yet it did not measure."""
        return cls.from_dict({"denoise": 0, "best": False, **d})

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> EvalConfig:
        """From a table with a table `sampler` in it. Raises UsageError for an unknown key or a wrong type."""
        table = dict(d)
        sampler = table.pop("sampler", {})
        if not isinstance(sampler, Mapping):
            raise UsageError(f"evaluation.sampler must be a table of settings, not {sampler!r}")
        try:
            made = from_mapping(cls, table)
        except UsageError as error:
            raise UsageError(f"evaluation.{error}") from None
        kind: type[AnySampler] = GeneralSamplerConfig if GENERAL_ONLY & set(sampler) else SamplerConfig
        if "one_step_sigma" in sampler:
            kind = OneStep
        try:
            return replace(made, sampler=from_mapping(kind, sampler))
        except UsageError as error:
            raise UsageError(f"evaluation.sampler.{error}") from None
