"""What a score cannot go below, and when it says little: floors from the reference itself, and words of caution.

A Frechet distance of n images from m reference images of the same law is not 0 but about (d (d + 5)/4) (1/n + 1/m) in
whitened features of dimension d, for n, m >> d; with n or m below d the covariance is singular and next to nothing else
is left of the score. A standard error does not show this: it is a bias, the same in every repetition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ambient_theory.shared.records import Record
from ambient_train import stateless
from ambient_train.evaluation.features import Extractor
from ambient_train.evaluation.metrics import TABLE, metric_name
from ambient_train.evaluation.metrics._base import Score
from ambient_train.evaluation.references import Reference
from ambient_train.evaluation.scores import score_images

FEWEST = 40
"""Least number of images that a score is computed from."""
FEW_REFERENCE = 200
"""A reference of fewer images is a sample whose own chance counts, and which the standard error leaves out."""


def reference_floor(
    reference: Reference, n: int, extractor: Extractor, metrics: Sequence[str] | None = None, *, seed: int = 0
) -> list[Score]:
    """The floor that a reference gives of itself: n of its images, drawn at random, scored against its others.

    min(n, half of them) are drawn, without replacement. Against the reference whole a perfect model scores a little
    less, because here both sides share its images. Empty where that cannot be had: a reference known by statistics
    alone, or of fewer than 80 images; metrics without a reference have no floor. `method` and `drawn` of the scores say
    how it came about.
    """
    wanted = None if metrics is None else [m for m in metrics if TABLE[metric_name(m)].needs_reference]
    images = reference.images
    if images is None or wanted == [] or (chosen := min(n, len(images) // 2)) < FEWEST:
        return []
    order = stateless.order(seed, "reference-floor", torch.arange(len(images))).numpy()
    rest = Reference(reference.name, images[order[chosen:]])
    scores = score_images(images[order[:chosen]], {rest.name: rest}, [extractor], wanted)
    how = f"{chosen} of the reference's {len(images)} images against its other {len(images) - chosen}"
    return [replace(s, method=f"floor: {how}; {s.method}", drawn="without replacement") for s in scores]


def cautions(scores: Sequence[Score]) -> list[str]:
    """One sentence for each thing that makes scores say less than their intervals suggest; empty if there is none."""
    return _cautions([(s.metric, s.extractor, s.reference, s.n, s.n_reference, s.dim) for s in scores])


def record_cautions(records: Sequence[Record]) -> list[str]:
    """The same of a run's records of distances."""
    return _cautions(
        [
            (r.metric, r.extractor, r.reference, r.n_eval, r.extra.get("n_reference"), r.extra.get("features"))
            for r in records
        ]
    )


def _cautions(scores: Sequence[tuple[str, str, str, int, int | None, int | None]]) -> list[str]:
    """Of (metric, extractor, reference, number generated, number in the reference, dimension) each."""
    singular: dict[tuple[str, str], list[str]] = {}
    for metric, extractor, reference, n, n_reference, dim in scores:
        sizes = {"generated": n, reference: n_reference}
        few = [f"{n:,} {side} images" for side, n in sizes.items() if n is not None and dim and n <= dim]
        if few:
            singular.setdefault((metric, f"{' and '.join(few)} in {dim:,} dimensions"), []).append(
                extractor.split(":")[0]
            )
    words = [
        f"{metric} in {' and '.join(dict.fromkeys(extractors))}: {sizes}; with no more images than dimensions the "
        "covariance is singular and the score is all bias: give more images, or read kid, which has none"
        for (metric, sizes), extractors in singular.items()
    ]
    words += [_few(reference, n_reference) for _, _, reference, _, n_reference, _ in scores]
    return [word for word in dict.fromkeys(words) if word]


def _few(reference: str, n_reference: int | None) -> str:
    if n_reference is None or n_reference >= FEW_REFERENCE:
        return ""
    return (
        f"{reference} has {n_reference} images: the intervals are of the generated images alone and leave out the "
        f"chance of so small a reference (below {FEW_REFERENCE}); a larger --holdout, or more images, gives more"
    )
