"""How a run is scored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ambient_train.diffusion.sampling import SamplerConfig


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a run is scored. n: generated images. seed: seed of the first image; image k has seed `seed + k`.

    extractors: names for `get_extractor`. sampler: see `SamplerConfig`. metrics: `fd`, `kid`.
    """

    n: int = 2000
    seed: int = 1_000_000
    extractors: tuple[str, ...] = ("pixels", "smallcnn")
    metrics: tuple[str, ...] = ("fd", "kid")
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def to_dict(self) -> dict[str, Any]:
        d = asdict(self)
        d["extractors"], d["metrics"] = list(self.extractors), list(self.metrics)
        d["sampler"] = {k: (None if v == float("inf") else v) for k, v in d["sampler"].items()}
        return d
