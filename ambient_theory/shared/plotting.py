"""How every figure looks: plain numbers on axes, text kept as text, reproducible bytes (colours: see `palette`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#4b5563",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "grid.linewidth": 0.7,
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "ambient",
    "svg.fonttype": "none",
    "figure.dpi": 110,
}


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style while figures are drawn and saved; nothing global stays changed."""
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        yield


def plain_number(x: float, _: object = None) -> str:
    """1,000 -> `1k`, 2e6 -> `2M`, .05 -> `0.05`: no exponents that a browser's fonts may lack."""
    if x == 0:
        return "0"
    if abs(x) >= 1e15 or abs(x) < 1e-5:
        return f"1e{math.log10(abs(x)):.0f}" if abs(math.log10(abs(x)) % 1) < 1e-9 else f"{x:.0e}"
    for scale, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= scale:
            return f"{x / scale:g}{unit}"
    return f"{x:g}"


def log_axis(ax: Axes, which: str = "xy", *, fine: str = "", ticks: int = 9) -> None:
    """Logarithmic axes with plain numbers and at most `ticks` of them; call it after drawing.

    Axes named in `fine` also label 2 and 5 of each decade where they span less than two decades, and round numbers at
    equal steps where they span less than a factor of four, in which 1, 2 and 5 may leave one label or none.
    """
    for name in which:
        axis = ax.xaxis if name == "x" else ax.yaxis
        (ax.set_xscale if name == "x" else ax.set_yscale)("log")
        low, high = sorted(ax.get_xlim() if name == "x" else ax.get_ylim())
        short = low > 0 and high / low < 100
        locator: Locator = LogLocator(
            base=10, subs=(1.0, 2.0, 5.0) if name in fine and short else (1.0,), numticks=ticks
        )
        if name in fine and low > 0 and high / low < 4:
            locator = MaxNLocator(5)
        axis.set_major_locator(locator)
        axis.set_major_formatter(FuncFormatter(plain_number))
        axis.set_minor_locator(NullLocator())


def to_bytes(figure: Figure) -> dict[str, bytes]:
    """The figure as `svg` and `png` (150 dots an inch), the same bytes each time. Laid out once, drawn twice."""
    svg, png = BytesIO(), BytesIO()
    with styled():
        figure.set_dpi(150)
        canvas = FigureCanvasAgg(figure)
        layout = figure.get_layout_engine()
        if layout is not None:
            layout.execute(figure)
        figure.set_layout_engine("none")
        canvas.print_png(png, metadata={"Software": None}, pil_kwargs={"compress_level": 4})
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
    return {"svg": svg.getvalue(), "png": png.getvalue()}


def new_figure(width: float = 9.2, height: float = 3.9) -> Figure:
    """A figure of the page's width, laid out so that nothing overlaps."""
    return Figure(figsize=(width, height), layout="constrained")


def shared_legend(figure: Figure, axes: Iterable[Axes], ncols: int = 3, order: Sequence[str] = ()) -> None:
    """One legend below all panels, each label once; those of `order` first, as they stand there."""
    found: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    labels = [*(label for label in order if label in found), *(label for label in found if label not in order)]
    figure.legend([found[label] for label in labels], labels, loc="outside lower center", ncols=ncols)
