"""The figure of a fit: the samples under the fitted density, what lies behind each, and the noise's likelihood."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ambient_theory.mixtures.inference import one_number_quantile
from ambient_theory.own_data.fit import Fit
from ambient_theory.shared.palette import BLACK, BLUE, GREY, PURPLE
from ambient_theory.shared.plotting import new_figure, styled

Floats = NDArray[np.float64]
MOST = 4000
"""Points that are drawn; of more, evenly many."""


def fit_figure(fit: Fit) -> Figure:
    """Left: histogram with the fitted density and the atoms (in d dimensions the two leading coordinates, atoms as
    discs of their weight). Middle: posterior mean against the sample, darker where the noise is small. Right, where the
    noise was profiled: `2 (l_max - l(c))` with the quantile of its interval."""
    with styled():
        panels = 2 + (fit.scale is not None)
        figure = new_figure(3.4 * panels, 3.4)
        axes = figure.subplots(1, panels, squeeze=False)[0]
        axis, names = _axis(fit)
        if axis.shape[1] == 1:
            _density(axes[0], fit, axis[:, 0], names[0])
        else:
            _plane(axes[0], fit, axis, names)
        _posterior(axes[1], fit, axis[:, 0], names[0])
        if fit.scale is not None:
            _profile(axes[2], fit)
    return figure


def _axis(fit: Fit) -> tuple[Floats, list[str]]:
    """Directions (d, 1 or 2) that are looked along, and their names."""
    d = len(fit.samples.names)
    space = fit.model.subspace_
    if d == 1:
        return np.eye(1), [fit.samples.names[0]]
    if space is not None and space.basis.shape[1] >= 2 and d > 2:
        return space.basis[:, :2], ["leading direction", "second direction"]
    if space is not None and space.basis.shape[1] == 1:
        other = np.eye(d)[:, np.argmin(np.abs(space.basis[:, 0]))]
        other = other - space.basis[:, 0] * (space.basis[:, 0] @ other)
        return np.column_stack([space.basis[:, 0], other / np.linalg.norm(other)]), [
            "leading direction",
            "a direction across",
        ]
    return np.eye(d)[:, :2], list(fit.samples.names[:2])


def _drawn(n: int) -> slice:
    return slice(0, n, max(1, math.ceil(n / MOST)))


def _density(ax: Axes, fit: Fit, axis: Floats, name: str) -> None:
    x, s = fit.samples.x @ axis, fit.samples.noise_std
    atoms, weights = fit.model.means_ @ axis, fit.model.weights_
    low, high = np.quantile(x, [0.002, 0.998])
    pad = 0.1 * max(high - low, 1e-12)
    ends = min(low, atoms.min()) - pad, max(high, atoms.max()) + pad
    bins = int(np.clip(math.sqrt(len(x)), 10, 60))
    ax.hist(x, bins=bins, range=ends, density=False, weights=np.full(len(x), bins / (ends[1] - ends[0]) / len(x)),
            color="#d1d5db")  # fmt: skip
    at = np.linspace(*ends, 400)
    levels = np.quantile(s, (np.arange(64) + 0.5) / 64)  # the mixture over samples, by 64 of their noises
    z = (at[:, None, None] - atoms) / levels[:, None]
    density = np.mean(np.exp(-(z**2) / 2) @ weights / (levels * math.sqrt(2 * math.pi)), axis=1)
    ax.plot(at, density, color=BLUE, label="fitted, with the noise")
    top = 1.08 * max(float(density.max()), ax.get_ylim()[1])
    for j, (atom, weight) in enumerate(zip(atoms, weights, strict=True)):
        ax.plot([atom, atom], [0, top * weight], color=BLACK, linewidth=1.4, label=None if j else "atoms, by weight")
        if fit.intervals is not None:
            u = fit.intervals
            ends_of = [float(u.means_low[j, 0]), float(u.means_high[j, 0])]
            ax.plot(ends_of, [top * weight] * 2, color=BLACK, linewidth=3, alpha=0.6, solid_capstyle="butt")
            ax.plot([atom] * 2, [top * u.weights_low[j], top * u.weights_high[j]], color=BLACK, linewidth=3, alpha=0.3)
    ax.set_xlim(*ends)
    ax.set_ylim(0, top)
    ax.set_xlabel(name)
    ax.set_ylabel("density; weights in units of the axis")
    ax.set_title("Samples and law")
    ax.legend(loc="best")


def _plane(ax: Axes, fit: Fit, axis: Floats, names: list[str]) -> None:
    chosen = _drawn(len(fit.samples.x))
    x, atoms = fit.samples.x[chosen] @ axis, fit.model.means_ @ axis
    ax.plot(x[:, 0], x[:, 1], ".", markersize=2, color="#9ca3af", alpha=0.6, label="samples")
    ax.scatter(
        atoms[:, 0], atoms[:, 1], s=30 + 400 * fit.model.weights_, color=BLUE, alpha=0.7, zorder=3,
        label="atoms, by weight",
    )  # fmt: skip
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    ax.set_title("Samples and law")
    ax.legend(loc="best", markerscale=0.5)


def _posterior(ax: Axes, fit: Fit, axis: Floats, name: str) -> None:
    chosen = _drawn(len(fit.samples.x))
    x, mean, s = fit.samples.x[chosen] @ axis, fit.posterior.mean[chosen] @ axis, fit.samples.noise_std[chosen]
    order = np.argsort(-s)
    spread = s.max() > s.min()
    dots = ax.scatter(
        x[order], mean[order], c=np.log10(s[order]) if spread else None, s=5, linewidths=0,
        cmap="viridis" if spread else None, color=None if spread else BLUE,
    )  # fmt: skip
    ax.axline((float(x.mean()), float(x.mean())), slope=1, color=GREY, linewidth=0.8, linestyle="--")
    if spread:
        ax.figure.colorbar(dots, ax=ax, label="log10 of the noise", shrink=0.8)
    if x.min() < x.max():
        ax.set_xlim(float(x.min()), float(x.max()))
    ax.set_xlabel(name)
    ax.set_ylabel("posterior mean")
    ax.set_title("What lies behind each")


def _profile(ax: Axes, fit: Fit) -> None:
    assert fit.scale is not None
    scale, q = fit.scale, one_number_quantile(fit.scale.level)
    seen = scale.drop < 4 * q
    ax.plot(scale.at[seen], scale.drop[seen], ".-", color=PURPLE, markersize=4)
    ax.axhline(q, color=GREY, linewidth=0.9, linestyle="--", label=f"{100 * scale.level:g} % interval")
    if scale.known and scale.at[seen].min() <= 1 <= scale.at[seen].max():
        ax.axvline(1, color=BLACK, linewidth=0.9, label="stated")
    ax.margins(x=0.05)
    ax.set_ylim(0, 4 * q)
    ax.set_xlabel("factor c on the stated noise" if scale.known else "common noise")
    ax.set_ylabel("2 (largest log-likelihood - that at c)")
    ax.set_title("How large is the noise")
    ax.legend(loc="upper center")
