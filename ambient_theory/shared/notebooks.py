"""What results show of themselves in a notebook: a picture from a file above their words."""

from __future__ import annotations

import base64
import html
from pathlib import Path


def picture_html(picture: Path | None, text: str) -> str:
    """HTML for `_repr_html_`: the PNG file and the text below it; the text alone where there is no such file."""
    words = html.escape(text)
    if picture is None or not picture.is_file():
        return words
    data = base64.b64encode(picture.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(picture.stem)}"><br>{words}'
