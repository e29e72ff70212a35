"""The walls of the package: imports run downward, no modules import each other in a circle, nothing imports torch."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ambient_theory

ROOT = Path(ambient_theory.__file__).parent
FLOORS = ("shared", "bounds", "mixtures", "simulation", "compare")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in ROOT.rglob("*.py")}


def imports(name: str) -> set[str]:
    """Modules that the text of a module imports, at its head, in a function or for types."""
    return imports_of(MODULES[name].read_text(encoding="utf-8"))


def imports_of(text: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {m for m in inner if m in MODULES} or {node.module}
    return found


def floor_of(name: str) -> int | None:
    parts = name.split(".")
    return FLOORS.index(parts[1]) if len(parts) > 1 and parts[1] in FLOORS else None


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_imports_upward_or_from_the_trainer(name):
    here = floor_of(name)
    for other in imports(name):
        assert other.split(".")[0] not in ("torch", "torchvision", "ambient_train", "cli")
        above = floor_of(other)
        if other.startswith("ambient_theory") and here is not None and above is not None:
            assert above <= here, f"{name} imports {other}"


def test_a_module_lies_on_a_floor():
    assert [n for n in MODULES if floor_of(n) is None] == ["ambient_theory"]


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """A circle of the graph as the list of its nodes, or None."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str] | None:
        if node in path:
            return path[path.index(node) :]
        if node in done:
            return None
        for other in sorted(graph.get(node, ())):
            if found := walk(other, [*path, node]):
                return found
        done.add(node)
        return None

    for start in sorted(graph):
        if found := walk(start, []):
            return found
    return None


def test_no_two_modules_import_each_other():
    assert circle({name: imports(name) & set(MODULES) for name in MODULES}) is None


def test_a_circle_and_a_hidden_import_would_be_seen():
    # The negative controls of the two tests above.
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c"]
    hidden = "def f():\n    from ambient_theory.compare import fits\n    import torch.nn\n"
    assert imports_of(hidden) == {"ambient_theory.compare.fits", "torch.nn"}


LEAN = (
    "tables",
    "grouping",
    "curves",
    "fits",
    "analysis",
    "budget",
    "prices",
    "words",
    "terminal",
    "findings",
    "commands",
)


@pytest.mark.parametrize("name", LEAN)
def test_only_the_page_draws(name):
    """`price` and `budget` must not wait for matplotlib: nothing outside the page reaches it."""
    seen, todo = set(), [f"ambient_theory.compare.{name}"]
    if name == "commands":  # its functions import what each command needs
        tree = ast.parse(MODULES[todo[0]].read_text(encoding="utf-8"))
        head = "\n".join(ast.unparse(n) for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom))
        todo = sorted(imports_of(head) & set(MODULES))
    while todo:
        module = todo.pop()
        seen.add(module)
        found = imports(module)
        assert not {m for m in found if m.split(".")[0] == "matplotlib"}, module
        todo += sorted((found & set(MODULES)) - seen)
