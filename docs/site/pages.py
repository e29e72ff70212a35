"""The pages of the site: those that are written, those that are made from the code, and in which order they stand.

A written page keeps the place that it has in the repository, so that a link that works there works on the site.
"""

from __future__ import annotations

import dataclasses
import html
import importlib
import inspect
import json
import re
import shutil
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cli
from ambient_theory.bounds.laws import Law
from ambient_theory.bounds.rates import Statement

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    "ambient_train": "Train, sample, score, restore",
    "ambient_theory": "Estimate and simulate",
    "ambient_theory.bounds": "Bounds",
    "ambient_theory.compare": "Prices, purchases, the page",
    "ambient_theory.shared.errors": "Errors",
}
"""Whose public names have a page, and its title."""
ORDER: Mapping[str, tuple[str, ...]] = {
    "": ("docs/start", "docs/scores"),
    "Your own data": ("docs/data", "docs/field", "docs/restore", "docs/worth"),
    "How to train on mixtures": ("docs/methods", "docs/distillation"),
    "What is known": ("docs/findings", "experiments/README", "docs/theory"),
    "What holds": ("docs/reliability", "docs/speed", "docs/from-ambient-laws"),
    "Python": ("examples/README", *(f"api/{name}" for name in MODULES)),
    "Command line": (*(f"commands/{name}" for name in cli.COMMANDS), "docs/options"),
    "Project": ("CONTRIBUTING", "CHANGELOG"),
}
"""Caption -> pages. README.md is the first page, `index`."""
PICTURES = ("docs/figures/*", "experiments/results/*.png")
LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json"}
ORPHAN = "---\norphan: true\n---\n"
"""Head of a page that is only linked to."""
LINK = re.compile(r"(?<=\]\()(?![a-z]+:)[^)#\s]+(?=[)#])")


def write_pages(source: Path) -> None:
    """All pages below `source`, ready for Sphinx."""
    made = {f"commands/{name}.md": command_page(name) for name in cli.COMMANDS}
    made |= {f"api/{name}.rst": module_page(name, title) for name, title in MODULES.items()}
    written = [f"{page}.md" for pages in ORDER.values() for page in pages if not page.startswith(("commands/", "api/"))]
    todo = list(written)
    made["index.md"] = f"{_linked(ROOT / 'README.md', todo)}\n{contents()}"
    for name in todo:  # grows by what its pages link to
        if name in written:
            made[name] = _linked(ROOT / name, todo)
        elif name.endswith(".md"):
            made[name] = ORPHAN + _linked(ROOT / name, todo)
        else:
            made[f"{name}.md"] = ORPHAN + shown(ROOT / name)
    for name, text in made.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    for file in (f for pattern in PICTURES for f in ROOT.glob(pattern)):
        place = source / file.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)


def contents() -> str:
    """The order of the pages, as Sphinx reads it."""
    parts = []
    for caption, pages in ORDER.items():
        head = [f":caption: {caption}"] if caption else []
        parts.append("\n".join(["```{toctree}", ":hidden:", *head, "", *pages, "```\n"]))
    return "\n".join(parts)


def _linked(page: Path, todo: list[str]) -> str:
    """The text of a page; its links to other files of the repository lead to pages that show them, added to `todo`."""

    def to_page(match: re.Match[str]) -> str:
        target = (page.parent / match[0]).resolve()
        if not target.is_file() or target.suffix in (".png", ".svg"):
            return match[0]
        name = target.relative_to(ROOT).as_posix()
        if name not in todo:
            todo.append(name)
        return match[0] if target.suffix == ".md" else f"{match[0]}.md"

    return LINK.sub(to_page, page.read_text(encoding="utf-8"))


def shown(file: Path) -> str:
    """A page that shows a file as it is."""
    name, text = file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        return "\n\n".join(map(_cell_of_notebook, json.loads(text)["cells"])) + "\n"
    return f"# {name}\n\n`````{LANGUAGES.get(file.suffix, 'text')}\n{text}`````\n"


