"""The colours and marks of every figure: Okabe and Ito's palette, told apart by colour-blind readers."""

from __future__ import annotations

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY = "#6b7280"
#: Colours and marks of series in their order (noise levels ascending, mixtures); black is for clean data.
LEVELS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("s", "D", "^", "v", "P", "X")
