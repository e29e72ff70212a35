"""The replicates of one cell: draw, estimate, score by W1. On the line and in d dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ambient_theory.mixtures.dmm import LineFit, fit_dmm, mean_only
from ambient_theory.mixtures.laws import AtomicLaw, embed
from ambient_theory.mixtures.likelihood import LikelihoodFit, fit_em, fit_mle, fit_npmle, plus_plus_start
from ambient_theory.mixtures.moments import LevelMoments
from ambient_theory.mixtures.points import Points
from ambient_theory.mixtures.subspace import Subspace, overlap, subspace_from_moments
from ambient_theory.mixtures.w1 import w1_line, w1_space
from ambient_theory.simulation.engines import BinnedLevel, binned_moments, draw_binned, exact_moments
from ambient_theory.simulation.ledger import SimulationCell
from ambient_theory.simulation.wishart import draw_second_moments

Floats = NDArray[np.float64]
Blocks = Sequence[tuple[AtomicLaw, int]]
EM_STEPS = 2000


@dataclass(frozen=True)
class Trials:
    """Results of one estimator. w1, projected: (reps,); more: name -> (reps,) other measurements."""

    w1: Floats
    projected: NDArray[np.bool_]
    more: Mapping[str, Floats] = field(default_factory=dict)


def share_replicates(laws: Sequence[AtomicLaw], reps: int, rng: np.random.Generator) -> list[tuple[AtomicLaw, int]]:
    """Each replicate draws its law with equal probability; equal laws lie in one block."""
    if len(laws) == 1:
        return [(laws[0], reps)]
    return list(zip(laws, rng.multinomial(reps, np.full(len(laws), 1 / len(laws))).tolist(), strict=True))


def run_trials(cell: SimulationCell, blocks: Blocks, rng: np.random.Generator) -> list[Trials]:
    """All estimators of a cell on the same draws, in their order."""
    if cell.d == 1:
        return _on_line(cell, blocks, rng)
    return _by_wishart(cell, blocks, rng) if cell.engine == "wishart" else _by_samples(cell, blocks, rng)


# ------------------------------------------------------------------------------------------------------ the line


def _on_line(cell: SimulationCell, blocks: Blocks, rng: np.random.Generator) -> list[Trials]:
    k, radius = cell.k, cell.radius
    s, n = np.asarray(cell.levels, dtype=float), cell.counts
    levels: list[BinnedLevel] = []
    if cell.engine == "binned":
        levels = draw_binned(blocks, s, n, radius, rng, cell.bins)
        moments = binned_moments(levels, 2 * k - 1)
    else:
        moments = exact_moments(blocks, s, n, 2 * k - 1, rng)
    truth = _truth(blocks)
    out = []
    for name, weights in cell.estimators:
        fit = fit_line(name, weights, moments, levels, k, radius, rng)
        out.append(Trials(w1_line(fit.atoms, fit.weights, *truth), fit.projected))
    return out


def _truth(blocks: Blocks) -> tuple[Floats, Floats]:
    """Atoms and weights of each replicate's law, (reps, widest); missing atoms have weight 0."""
    widest = max(law.k for law, _ in blocks)
    atoms = [np.tile(np.pad(law.line(), (0, widest - law.k), mode="edge"), (reps, 1)) for law, reps in blocks]
    weights = [np.tile(np.pad(law.weights, (0, widest - law.k)), (reps, 1)) for law, reps in blocks]
    return np.concatenate(atoms), np.concatenate(weights)


def fit_line(
    name: str,
    weights: str,
    moments: LevelMoments,
    levels: Sequence[BinnedLevel],
    k: int,
    radius: float,
    rng: np.random.Generator,
) -> LineFit:
    """One estimator on every replicate. The likelihood methods need the bin counts `levels`.

    `mle` starts at the moments' answer; `em` at k-means++ (the moments' answer would do its work for it).
    """
    if name == "mean-only":
        return mean_only(moments)
    if name == "clean-only":
        moments = LevelMoments(moments.s[:1], moments.n[..., :1], moments.means[..., :1, :])
    if name in ("dmm", "clean-only"):
        return fit_dmm(moments, -radius, radius, weights=weights)  # type: ignore[arg-type]
    start = fit_dmm(moments, -radius, radius)
    box = np.array([radius])
    fits: list[LikelihoodFit] = []
    for row in range(len(start.atoms)):
        points = binned_points(levels, row)
        if name == "mle":
            fits.append(fit_mle(points, start.atoms[row][:, None], start.weights[row], -box, box))
        elif name == "em":
            fits.append(fit_em(points, *plus_plus_start(points, k, rng), max_iter=EM_STEPS))
        else:
            fits.append(fit_npmle(points, -radius, radius))
    widest = max(len(f.weights) for f in fits)
    atoms = np.array([np.pad(f.atoms[:, 0], (0, widest - len(f.atoms)), mode="edge") for f in fits])
    shares = np.array([np.pad(f.weights, (0, widest - len(f.weights))) for f in fits])
    return LineFit(atoms, shares, np.zeros(len(fits), dtype=bool))


