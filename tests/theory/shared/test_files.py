"""Files are whole or absent: what a failing writer leaves behind, and what is said of files that cannot be read."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from ambient_theory.shared.errors import DataError
from ambient_theory.shared.files import (
    atomic_file,
    atomic_write_bytes,
    exclusive_lock,
    flushed,
    is_free,
    read_json,
    remove_leftovers,
)


def test_a_flushed_file_reaches_the_disk_once_and_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    real = os.fsync

    def spy(handle: int) -> None:
        synced.append((tmp_path / "file").read_bytes())
        real(handle)

    monkeypatch.setattr(os, "fsync", spy)
    with flushed(open(tmp_path / "file", "wb")) as file:
        file.write(b"pixels")
    assert synced == [b"pixels"]  # everything had left the process's buffer
    assert file.closed


def test_a_flushed_file_is_closed_and_not_synced_when_its_writer_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: pytest.fail("synced what is not whole"))
    with pytest.raises(RuntimeError, match="halfway"), flushed(open(tmp_path / "file", "wb")) as file:  # noqa: PT012
        file.write(b"pix")
        raise RuntimeError("halfway")
    assert file.closed


def test_an_atomic_file_that_fails_leaves_the_old_one_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="halfway"), atomic_file(target) as file:  # noqa: PT012
        file.write(b"ne")
        raise RuntimeError("halfway")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(("text", "said"), [(None, "no such file"), ("{", "cannot be read"), ("[" * 10**5, "cannot")])
def test_json_that_cannot_be_read_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "some.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=f"some.json: {said}"):
        read_json(path)


def test_leftovers_of_a_killed_writer_do_not_occupy_a_directory_and_its_owner_removes_them(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert is_free(folder)
    folder.mkdir()
    (folder / "lock").touch()
    (folder / ".manifest.json.1a2b3c4d.tmp").touch()
    (folder / ".large.tmp").touch()
    assert is_free(folder)
    remove_leftovers(folder)
    assert [p.name for p in folder.iterdir()] == ["lock"]
    for kept in (".hidden", "result.json", ".directory.tmp"):
        (folder / kept).mkdir() if kept.startswith(".d") else (folder / kept).touch()
        assert not is_free(folder)
        remove_leftovers(folder)
        path = folder / kept
        assert path.exists()
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_rights_that_the_users_mask_leaves(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        atomic_write_bytes(tmp_path / "small", b"x")
        with atomic_file(tmp_path / "large") as file:
            file.write(b"x")
        with exclusive_lock(tmp_path / "lock"):
            pass
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("small", "large", "lock")} == {0o666 & ~mask}


def test_a_lock_is_never_taken_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(DataError, match="is a link"), exclusive_lock(tmp_path / "lock"):
        pass
    assert target.read_text() == "mine"


def test_a_writer_removes_what_dead_writers_of_its_file_left_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a[1].json"
    dead, living, other = (
        tmp_path / name for name in (".a[1].json.0badcafe.tmp", ".a[1].json.12345678.tmp", ".a1.json.0badcafe.tmp")
    )
    for path in (dead, living, other):
        path.write_text("{")
    with open(living, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        atomic_write_bytes(target, b"{}")
    assert not dead.exists()
    assert living.exists()
    assert other.exists()
    assert target.read_bytes() == b"{}"


def test_a_writer_holds_its_temporary_file_until_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    synced = os.fsync

    def during(handle: int) -> None:
        for path in tmp_path.glob(".*.tmp"):
            with open(path, "rb") as second, pytest.raises(BlockingIOError):
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seen.append("held")
        synced(handle)

    monkeypatch.setattr(os, "fsync", during)
    atomic_write_bytes(tmp_path / "file", b"x")
    assert seen == ["held"]
