"""The house's docstrings as reStructuredText.

They are prose for a terminal: `name: what it is.` for a parameter, `[n, C, H, W]` and `n_clean + c n_noisy` as they
stand, single backticks for code, indented lines for code and equations. On the site a parameter begins an item of a
list, and nothing else becomes markup.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterable
from typing import Any

CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
UNDERLINED = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)
LIST = re.compile(r"(?m)^[-*] ")


def process(app: object, what: str, name: str, obj: Any, options: object, lines: list[str]) -> None:
    """Sphinx's event `autodoc-process-docstring`."""
    lines[:] = as_rst("\n".join(lines), names_of(obj)).splitlines()


def signature(
    app: object, what: str, name: str, obj: Any, options: object, arguments: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Sphinx's event `autodoc-process-signature`: NumPy's aliases of types as they are written in the code."""
    return _types(arguments), _types(returned)


def _types(text: str | None) -> str | None:
    if text is None:
        return None
    text = re.sub(r"~?[\w.]*_Buffer \| .*?_NestedSequence\[complex \| bytes \| str\]", "ArrayLike", text)
    return re.sub(r"~?numpy\.ndarray\[tuple\[.*?\], ~?numpy\.dtype\[~?numpy\.(\w+)\]\]", r"NDArray[\1]", text)


def names_of(obj: Any) -> set[str]:
    """What a docstring may explain: parameters of a function, fields, parameters and learned values of a class."""
    if inspect.isclass(obj):
        fields = {f.name for f in dataclasses.fields(obj)} if dataclasses.is_dataclass(obj) else set()
        words = set(re.findall(r"\b[a-z]\w*_\b", obj.__doc__ or ""))
        return fields | words | names_of(obj.__init__)
    return set(inspect.signature(obj).parameters) if inspect.isroutine(obj) else set()


def as_rst(text: str, names: Iterable[str] = ()) -> str:
    """Blocks of prose, of which every explained name begins an item; indented blocks word for word."""
    text = UNDERLINED.sub(r"\n\1:\n\n", text.strip("\n"))
    blocks = [b.strip("\n") for b in re.split(r"\n[ \t]*\n", text) if b.strip()]
    out: list[str] = []
    for block in blocks:
        if not block.startswith("    "):
            out.append(_prose(block, set(names)))
        elif out and out[-1].startswith(".. code-block::"):
            out[-1] += f"\n\n{_indented(block)}"
        else:
            out.append(f".. code-block:: {_language(block)}\n\n{_indented(block)}")
    return "\n\n".join(out) + "\n"


def _indented(block: str) -> str:
    return textwrap.indent(textwrap.dedent(block), "   ")


def _language(block: str) -> str:
    try:
        nodes = ast.walk(ast.parse(textwrap.dedent(block)))
    except SyntaxError:
        return "text"
    return "python" if any(isinstance(node, ast.Call | ast.Import | ast.ImportFrom) for node in nodes) else "text"


def _prose(block: str, names: set[str]) -> str:
    if LIST.match(block):
        return "\n".join(f"* {_plain(item)}" for item in LIST.split(block) if item.strip())
    if not names:
        return _plain(block)
    word = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    begins = re.compile(rf"(?:\A|(?<=[.;)] )|(?<=[.;)]\n)|(?<=\n))((?:{word})(?:, (?:{word}))*) ?: ")
    head, *parts = begins.split(block)
    if not parts:
        return _plain(block)
    items = list(zip(parts[::2], map(_plain, parts[1::2]), strict=True))
    name, last = items.pop()
    end = re.search(r"(?<=[.)]) (?=(?:Returns|Raises)\b)", last)  # is about the whole, not about the last name
    items.append((name, last[: end.start()] if end else last))
    listed = "\n".join(f"* ``{name}``: {said}" for name, said in items)
    return "\n\n".join([*filter(None, [_plain(head)]), listed, *([last[end.end() :]] if end else [])])


def _plain(text: str) -> str:
    """One line in which code is code, and nothing else is markup."""
    parts = CODE.split(" ".join(text.split()))
    for at in range(0, len(parts), 3):  # text, backticks, code, text, ...
        parts[at] = re.sub(r"([*_|\\`])", r"\\\1", parts[at])
    return "".join(part if at % 3 == 0 else f"``{part}``" if at % 3 == 2 else "" for at, part in enumerate(parts))