def _cell_of_notebook(cell: Mapping[str, Any]) -> str:
    """A cell of a notebook with what it printed and showed when it was run last."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    parts = [f"```python\n{source}\n```"]
    for output in cell["outputs"]:
        data = output.get("data", {"text/plain": output.get("text", "")})
        if "image/png" in data:
            encoded = "".join(data["image/png"]).replace("\n", "")
            parts.append(f'```{{raw}} html\n<img alt="output" src="data:image/png;base64,{encoded}">\n```')
        elif "text/html" in data:
            parts.append(f"`````{{raw}} html\n<div>{''.join(data['text/html'])}</div>\n`````")
        else:
            parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join(parts)


# ------------------------------------------------------------------------------------------------------- commands


def command_page(name: str) -> str:
    """A command, or every command of a group, from the objects that print its help."""
    command = cli.imported(name)
    members: Mapping[str, Any] = getattr(command, "commands", {})
    parts = [f"# ambient {name}\n"]
    if members and not command.invoke_without_command:
        parts.append(f"{_prose(command.help)}\n")
    else:
        parts += _help(f"ambient {name}", command)
    for word, member in members.items():
        parts += [f"## ambient {name} {word}\n", *_help(f"ambient {name} {word}", member)]
    return "\n".join(parts)


def _help(called: str, command: Any) -> Iterator[str]:
    yield f"{_prose(command.help)}\n"
    words = [p.name if p.required else f"[{p.name}]" for p in command.params if p.param_type_name == "argument"]
    yield f"```text\n{' '.join([called, *words, '[OPTIONS]'])}\n```\n"
    if command.epilog:
        yield f"Example:\n\n```text\n{' '.join(command.epilog.split()).removeprefix('Example: ')}\n```\n"
    panels: dict[str, list[str]] = {}
    for p in (p for p in command.params if not p.hidden):
        argument = p.param_type_name == "argument"
        name = p.name if argument else ", ".join(p.opts)
        panel = p.rich_help_panel or ("Arguments" if argument else "Options")
        panels.setdefault(panel, []).append(f"| `{name}` | {_cell(p.help or '')} |")
    for panel, rows in panels.items():
        yield "\n".join([f"| {panel} | |", "|---|---|", *rows, ""])


def _prose(text: str | None) -> str:
    return "\n\n".join(_escaped(" ".join(part.split())) for part in inspect.cleandoc(text or "").split("\n\n"))


def _cell(text: str) -> str:
    return _escaped(" ".join(text.split())).replace("|", "\\|")


def _escaped(text: str) -> str:
    return re.sub(r"([*_<\[\]\\])", r"\\\1", text)


# ----------------------------------------------------------------------------------------------------- Python API


def module_page(name: str, title: str) -> str:
    """The docstring of a module, its public names, and what its functions return; modules have pages of their own."""
    module = importlib.import_module(name)
    parts = [f"{title}\n{'=' * len(title)}\n", f".. automodule:: {name}\n"]
    public = {key: value for key, value in public_names(name).items() if not inspect.ismodule(value)}
    for key, value in sorted(public.items(), key=lambda item: not inspect.isfunction(item[1])):
        renamed = inspect.isclass(value) and value.__name__ != key  # of which Sphinx would say only that it is an alias
        parts.append(_documented(key, _path(value) if renamed else f"{name}.{key}", value))
    returned = dict.fromkeys(cls for value in public.values() for cls in results_of(value))
    for cls in returned:
        if cls not in public.values() and cls.__module__ != module.__name__:
            parts.append(_documented(cls.__name__, _path(cls), cls))
    return "\n".join(parts)


def public_names(module: str) -> dict[str, Any]:
    """What a module offers: that which it imports when used, else the classes that it defines."""
    found = importlib.import_module(module)
    if hasattr(found, "__getattr__"):
        return {key: getattr(found, key) for key in dir(found)}
    return {k: v for k, v in vars(found).items() if inspect.isclass(v) and v.__module__ == module}


def results_of(function: Any) -> list[type]:
    """The project's own dataclasses that a function says it returns."""
    if not inspect.isfunction(function):
        return []
    hint = typing.get_type_hints(function).get("return")
    found, todo = [], [hint]
    while todo:
        each = todo.pop(0)
        todo += typing.get_args(each)
        if dataclasses.is_dataclass(each) and isinstance(each, type):
            found.append(each)
    return found


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _documented(heading: str, path: str, value: Any) -> str:
    title = f"{heading}\n{'-' * len(heading)}\n"
    if inspect.isclass(value):
        return f"{title}\n.. autoclass:: {path}\n   :members:\n"
    if callable(value):
        return f"{title}\n.. autofunction:: {path}\n"
    members = value.values() if isinstance(value, Mapping) else value
    formulas = (each.formula() if isinstance(each, Law) else each for each in members)
    return "\n".join([title, ".. raw:: html\n", *(f"   {line}" for each in formulas for line in _formula(each))]) + "\n"


def _formula(of: Statement) -> Iterator[str]:
    """A formula of the theory as browsers draw it, with what holds of it."""
    yield f"<p><strong>{html.escape(of.name)}</strong> ({of.grade}). {html.escape(of.regime)}.</p>"
    yield f'<div class="formula">{of.mathml().replace("<math>", """<math display="block">""")}</div>'
    symbols = "; ".join(f"<var>{html.escape(name)}</var>: {html.escape(text)}" for name, text in of.symbols.items())
    yield f'<p class="symbols">{symbols}. Source: {html.escape(of.source)}.</p>'
