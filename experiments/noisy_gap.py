"""Where does a model of noisy images alone lose against one of as many clean images: above the noise or below it?

    python experiments/noisy_gap.py RUNS     # RUNS: the folder of runs of experiments/noisy_only.toml

Of each seed of experiments/noisy_only.toml that has both runs, the images of two denoisers spliced at the noise of the
data, sigma_n: one run denoises at levels above it, the other from it down. FD as in the grid: the same 4,000 seeds,
extractor and sampler. Writes results/noisy_gap.json, which experiments/methods.py shows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.files import atomic_write_text
from ambient_train.data.images import to_uint8
from ambient_train.diffusion.generate import denoiser, sample
from ambient_train.diffusion.sampler_settings import SamplerConfig
from ambient_train.evaluation.features import get_extractor
from ambient_train.evaluation.own_references import references
from ambient_train.evaluation.scores import score_images
from ambient_train.interchange.load import Trained, load_trained

OUT = Path(__file__).parent / "results" / "noisy_gap.json"
IMAGES, SIGMA, SEEDS = 1000, 0.2, range(730, 735)


def spliced(above: Callable[..., Tensor], below: Callable[..., Tensor], level: float) -> Callable[..., Tensor]:
    """The denoiser (x, sigma) -> D that is `above` at sigma > level and `below` elsewhere."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return (above if float(sigma) > level else below)(x, sigma)

    return denoise


def pairs(runs: Path) -> Iterator[tuple[int, Trained, Trained]]:
    """(seed, noisy-only run, clean run) of each seed that has both, trained as the defaults do."""
    found: dict[tuple[int, bool], Trained] = {}
    for path in sorted(p.parent for p in runs.glob("*/result.json")):
        trained = load_trained(path)
        config, data = trained.config, trained.data
        if config is None or data is None or config.consistency or trained.one_step:
            continue
        if (data["n_clean"], data["n_noisy"], list(data["levels"])) in ((IMAGES, 0, []), (0, IMAGES, [SIGMA])):
            found[config.seed, bool(data["n_clean"])] = trained
    for seed in SEEDS:
        if (seed, True) in found and (seed, False) in found:
            yield seed, found[seed, False], found[seed, True]


def measure(noisy: Trained, clean: Trained) -> list[dict[str, Any]]:
    """FD of each splice, by what ends the sampling: level 0 or the posterior mean at sigma_n."""
    settings, config = noisy.evaluation, noisy.config
    if settings is None or config is None or not isinstance(settings.sampler, SamplerConfig):
        raise UsageError(f"{noisy.name} was not scored with EDM's sampler")
    known = references(config.data, config.resolution, config.holdout, config.max_images)
    reference = {"heldout-clean": known["heldout-clean"]}
    extractors = [get_extractor(name) for name in settings.extractors]
    parts = {"noisy": denoiser(noisy.network, noisy.precision), "clean": denoiser(clean.network, clean.precision)}
    shape = (noisy.network.img_channels, noisy.network.img_resolution, noisy.network.img_resolution)
    seeds = range(settings.seed, settings.seed + settings.n)
    out = []
    for above in parts:
        for below in parts:
            for end in (0.0, SIGMA):
                denoise = spliced(parts[above], parts[below], SIGMA)
                sampler = replace(settings.sampler, stop_sigma=end)
                images = (to_uint8(batch) for batch in sample(denoise, seeds, shape, sampler))
                [score] = score_images(images, reference, extractors, ["fd"])
                out.append({"above": above, "below": below, "end": end, "fd": score.value, "stderr": score.stderr})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    torch.set_num_threads(1)
    rows = []
    for seed, noisy, clean in pairs(parser.parse_args().runs):
        rows += [{"seed": seed, **row} for row in measure(noisy, clean)]
        print(f"seed {seed}: " + ", ".join(f"{r['fd']:.2f}" for r in rows[-8:]), flush=True)
    if not rows:
        raise SystemExit("no seed of experiments/noisy_only.toml has both of its runs there")
    about = {"images": IMAGES, "sigma": SIGMA, "grid": "noisy_only.toml", "rows": rows}
    atomic_write_text(OUT, json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
