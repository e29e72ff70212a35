"""The figures of the page: SVG inside the page, SVG and PNG beside it, a caption that says what was done."""

from __future__ import annotations

import re
from dataclasses import dataclass

from matplotlib.figure import Figure

from ambient_theory.compare.findings import Findings
from ambient_theory.compare.page import answer_figures, captions, figures, figures_simulation
from ambient_theory.compare.scores.analysis import GroupAnalysis
from ambient_theory.shared import plotting
from ambient_theory.shared.palette import DARK
from ambient_theory.simulation.figures import w1_figure


@dataclass(frozen=True)
class Plate:
    """One figure of the page: SVG text for the page, both forms for files, a caption that says what was done."""

    name: str
    title: str
    caption: str
    svg: str
    forms: dict[str, bytes]


def plate(name: str, title: str, caption: str, figure: Figure) -> Plate:
    forms = plotting.to_bytes(figure)
    return Plate(name, title, caption, inline_svg(forms["svg"].decode(), name, title), forms)


PIXELS = 1.28
"""CSS pixels to a point of a figure at its full size."""
SMALLEST = 0.8
"""Share of its full size below which a figure does not shrink: on a phone it scrolls, and its text stays legible."""


def inline_svg(svg: str, name: str, title: str) -> str:
    """An SVG document as an element of a page: no prologue or metadata, ids made unique, fluid width, themed colours.

    Screen readers hear its title, and its caption (`caption-NAME`) as the description.
    """
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda m: colour_variable(m.group()), body)
    head, rest = body.split(">", 1)
    width = re.search(r'\swidth="([\d.]+)pt"', head)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    most = float(width.group(1)) * PIXELS if width else 0.0
    size = f"min-width:{SMALLEST * most:.0f}px;max-width:{most:.0f}px;" if width else ""
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    named = f'role="img" aria-label="{label}" aria-describedby="caption-{name}"'
    return f'{head} {named} style="width:100%;{size}height:auto">{rest}'


def colour_variable(colour: str) -> str:
    """The CSS variable of a figure's colour that a dark page changes; the colour itself where it stays."""
    return f"var(--figure-{colour[1:]})" if colour in DARK else colour


def plates_of(findings: Findings) -> dict[str, list[Plate]]:
    """Every figure of the page by section."""
    out: dict[str, list[Plate]] = {}
    with plotting.styled():
        for i, a in enumerate(a for a in findings.leading if a.group.key.source == "train"):
            out[f"data-{i}"] = _training_plates(a, findings, f"d{i}")
        rows = [r for a in findings.leading if a.group.key.source == "published" for r in a.rows]
        if rows:
            caption = captions.published_caption(rows)
            figure = figures.published_figure(rows)
            out["published"] = [plate("published", "Published scores: the worth of a noisy image", caption, figure)]
        anchor = findings.printed[0] if findings.printed else None
        caption = captions.identifiability_caption(anchor)
        figure = figures.identifiability_figure(anchor)
        out["laws"] = [plate("laws", "All laws through one price", caption, figure)]
        figure = figures_simulation.separation_figure()
        out["laws"].append(plate("separation", "Worth against separation", captions.separation_caption(), figure))
        shown = captions.shown_panels(findings.simulation)
        if shown:
            figure = w1_figure(shown)
            out["simulation"] = [
                plate("simulation", "W1 against n and n_l", captions.simulation_caption(shown), figure),
            ]
    return out


def _training_plates(a: GroupAnalysis, findings: Findings, prefix: str) -> list[Plate]:
    out = [plate(f"{prefix}-scores", "Scores", captions.scores_caption(a), figures.scores_figure(a))]
    if a.single is not None and any(s > 0 for s in a.single.worth):
        out.append(
            plate(f"{prefix}-price", "The price", captions.price_caption(a), figures.price_figure(a, findings.printed))
        )
    if a.equivalents or a.rates:
        out.append(plate(f"{prefix}-utility", "Marginal worth", captions.utility_caption(a), figures.utility_figure(a)))
    same = [b for b in findings.analyses if b.group.key.dataset == a.group.key.dataset and b.single is not None]
    if a.single is not None and len(same) > 1:
        caption, figure = captions.moves_caption(same), figures.moves_figure(same, list(a.single.worth))
        out.append(plate(f"{prefix}-moves", "Does c move?", caption, figure))
    if any(h.curve == answer_figures.SHAPE and h.split == "random half" and h.pairs for h in a.held_out):
        figure = answer_figures.bound_figure(a.held_out, "score")
        out.append(
            plate(f"{prefix}-bound", "The shape of the bound against unseen scores", captions.bound_caption(a), figure)
        )
    if a.held_out:
        out.append(
            plate(
                f"{prefix}-heldout",
                "Cells the fit has not seen",
                captions.held_out_caption(a),
                figures.held_out_figure(a),
            )
        )
    return out
