"""The commands `data prepare` and `data check`: results on stdout, talk on stderr, exit codes, no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_files import encode, png, rgb, write_folder
from PIL import Image
from typer.testing import CliRunner

from cli import app

RUN = CliRunner()


def test_prepare_prints_the_result_as_json_that_check_confirms(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["data", "prepare", "digits", str(tmp_path / "d.zip"), "--json", "--resolution", "4"])
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    assert (result["count"], result["shape"], result["labelled"]) == (1797, [1, 4, 4], True)
    checked = RUN.invoke(app, ["data", "check", str(tmp_path / "d.zip"), "--json"])
    assert checked.exit_code == 0
    report = json.loads(checked.stdout)
    assert (report["usable"], report["resolution"], report["classes"]) == (True, {"4x4": 1797}, 10)


def test_text_output_says_what_was_written_and_where(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["data", "prepare", "digits", str(tmp_path / "d.npz"), "--max-images", "40"])
    assert done.exit_code == 0
    assert "d.npz written: 40 images 1 x 8 x 8, labelled" in done.stdout.replace("\n", " ")
    assert "is there already" in RUN.invoke(
        app, ["data", "prepare", "digits", str(tmp_path / "d.npz"), "--max-images", "40"]
    ).stdout.replace("\n", " ")
    shown = RUN.invoke(app, ["data", "check", str(tmp_path / "d.npz")])
    assert "40 of 40 readable" in shown.stdout
    assert "usable" in shown.stdout


def test_check_leaves_with_3_and_names_the_file(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", {"a.png": png(rgb(1)[0]), "b.png": encode(Image.new("RGBA", (8, 8)))})
    done = RUN.invoke(app, ["data", "check", str(root), "--json"])
    assert done.exit_code == 3
    assert json.loads(done.stdout)["problems"][0]["file"] == "b.png"
    assert "b.png" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["check", "nowhere"], 3, "built-in"),
        (["check", "nowhere", "--json"], 3, "built-in"),
        (["check", "photos32:stride=99"], 2, "stride"),
        (["prepare", "digits", "OUT/d.tar"], 2, ".zip"),
        (["prepare", "digits", "OUT/d.zip", "--resolution", "5"], 2, "even"),
        (["prepare", "digits", "OUT/d.zip", "--transform", "resize"], 2, "go together"),
        (["prepare", "digits", "OUT/d.zip", "--transform", "squeeze", "--resolution", "4"], 2, "center-crop-wide"),
        (["prepare", "digits", "OUT/d.zip", "--filter", "bicubic", "--resolution", "4"], 2, "lanczos"),
        (["prepare", "digits", "OUT/d.zip", "--colour", "blue"], 2, "grey"),
        (["prepare", "digits", "OUT/none/d.zip"], 3, "no such directory"),
        (["prepare", "hf:", "OUT/d.zip"], 2, "hf:NAME"),
    ],
)
def test_bad_input_is_one_sentence_with_its_exit_code(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    done = RUN.invoke(app, ["data", *(a.replace("OUT", str(tmp_path)) for a in arguments), "--quiet"])
    assert done.exit_code == code
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    done = RUN.invoke(app, ["data", "prepare", "digits", str(tmp_path / "locked" / "d.zip"), "--quiet"])
    assert done.exit_code == 3
    assert "ermission" in done.stderr


def test_progress_and_talk_go_to_stderr_and_quiet_silences_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", images=rgb(30, channels=1))
    command = ["data", "prepare", str(tmp_path / "g.npz"), str(tmp_path / "o.zip"), "--colour", "rgb", "--json"]
    loud = RUN.invoke(app, command)
    assert "30 converted: a grey image" in loud.stderr
    assert json.loads(loud.stdout)["converted"] == {"a grey image": 30}
    assert RUN.invoke(app, [*command, "--overwrite", "--quiet"]).stderr == ""


def test_mounting_the_commands_imports_nothing_heavy() -> None:
    code = (
        "import sys, cli; print([m for m in ('torch', 'numpy', 'PIL', 'sklearn', 'rich.progress') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_of_check_names_every_file_column_and_array_that_states_a_level() -> None:
    from ambient_train.data.formats import columns

    shown = " ".join(RUN.invoke(app, ["data", "check", "--help"], terminal_width=200).output.split())
    for word in (*columns.SIGMA_COLUMNS, *columns.LABEL_COLUMNS, *columns.TABLE_STEMS, *columns.TABLE_SUFFIXES):
        assert word in shown
    for word in ("sigma.npy", "units of [-1, 1]", "0 = clean", "Example: ambient data check"):
        assert word in shown


def test_class_map_and_notes_are_printed_and_prepare_says_them_too(tmp_path: Path) -> None:
    files = {f"{c}/1.png": png(x) for c, x in zip(("10", "9", "ant"), rgb(3), strict=True)}
    root = write_folder(tmp_path / "d", {**files, "levels.csv": b"file,kind\n", "a.dcm": b"x"})
    checked = RUN.invoke(app, ["data", "check", str(root)])
    shown = " ".join(checked.stdout.split())
    assert "3 classes (0 = 9: 1, 1 = 10: 1, 2 = ant: 1)" in shown
    assert "note: not read: levels.csv" in shown
    assert "note: 1 file is not read: 1 .dcm (for pydicom)" in shown
    assert json.loads(RUN.invoke(app, ["data", "check", str(root), "--json"]).stdout)["class_names"] == [
        "9",
        "10",
        "ant",
    ]
    prepared = RUN.invoke(app, ["data", "prepare", str(root), str(tmp_path / "o.npz"), "--json"])
    assert "note: not read: levels.csv" in prepared.stderr
    assert "not read: levels.csv" in json.loads(prepared.stdout)["notes"][0]
    quiet = RUN.invoke(app, ["data", "prepare", str(root), str(tmp_path / "p.zip"), "--quiet"])
    assert quiet.stderr == ""
    from ambient_train.data.load import load_images

    for archive in ("o.npz", "p.zip"):
        assert load_images(str(tmp_path / archive), holdout=0.0).classes == ("9", "10", "ant")


def test_a_table_edited_without_a_change_of_size_is_another_archive(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", {"a.png": png(rgb(1)[0]), "dataset.csv": b"file,sigma\na.png,0.2\n"})
    command = ["data", "prepare", str(root), str(tmp_path / "o.npz"), "--quiet"]
    assert RUN.invoke(app, command).exit_code == 0
    assert "is there already" in RUN.invoke(app, command).stdout.replace("\n", " ")  # control
    (root / "dataset.csv").write_bytes(b"file,sigma\na.png,0.3\n")
    assert RUN.invoke(app, command).exit_code == 2
