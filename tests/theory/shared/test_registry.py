"""A table's members are the files of its package: listed without an import, imported when asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.registry import Registry


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[str]:
    package = tmp_path / "playthings"
    package.mkdir()
    (package / "__init__.py").write_text('"""Toys."""\n')
    (package / "spinning_top.py").write_text('"""Turns until it falls.\n\nMore."""\n\nMEMBER = "top"\n')
    (package / "broken.py").write_text('"""Cannot be imported."""\n\nraise RuntimeError("imported")\n')
    (package / "_helper.py").write_text("MEMBER = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Registry("playthings", "toy")
    for name in [n for n in sys.modules if n.split(".")[0] == "playthings"]:
        del sys.modules[name]


def test_names_and_descriptions_are_read_without_importing_a_member(table: Registry[str]) -> None:
    assert table.names == ("broken", "spinning-top")
    assert table.descriptions == {"broken": "Cannot be imported", "spinning-top": "Turns until it falls"}
    assert "playthings.broken" not in sys.modules


def test_a_member_is_the_constant_of_its_file(table: Registry[str]) -> None:
    assert table["spinning-top"] == "top"
    with pytest.raises(RuntimeError, match="imported"):
        table["broken"]


def test_an_unknown_name_lists_the_members(table: Registry[str]) -> None:
    with pytest.raises(UsageError, match=r"toy 'helper' is not one of broken, spinning-top"):
        table["helper"]


def test_a_new_file_is_a_new_member_without_another_change(table: Registry[str], tmp_path: Path) -> None:
    (tmp_path / "playthings" / "kite.py").write_text('"""Flies."""\n\nMEMBER = "kite"\n')
    assert "kite" in table
    assert table["kite"] == "kite"
