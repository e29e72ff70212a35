"""Prepared archives: EDM's layout, the same bytes always, exact continuation after a kill, nothing outside DEST."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_files import (
    cifar_batches,
    cifar_python_files,
    edm_files,
    encode,
    png,
    rgb,
    write_folder,
    write_mnist_folder,
    write_tar,
    write_zip,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from invoke import ambient
from PIL import Image

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.files import content_hash
from ambient_train.data.load import load_images
from ambient_train.data.prepare import prepare as module
from ambient_train.data.prepare.archives import finished_config
from ambient_train.data.prepare.check import check
from ambient_train.data.prepare.prepare import CHUNK, PrepareConfig, prepare
from ambient_train.data.resize import area_resize


def _config(source: Path | str, dest: Path, **options) -> PrepareConfig:
    return PrepareConfig(source=str(source), dest=dest, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in", edm_files(rgb(30, 12), list(range(30))))


def test_zip_is_edms_layout_uncompressed_with_labels(folder: Path, tmp_path: Path) -> None:
    prepare(_config(folder, tmp_path / "out.zip", transform="resize", resolution="6"))
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        names = archive.namelist()
        assert names == [f"00000/img{i:08d}.png" for i in range(30)] + ["dataset.json"]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        labels = json.loads(archive.read("dataset.json"))["labels"]
        with archive.open(names[7]) as file, Image.open(file) as image:
            pixels = np.array(image).transpose(2, 0, 1)
    assert labels == [[f"00000/img{i:08d}.png", i] for i in range(30)]
    np.testing.assert_array_equal(pixels, area_resize(rgb(30, 12)[7], 6))


@pytest.mark.parametrize("kind", ["zip", "npz"])
def test_every_source_comes_back_equal_from_its_archive(tmp_path: Path, kind: str) -> None:
    sources = {
        "cifar": str(write_tar(tmp_path / "c.tar.gz", cifar_python_files(cifar_batches(60)))),
        "mnist": str(write_mnist_folder(tmp_path / "m")),
        "zip": str(write_zip(tmp_path / "z.zip", edm_files(rgb(5), None))),
        "digits": "digits",
    }
    for name, spec in sources.items():
        dest = tmp_path / f"{name}-out.{kind}"
        result = prepare(_config(spec, dest))
        original, copy = load_images(spec), load_images(str(dest))
        assert (result.count, result.shape) == (len(original), original.images.shape[1:])
        np.testing.assert_array_equal(copy.images, original.images)
        assert (copy.labels is None) == (original.labels is None)
        if original.labels is not None:
            np.testing.assert_array_equal(copy.labels, original.labels)


@pytest.mark.parametrize("kind", ["zip", "npz"])
def test_bytes_do_not_depend_on_workers_place_or_time(folder: Path, tmp_path: Path, kind: str) -> None:
    elsewhere = write_folder(tmp_path / "else" / "where", edm_files(rgb(30, 12), list(range(30))))
    digests = {
        prepare(_config(source, tmp_path / f"{i}.{kind}", transform="resize", resolution="8"), workers=workers).sha256
        for i, (source, workers) in enumerate([(folder, 1), (folder, 5), (elsewhere, 2)])
    }
    assert len(digests) == 1


def test_natural_heldout_part_is_prepared_on_request(tmp_path: Path) -> None:
    spec = str(write_mnist_folder(tmp_path / "m"))
    prepare(_config(spec, tmp_path / "h.npz", split="heldout"))
    np.testing.assert_array_equal(
        load_images(str(tmp_path / "h.npz")).images, load_images(spec, split="heldout").images
    )


def test_noise_levels_travel_and_floats_stay_floats(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)
    levels = np.array([0, 0, 0.2, 0.2, 0.6, 0.6], np.float32)
    np.savez(tmp_path / "n.npz", images=noisy, sigma=levels)
    result = prepare(_config(tmp_path / "n.npz", tmp_path / "half.npz", transform="resize", resolution="4"))
    loaded = load_images(str(tmp_path / "half.npz"))
    assert result.noisy == 4
    assert loaded.sigma_n is not None
    np.testing.assert_array_equal(loaded.sigma_n, levels / 2)
    np.testing.assert_allclose(loaded.images, noisy.reshape(6, 3, 4, 2, 4, 2).mean((3, 5)), atol=1e-6)
    with pytest.raises(DataError, match=r"\.npz"):
        prepare(_config(tmp_path / "n.npz", tmp_path / "n.zip"))
    assert not (tmp_path / "n.zip").exists()


@pytest.mark.parametrize("kind", ["npz", "folder", "tiff"])
def test_grey_of_noisy_colour_images_states_the_noise_that_it_has(tmp_path: Path, kind: str) -> None:
    count, side, level = 40, 16, 0.2
    z = np.random.default_rng(0).standard_normal((count, 3, side, side))
    if kind == "npz":
        source = tmp_path / "n.npz"
        np.savez(source, images=(level * z).astype(np.float32), sigma=np.full(count, level, np.float32))
    elif kind == "tiff":
        tifffile = pytest.importorskip("tifffile")
        source = tmp_path / "n.tif"
        tifffile.imwrite(source, (1000 + 100 * z).astype(np.float32).transpose(0, 2, 3, 1), photometric="rgb")
        np.save(tmp_path / "n.sigma.npy", np.full(count, 100, np.float32))
    else:
        pixels = np.clip(127.5 + 127.5 * level * z, 0, 255).round().astype(np.uint8)
        files = {f"{k:02d}.png": png(image) for k, image in enumerate(pixels)}
        files["dataset.csv"] = ("file,sigma\n" + "".join(f"{name},{level}\n" for name in files)).encode()
        source = write_folder(tmp_path / "n", files)
    result = prepare(_config(source, tmp_path / "grey.npz", colour="grey"))
    loaded = load_images(str(tmp_path / "grey.npz"), holdout=0.0)
    assert loaded.sigma_n is not None
    stated = float(loaded.sigma_n[0])
    assert list(result.converted.values()) == [count]
    assert "0.6686 of that stated" in next(iter(result.converted))
    # the deviation of n normal numbers has the relative standard error 1/sqrt(2 n)
    assert abs(loaded.pixels().std() / stated - 1) < 4 / np.sqrt(2 * count * side**2)


def test_archives_of_noisy_images_from_before_their_levels_were_right_are_not_taken_for_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, levels in (("noisy", [0.2, 0.0, 0.2]), ("clean", [0.0, 0.0, 0.0])):
        np.savez(tmp_path / f"{name}.npz", images=rgb(3), sigma=np.array(levels, np.float32))
        config = _config(tmp_path / f"{name}.npz", tmp_path / f"{name}-grey.npz", colour="grey")
        with monkeypatch.context() as before:
            before.setattr(
                module, "content_hash", lambda of, n: content_hash({k: of[k] for k in of if k != "levels"}, n)
            )
            prepare(config)
        if name == "clean":
            assert prepare(config).status == "done"
            continue
        with pytest.raises(UsageError, match="--overwrite"):
            prepare(config)
        prepare(config, overwrite=True)


def test_noisy_images_whose_conversion_leaves_no_white_noise_are_refused(tmp_path: Path) -> None:
    grey = rgb(3, channels=1)
    np.savez(tmp_path / "g.npz", images=grey, sigma=np.array([0, 0.2, 0], np.float32))
    with pytest.raises(DataError, match=r"g\.npz: image 1: a grey image, and noisy: .*--colour grey"):
        prepare(_config(tmp_path / "g.npz", tmp_path / "o.npz", colour="rgb"))
    plain = Image.fromarray(rgb(1)[0].transpose(1, 2, 0))
    for name, image in (("p", plain.convert("P")), ("a", plain.convert("RGBA")), ("l", plain.convert("L"))):
        table = f"file,sigma\n{name}.png,0.2\nz.png,0\n".encode()
        files = {f"{name}.png": encode(image), "z.png": encode(plain), "dataset.csv": table}
        root = write_folder(tmp_path / name, files)
        with pytest.raises(DataError, match=rf"{name}\.png: .*, and noisy"):
            prepare(_config(root, tmp_path / "o.npz"))
        assert not (tmp_path / "o.npz").exists()
        result = prepare(_config(root, tmp_path / f"{name}.npz", skip_bad=True))
        assert [skipped for skipped, _ in result.skipped] == [f"{name}.png"]
        write_folder(root, {"dataset.csv": table.replace(b"0.2", b"0")})  # clean ones are converted
        assert prepare(_config(root, tmp_path / f"{name}.npz"), overwrite=True).count == 2


def test_noisy_counts_in_colour_are_not_made_grey(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", images=np.random.default_rng(0).poisson(50.0, (4, 3, 8, 8)).astype(np.uint16))
    with pytest.raises(DataError, match="counts"):
        prepare(_config(f"{tmp_path / 'c.npz'}:gain=1", tmp_path / "o.npz", colour="grey"))


def _mixed(root: Path) -> Path:
    plain = Image.fromarray(rgb(1, 10)[0].transpose(1, 2, 0))
    return write_folder(
        root,
        {
            "a.png": encode(plain),
            "b.png": encode(plain.convert("L")),
            "c.png": encode(plain.convert("P")),
            "d.jpg": encode(plain.convert("CMYK"), "JPEG"),
            "e.png": encode(plain.resize((30, 20))),
            "f.png": encode(plain.resize((4, 4))),
            "notes.txt": b"not an image",
        },
    )


def test_conversions_are_counted(tmp_path: Path) -> None:
    root = _mixed(tmp_path / "in")
    result = prepare(_config(root, tmp_path / "o.zip", transform="center-crop", resolution="8"))
    assert result.count == 6
    assert result.shape == (3, 8, 8)
    assert result.converted == {"a grey image": 1, "a palette image": 1, "a CMYK image": 1, "enlarged": 1}
    with pytest.raises(DataError, match=r"b\.png"):
        prepare(_config(root, tmp_path / "s.zip", transform="center-crop", resolution="8", strict=True))


def test_mixed_sizes_without_a_transform_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"e\.png: 30 x 20 .*--resolution"):
        prepare(_config(_mixed(tmp_path / "in"), tmp_path / "o.zip"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("kind", ["sizes", "oblong", "floats"])
def test_images_that_no_network_takes_are_refused_with_the_command_that_mends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if kind == "sizes":
        source = str(write_folder(Path("my photos"), {"a.png": png(rgb(1, 16)[0]), "b.png": png(rgb(1, 9)[0])}))
    else:
        source = "some.npz"
        images = np.random.default_rng(0).integers(0, 256, (40, 1, 9, 14)).astype(np.uint8)
        np.savez(source, images=images if kind == "oblong" else (images / 127.5 - 1).astype(np.float32))
    with pytest.raises(DataError) as caught:
        load_images(source, holdout=0.0)
    command = str(caught.value).split("`")[1]
    words = shlex.split(command)
    assert words[:4] == ["ambient", "data", "prepare", source]
    assert all(f"`{command}`" in problem["problem"] for problem in check(source).problems)
    assert ambient(*words[1:]).exit_code == 0
    assert load_images(words[4], holdout=0.0).images.shape[2:] == (8, 8)


def test_bad_files_stop_the_work_or_are_counted_and_listed(tmp_path: Path) -> None:
    files = {f"{i:04d}.png": png(x) for i, x in enumerate(rgb(CHUNK + 20))}
    files["0005.png"], files[f"{CHUNK + 3:04d}.png"] = files["0005.png"][:60], b"not a png at all"
    files["labels.csv"] = ("file,label\n" + "".join(f"{n},{i}\n" for i, n in enumerate(sorted(files)))).encode()
    root = write_folder(tmp_path / "in", files)
    with pytest.raises(DataError, match=r"0005\.png"):
        prepare(_config(root, tmp_path / "o.zip"))
    result = prepare(_config(root, tmp_path / "o.zip", skip_bad=True))
    assert [name for name, _ in result.skipped] == ["0005.png", f"{CHUNK + 3:04d}.png"]
    assert result.count == CHUNK + 18
    labels = load_images(str(tmp_path / "o.zip")).labels
    assert labels is not None
    assert labels.tolist() == [i for i in range(CHUNK + 20) if i not in (5, CHUNK + 3)]


def test_colour_found_late_in_a_grey_set_is_an_error_not_a_loss(tmp_path: Path) -> None:
    grey = {f"{i:04d}.png": png(x) for i, x in enumerate(rgb(200, 4, channels=1))}
    root = write_folder(tmp_path / "in", {**grey, "0001.png": png(rgb(1, 4)[0])})
    with pytest.raises(UsageError, match=r"0001\.png.*--colour"):
        prepare(_config(root, tmp_path / "o.zip"))
    assert prepare(_config(root, tmp_path / "o.zip", colour="rgb")).shape == (3, 4, 4)


def test_the_same_command_again_says_done_and_another_one_is_refused(folder: Path, tmp_path: Path) -> None:
    for kind in ("zip", "npz"):
        dest = tmp_path / f"out.{kind}"
        first = prepare(_config(folder, dest))
        stamp = dest.stat().st_mtime_ns
        again = prepare(_config(folder, dest))
        assert (first.status, again.status, again.sha256) == ("written", "done", first.sha256)
        assert dest.stat().st_mtime_ns == stamp
        with pytest.raises(UsageError, match="overwrite"):
            prepare(_config(folder, dest, transform="resize", resolution="6"))
        assert dest.stat().st_mtime_ns == stamp
        assert prepare(_config(folder, dest, transform="resize", resolution="6"), overwrite=True).shape == (3, 6, 6)


class _Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("large")
    write_zip(root / "in.zip", edm_files(rgb(5 * CHUNK + 17, 4), list(range(5 * CHUNK + 17))))
    return root / "in.zip", prepare(_config(root / "in.zip", root / "whole.zip")).sha256


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stop=st.integers(1, 9),
    damage=st.sampled_from(["none", "pixels", "journal", "flip", "no pixels"]),
    cut=st.integers(1, 3000),
)
def test_interrupted_and_damaged_work_ends_with_the_same_bytes(
    large: tuple[Path, str], tmp_path_factory, stop: int, damage: str, cut: int
) -> None:
    source, expected = large
    dest = tmp_path_factory.mktemp("resume") / "out.zip"
    calls = 0

    def kill(stage: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise _Killed

    with pytest.raises(_Killed):
        prepare(_config(source, dest), workers=2, progress=kill)
    assert not dest.exists()
    partial = dest.with_name("out.zip.partial")
    if partial.exists():
        pixels, journal = partial / "pixels.bin", partial / "journal.jsonl"
        if damage in ("pixels", "journal"):
            path = pixels if damage == "pixels" else journal
            path.write_bytes(path.read_bytes()[:-cut])
        elif damage == "flip":
            data = bytearray(pixels.read_bytes())
            data[cut % len(data)] ^= 255
            pixels.write_bytes(data)
        elif damage == "no pixels":
            pixels.unlink()
    result = prepare(_config(source, dest))
    assert result.sha256 == expected
    assert not partial.exists()
    if damage == "none":
        assert result.resumed_from == min((stop - 1) * CHUNK, 5 * CHUNK + 17)
    else:
        assert result.resumed_from <= min((stop - 1) * CHUNK, 5 * CHUNK + 17)


@pytest.mark.parametrize(
    "change", [{"ids": [7, 7]}, {"dtype": "<u2"}, {"bytes": 10**30}, {"number": 0}, {"skipped": [["a.png", "x"]]}]
)
def test_a_line_of_the_journal_that_was_changed_is_not_believed(
    large: tuple[Path, str], tmp_path: Path, change: dict[str, Any]
) -> None:
    source, expected = large
    dest, calls = tmp_path / "out.zip", iter(range(100))

    def kill(stage: str, done: int, total: int) -> None:
        if next(calls) == 3:
            raise _Killed

    with pytest.raises(_Killed):
        prepare(_config(source, dest), progress=kill)
    journal = tmp_path / "out.zip.partial" / "journal.jsonl"
    lines = journal.read_text().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), **change})
    journal.write_text("\n".join(lines) + "\n")
    result = prepare(_config(source, dest))
    assert (result.sha256, result.resumed_from) == (expected, CHUNK)


@pytest.mark.multiproc
def test_kill_9_halfway_then_the_same_command_gives_the_same_file(large: tuple[Path, str], tmp_path: Path) -> None:
    source, expected = large
    dest, journal = tmp_path / "out.zip", tmp_path / "out.zip.partial" / "journal.jsonl"
    command = [sys.executable, "-m", "cli", "data", "prepare", str(source), str(dest), "--workers", "1", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "finished before it could be killed"
    assert not dest.exists()
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    result = json.loads(done.stdout)
    assert result["sha256"] == expected
    assert result["resumed_from"] >= 2 * CHUNK
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.zip"]


def test_an_archive_inside_its_own_source_folder_still_counts_as_done_and_resumes(folder: Path) -> None:
    def kill(stage: str, done: int, total: int) -> None:
        if stage == "write":
            raise _Killed

    with pytest.raises(_Killed):
        prepare(_config(folder, folder / "out.zip"), progress=kill)
    assert prepare(_config(folder, folder / "out.zip")).resumed_from == 30
    assert prepare(_config(folder, folder / "out.zip")).status == "done"


def test_a_full_disk_keeps_what_was_done_and_the_old_archive(
    large: tuple[Path, str], tmp_path: Path, monkeypatch
) -> None:
    import errno

    from ambient_train.data.prepare import archives

    source, expected = large
    dest = tmp_path / "out.zip"

    def full(pixels: np.ndarray) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archives, "encode_png", full)
        with pytest.raises(OSError, match="No space"):
            prepare(_config(source, dest))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.zip.partial"]
    result = prepare(_config(source, dest))
    assert (result.sha256, result.resumed_from) == (expected, 5 * CHUNK + 17)


def test_two_at_once_on_one_archive_are_refused(large: tuple[Path, str], tmp_path: Path) -> None:
    from ambient_theory.shared.files import exclusive_lock

    dest = tmp_path / "out.zip"
    with exclusive_lock(tmp_path / "out.zip.partial" / "lock") as mine:
        assert mine
        with pytest.raises(UsageError, match="another process"):
            prepare(_config(large[0], dest))
    assert prepare(_config(large[0], dest)).sha256 == large[1]


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "..\\evil.png", "C:evil.png"])
def test_names_that_leave_the_zip_are_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    source = write_zip(tmp_path / "in.zip", {"a.png": png(rgb(1)[0]), name: png(rgb(1)[0])})
    with pytest.raises(DataError, match="outside the archive"):
        prepare(_config(source, tmp_path / "deep" / "o.zip"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.zip"]


def test_zip_bombs_are_refused_by_their_ratio(tmp_path: Path) -> None:
    source = write_zip(tmp_path / "b.zip", {"a.png": b"\0" * (70 * 2**20)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"a\.png.*bomb"):
        load_images(str(source))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"dest": Path("x.tar")}, UsageError),
        ({"colour": "red"}, UsageError),
        ({"split": "x"}, UsageError),
        ({"max_images": 0}, UsageError),
        ({"filter": "cubic"}, UsageError),
        ({"resolution": "5"}, UsageError),
        ({"resolution": "8", "transform": "crop"}, UsageError),
        ({"transform": "resize"}, UsageError),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(options: dict, error: type) -> None:
    with pytest.raises(error):
        PrepareConfig(**{"source": "digits", "dest": Path("x.zip"), **options})


def test_a_destination_in_no_directory_is_an_error_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory"):
        prepare(_config("digits", tmp_path / "nowhere" / "o.zip"))


def test_complex_values_are_prepared_as_two_channels_and_have_no_colours(tmp_path: Path) -> None:
    normal = np.random.default_rng(0).normal(0, 0.3, (2, 8, 6, 6))
    np.savez(tmp_path / "in.npz", images=(normal[0] + 1j * normal[1]).astype(np.complex64), sigma=np.full(8, 0.2))
    source = tmp_path / "in.npz"
    prepare(_config(source, tmp_path / "out.npz"))
    loaded = load_images(str(tmp_path / "out.npz"), holdout=0.0)
    np.testing.assert_allclose(loaded.images, normal.transpose(1, 0, 2, 3), atol=1e-6)
    with pytest.raises(UsageError, match="have no colours"):
        prepare(_config(source, tmp_path / "grey.npz", colour="grey"))
    assert check(str(source)).mode == {"real and imaginary part": 8}


def test_work_left_beside_a_finished_archive_goes_with_the_next_start_but_not_that_of_another(
    folder: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "out.zip"
    written, made = prepare(_config(folder, dest)), finished_config(dest)
    assert made is not None
    work = tmp_path / "out.zip.partial"
    for whose, stays in ((json.dumps({"hash": made["hash"]}), False), ('{"hash": "another"}', True)):
        work.mkdir()
        (work / "journal.jsonl").write_text(whose + "\n")
        (work / "pixels.bin").write_bytes(b"half")
        again = prepare(_config(folder, dest))
        assert (again.status, again.sha256) == ("done", written.sha256)
        assert work.exists() == stays
        assert not stays or (work / "pixels.bin").read_bytes() == b"half"
