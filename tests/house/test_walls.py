"""The house's walls: which folder may import which. Imports are parsed, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

THEORY = ("compare", "own_data", "simulation", "mixtures", "bounds", "shared")
TRAIN = (
    "commands",
    "pricing",
    "sweep",
    "tasks",
    "interchange",
    "runs",
    "training",
    "settings",
    "evaluation",
    "diffusion",
    "networks",
    "data",
    "safe_pickle",
    "stateless",
)
"""From the top down: a folder imports only what stands below it (and itself)."""

COMPARE = ("commands", "advice", "page", "purchase", "findings", "by_level", "scores", "fitting", "cells")
"""The rooms of the module where both sides meet, likewise."""


def modules(package: str) -> dict[str, Path]:
    """Dotted name -> file, of every module of a package."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imported(name: str, file: Path, known: set[str]) -> Iterator[str]:
    """Modules of the project that a file imports, wherever in it, but for those that only type checkers see."""
    for node in walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for found in names:
            while found and found not in known:
                found = found.rpartition(".")[0]
            if found and found != name:
                yield found


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from walk(node)


def arrows() -> list[tuple[str, str]]:
    every = modules("ambient_theory") | modules("ambient_train") | {"cli": ROOT / "cli.py"}
    known = set(every)
    return [(name, other) for name, file in every.items() for other in imported(name, file, known)]


ARROWS = arrows()


def upward(edges: list[tuple[str, str]], package: str, floors: tuple[str, ...]) -> list[str]:
    """The arrows of a package that run to a higher floor."""
    height = {floor: number for number, floor in enumerate(floors)}
    depth = package.count(".") + 1
    out = []
    for a, b in edges:
        if not (a.startswith(f"{package}.") and b.startswith(f"{package}.")):
            continue
        x, y = a.split(".")[depth], b.split(".")[depth]
        if height[x] > height[y]:
            out.append(f"{a} -> {b}")
    return out


@pytest.mark.parametrize(
    ("package", "floors"), [("ambient_theory", THEORY), ("ambient_train", TRAIN), ("ambient_theory.compare", COMPARE)]
)
def test_imports_run_downward_only(package: str, floors: tuple[str, ...]) -> None:
    assert upward(ARROWS, package, floors) == []


def test_the_trainer_knows_only_the_shared_part_of_the_theory_and_is_not_known_to_it() -> None:
    across = [(a, b) for a, b in ARROWS if a.split(".")[0] != b.split(".")[0] and a != "cli"]
    assert across
    assert [
        x for x in across if not (x[0].startswith("ambient_train") and x[1].startswith("ambient_theory.shared"))
    ] == []


def test_the_theory_imports_no_torch() -> None:
    for file in modules("ambient_theory").values():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [n for n in names if n.split(".")[0] in ("torch", "torchvision")], file


@pytest.mark.parametrize("start", ["ambient_theory.compare.findings", "ambient_theory.compare.commands.terminal"])
def test_only_the_page_draws(start: str) -> None:
    """`price` and `budget` do not wait for Matplotlib: what they stand on does not reach it."""
    every = modules("ambient_theory")
    graph: dict[str, set[str]] = {}
    for a, b in ARROWS:
        graph.setdefault(a, set()).add(b)
    seen, todo = set(), [start]
    while todo:
        module = todo.pop()
        seen.add(module)
        if module in every:
            assert "import matplotlib" not in every[module].read_text(encoding="utf-8"), module
            assert "from matplotlib" not in every[module].read_text(encoding="utf-8"), module
        todo += sorted(graph.get(module, set()) - seen)
    assert len(seen) > 5


def test_there_is_no_circle_between_modules() -> None:
    assert circle(ARROWS) == []


def circle(edges: list[tuple[str, str]]) -> list[str]:
    """The modules of some circle of imports at the head of files or inside functions; empty if there is none."""
    graph: dict[str, set[str]] = {}
    for a, b in edges:
        if not a.startswith(f"{b}."):  # a package's own __init__ holds nothing of its members
            graph.setdefault(a, set()).add(b)
    state: dict[str, int] = {}
    path: list[str] = []

    def visit(node: str) -> list[str]:
        state[node] = 1
        path.append(node)
        for following in sorted(graph.get(node, ())):
            if state.get(following) == 1:
                return path[path.index(following) :]
            if following not in state and (found := visit(following)):
                return found
        path.pop()
        state[node] = 2
        return []

    for node in sorted(graph):
        if node not in state and (found := visit(node)):
            return found
    return []


@pytest.mark.parametrize("package", ["ambient_theory", "ambient_train", "ambient_theory/compare"])
def test_at_most_three_files_stand_at_the_root_of_a_package(package: str) -> None:
    assert len(list((ROOT / package).glob("*.py"))) <= 3


def test_a_wrong_arrow_would_be_noticed() -> None:
    assert upward([("ambient_train.data.load", "ambient_train.runs.run")], "ambient_train", TRAIN)
    assert circle([("a", "b"), ("b", "c"), ("c", "a")])
    tree = "import ambient_train.runs.run\ndef f():\n    from ambient_train.data import load\n"
    found = [n for n in walk(ast.parse(tree)) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert len(found) == 2
