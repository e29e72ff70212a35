"""huggingface_hub itself against a hub on this machine: download, resume, offline, damage, tricks with names, push."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_hub import LARGE, LocalHub

from ambient_train.interchange.hub import write_hub
from ambient_train.interchange.load import export
from ambient_train.networks.precond import EDMPrecond

pytest.importorskip("huggingface_hub")
pytestmark = [pytest.mark.extras, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[3]
NAME = "somebody/net"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    (found,) = (ROOT / "tests").rglob("ddpmpp.network-snapshot.pkl")
    export(found, folder)
    return folder


@pytest.fixture
def hub(exported: Path) -> Iterator[LocalHub]:
    with LocalHub() as server:
        server.put(NAME, {file.name: file.read_bytes() for file in exported.iterdir()})
        yield server


def ambient(hub: LocalHub, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: huggingface_hub reads its environment when it is imported."""
    environment = {**os.environ, **hub.environment(home), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)


def fetched(hub: LocalHub, home: Path, out: Path, *before: str) -> subprocess.CompletedProcess[str]:
    return ambient(hub, home, *before, "export", f"hf:{NAME}", out, "-q")


def test_a_network_comes_down_once_and_is_what_was_put_there(hub: LocalHub, exported: Path, tmp_path: Path) -> None:
    found = fetched(hub, tmp_path / "home", tmp_path / "out")
    assert found.returncode == 0, found.stderr
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (exported / name).read_bytes()
    assert len((exported / "model.safetensors").read_bytes()) > LARGE
    before = [line for line in hub.asked if line.startswith("GET") and "resolve" in line]
    assert len(before) >= 2
    assert fetched(hub, tmp_path / "home", tmp_path / "again").returncode == 0
    assert [line for line in hub.asked if line.startswith("GET") and "resolve" in line] == before


def test_a_download_that_broke_off_goes_on_where_it_was(hub: LocalHub, tmp_path: Path) -> None:
    """50 MB, since the client keeps what it has in parts of 10."""
    large = EDMPrecond(8, 1, model_type="SmallUNet", model_channels=256)
    write_hub(large, tmp_path / "large")
    hub.put(NAME, {file.name: file.read_bytes() for file in (tmp_path / "large").iterdir()})
    hub.cut.add("model.safetensors")
    found = fetched(hub, tmp_path / "home", tmp_path / "out")
    assert found.returncode == 0, found.stderr
    ((name, start),) = (asked.split() for asked in hub.ranges)
    size = (tmp_path / "large" / "model.safetensors").stat().st_size
    assert name == "model.safetensors"
    assert 0 < int(start) <= size // 2
    again = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert again == (tmp_path / "large" / "model.safetensors").read_bytes()


def test_offline_reads_the_cache_and_asks_nobody(hub: LocalHub, tmp_path: Path) -> None:
    empty = fetched(hub, tmp_path / "home", tmp_path / "out", "--offline")
    assert empty.returncode == 3
    assert f"hf:{NAME}: cannot be fetched" in empty.stderr
    assert len(empty.stderr.strip().splitlines()) == 1
    assert hub.asked == []
    assert fetched(hub, tmp_path / "home", tmp_path / "out").returncode == 0
    asked = len(hub.asked)
    found = fetched(hub, tmp_path / "home", tmp_path / "offline", "--offline")
    assert found.returncode == 0, found.stderr
    assert len(hub.asked) == asked


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_content_of_another_hash_is_refused_by_name_and_again(hub: LocalHub, tmp_path: Path, file: str) -> None:
    """One bit is altered on the way. Control: without the alteration the same file is taken (first test)."""
    hub.spoil.add(file)
    for _ in range(2):
        found = fetched(hub, tmp_path / "home", tmp_path / "out")
        assert (found.returncode, f"{file} is damaged" in found.stderr) == (3, True), found.stderr
        assert len(found.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_names_that_lead_elsewhere_write_nothing_elsewhere(hub: LocalHub, tmp_path: Path) -> None:
    hub.put(NAME, {"../../../evil.json": b"{}", "sub/../../config.json": b"{}", "/etc/evil": b"x"})
    home = tmp_path / "deep" / "er" / "home"
    found = fetched(hub, home, tmp_path / "out")
    assert found.returncode == 0, found.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"deep", "out"}
    assert not list(tmp_path.rglob("evil*"))
    for name in ("../up", "a/b/c", "/etc/passwd", "a//b", ".git/x", "a b/c", ""):
        found = ambient(hub, home, "export", f"hf:{name}", tmp_path / "out2", "-q")
        assert found.returncode == 3, (name, found.stderr)
        assert len(found.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out2").exists()


def test_a_repository_that_is_not_there_is_one_sentence(hub: LocalHub, tmp_path: Path) -> None:
    found = ambient(hub, tmp_path / "home", "generate", "hf:nobody/nothing", "--outdir", tmp_path / "out", "-q")
    assert found.returncode == 3
    assert "hf:nobody/nothing: cannot be fetched" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_a_pushed_network_comes_back_bit_for_bit(hub: LocalHub, exported: Path, tmp_path: Path) -> None:
    found = ambient(hub, tmp_path / "home", "export", exported, tmp_path / "out", "--push", "me/mine", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["pushed"] == "hf:me/mine"
    assert hub.private == {"me/mine"}
    for name in ("model.safetensors", "config.json"):
        assert hub.models["me/mine"][name] == (exported / name).read_bytes()
    assert set(hub.models["me/mine"]) <= {"model.safetensors", "config.json", "ambient.json", "README.md"}
    back = ambient(hub, tmp_path / "other", "export", "hf:me/mine", tmp_path / "back", "-q")
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()


def test_a_push_that_is_refused_keeps_the_local_copy(hub: LocalHub, exported: Path, tmp_path: Path) -> None:
    hub.forbidden = True
    for state in ("forbidden", "gone"):
        if state == "gone":
            hub.stop()
        found = ambient(hub, tmp_path / "home", "export", exported, tmp_path / state, "--push", "me/mine", "-q")
        assert (found.returncode, "the hub took nothing" in found.stderr) == (3, True), found.stderr
        assert len(found.stderr.strip().splitlines()) == 1
        assert (tmp_path / state / "model.safetensors").is_file()
    for name in ("mine", "a/b/c", "../x"):
        found = ambient(hub, tmp_path / "home", "export", exported, tmp_path / "out2", "--push", name, "-q")
        assert (found.returncode, "ORGANISATION/NAME" in found.stderr) == (2, True), found.stderr
    assert not (tmp_path / "out2").exists()