def binned_points(levels: Sequence[BinnedLevel], row: int) -> Points:
    """The non-empty bins of one replicate as weighted points."""
    used = [level.counts[row] > 0 for level in levels]
    return Points(
        np.concatenate([level.centres[u] for level, u in zip(levels, used, strict=True)])[:, None],
        np.concatenate([np.full(int(u.sum()), level.s) for level, u in zip(levels, used, strict=True)]),
        np.concatenate([level.counts[row][u].astype(float) for level, u in zip(levels, used, strict=True)]),
    )


# --------------------------------------------------------------------------------------------------- d dimensions


def _by_wishart(cell: SimulationCell, blocks: Blocks, rng: np.random.Generator) -> list[Trials]:
    """k <= 2: the subspace from one half of each level (Wishart draw), the fit on the other half's projection.

    The projection of the other half on a fixed direction u is a mixture on the line with atoms `<a_j, u>` and the
    same noise, so bin counts do. `mean-only` and k = 1 use the mean of the first half (k = 1: of everything).
    """
    k, d, radius, bins = cell.k, cell.d, cell.radius, cell.bins
    s = np.asarray(cell.levels, dtype=float)
    n = list(cell.counts)
    first = n if k == 1 else [c - c // 2 for c in n]
    rest = [c // 2 for c in n]
    spaces: list[Subspace] = []
    laws: list[AtomicLaw] = []
    parts: list[LevelMoments] = []
    for line, reps in blocks:
        law = embed(line, d)
        for _ in range(reps):
            sums, squares = draw_second_moments(law, s, first, rng)
            space = subspace_from_moments(s, np.array(first, dtype=float), sums, squares, k - 1)
            spaces.append(space)
            laws.append(law)
            if k > 1:
                seen = AtomicLaw(law.atoms @ space.basis, law.weights)
                parts.append(binned_moments(draw_binned([(seen, 1)], s, rest, radius, rng, bins), 2 * k - 1))
    out = []
    for name, weights in cell.estimators:
        if name == "mean-only" or k == 1:
            atoms = [space.centre[None, :] for space in spaces]
            shares, projected = [np.ones(1)] * len(atoms), np.zeros(len(atoms), dtype=bool)
        else:
            n_seen, means = np.concatenate([p.n for p in parts]), np.concatenate([p.means for p in parts])
            moments = LevelMoments(parts[0].s, n_seen, means)
            fit = fit_line(name, weights, moments, [], k, radius, rng)
            atoms = [space.lift(a[:, None]) for space, a in zip(spaces, fit.atoms, strict=True)]
            shares, projected = list(fit.weights), fit.projected
        w1 = [w1_space(a, w, law.atoms, law.weights) for a, w, law in zip(atoms, shares, laws, strict=True)]
        more: dict[str, Floats] = {}
        if k > 1:
            axis = np.eye(d, 1)
            more = {"overlap": np.array([overlap(space.basis, axis) for space in spaces])}
        out.append(Trials(np.array(w1), projected, more))
    return out


def _by_samples(cell: SimulationCell, blocks: Blocks, rng: np.random.Generator) -> list[Trials]:
    """Real samples in d dimensions through `HeteroscedasticMixture(split=True)`. Cost: reps x n x d."""
    import warnings

    from ambient_theory.mixtures.estimators import HeteroscedasticMixture

    k, d = cell.k, cell.d
    s = np.repeat(np.asarray(cell.levels, dtype=float), cell.counts)
    clean = s == s.min()
    results: list[list[tuple[float, bool, float]]] = [[] for _ in cell.estimators]
    for line, reps in blocks:
        law = embed(line, d)
        truth = _span(law, k - 1)
        for _ in range(reps):
            x = law.sample(s, rng)
            for row, (name, weights) in zip(results, cell.estimators, strict=True):
                use = clean if name == "clean-only" else slice(None)
                model = HeteroscedasticMixture(
                    1 if name == "mean-only" else k,
                    method="dmm",
                    weights="gls" if weights == "-" else weights,  # type: ignore[arg-type]
                    radius=cell.radius,
                    split=name != "mean-only" and k > 1,
                    random_state=rng,
                )
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # convergence and k >= 4, said once by the command
                    model.fit(x[use], noise_std=s[use])
                assert model.subspace_ is not None
                found = model.subspace_.basis
                same = overlap(found, truth) if found.shape[1] and truth.shape[1] else float("nan")
                error = w1_space(model.means_, model.weights_, law.atoms, law.weights)
                row.append((error, model.diagnostics_.projected, same))
    out = []
    for row in results:
        w1, projected, aligned = (np.array(column) for column in zip(*row, strict=True))
        more: dict[str, Floats] = {} if np.isnan(aligned).all() else {"overlap": aligned}
        out.append(Trials(w1, projected.astype(bool), more))
    return out


def _span(law: AtomicLaw, rank: int) -> Floats:
    """Orthonormal basis (d, r) of the span of the centred atoms, r <= rank its true dimension."""
    u, values, _ = np.linalg.svd((law.atoms - law.mean()).T * np.sqrt(law.weights), full_matrices=False)
    return u[:, : min(rank, int(np.sum(values > 1e-12 * max(values.max(), 1e-300))))]
