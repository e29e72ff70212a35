"""Text for streams that cannot hold every character (`PYTHONIOENCODING=ascii`, cp1252): words instead of a traceback.

`plain_output()` gives stdout and stderr an error handler that writes what a character means (`σ` becomes `sigma`);
streams that can hold the character are not touched. Standard library only.
"""

from __future__ import annotations

import codecs
import sys
import unicodedata
from typing import Any

HANDLER = "ambient.plain"
WORDS = {
    "σ": "sigma",
    "δ": "delta",
    "λ": "lambda",
    "∞": "inf",
    "–": "-",
    "—": "-",
    "−": "-",
    "→": "->",
    "±": "+-",
    "×": "x",
    "·": "*",
    "≥": ">=",
    "≤": "<=",
    "≈": "~",
    "√": "sqrt",
    "…": "...",
    "²": "^2",
    "³": "^3",
    "✓": "ok",
    "•": "*",
}


def printable_line(text: str) -> str:
    """The text with every character escaped that steers a terminal, breaks a line or cannot be encoded."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def csv_field(text: str) -> str:
    """Text for a field of a CSV file: one line, and never a formula of a spreadsheet (`=1+1` becomes `'=1+1`)."""
    line = printable_line(text)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def plain(text: str) -> str:
    """The text in ASCII: words for symbols, letters without accents, `?` for what has neither."""
    return "".join(_plain_character(c) for c in text)


def printable(text: str, encoding: str | None) -> str:
    """The text with what `encoding` cannot hold written in ASCII."""
    _register()
    encoding = encoding or "ascii"
    return text.encode(encoding, HANDLER).decode(encoding)


def plain_output(*streams: Any) -> None:
    """Let `streams` (default: stdout and stderr) degrade to plain characters instead of failing."""
    _register()
    for stream in streams or (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)


def _plain_character(c: str) -> str:
    if c.isascii():
        return c
    if c in WORDS:
        return WORDS[c]
    return unicodedata.normalize("NFKD", c).encode("ascii", "ignore").decode() or "?"


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end


def _register() -> None:
    codecs.register_error(HANDLER, _replace)


def duration_text(seconds: float) -> str:
    """`42 s`, `3.5 min`, `2.1 h`, `4.0 days`."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{max(seconds, 0) / size:.{0 if size == 1 else 1}f} {unit}"
    return f"{seconds / 86_400:.1f} days"
