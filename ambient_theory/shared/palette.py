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

DARK = {
    "#000000": "#f3f4f6",
    "#ffffff": "#111827",
    "#e5e7eb": "#2b3544",
    "#374151": "#d1d5db",
    "#4b5563": "#aab2bf",
    GREY: "#a3abb8",
    BLUE.lower(): "#5aa9e6",
    SKY.lower(): "#8fd0f7",
    GREEN.lower(): "#34c79a",
    RED.lower(): "#f58a3c",
    PURPLE.lower(): "#e09bc3",
    ORANGE.lower(): "#f0b429",
}
"""What each colour of a figure becomes on a dark page: text at a contrast of 4.5 at least, lines and marks at 3."""
