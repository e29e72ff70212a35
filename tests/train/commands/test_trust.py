"""What a stranger's file or a bad moment may do to a command: a sentence with the right code, and nothing else."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from invoke import TINY, ambient

from ambient_train.runs.directory import RunDirectory

GRID = 'name = "g"\n[base]\ndata = "digits"\n'


def test_what_a_kill_left_beside_the_manifest_does_not_block_the_same_command(tmp_path: Path) -> None:
    file, run = tmp_path / "tiny.toml", tmp_path / "run"
    file.write_text('data = "digits"\nmax_images = 96\n' + TINY)
    run.mkdir()
    (run / ".manifest.json.0badcafe.tmp").write_text("{")
    done = ambient("train", "--config", file, "--outdir", run, "--device", "cpu", "--quiet")
    assert done.exit_code == 0, done.stderr
    assert not list(run.glob(".*.tmp"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    refused = ambient("train", "--config", file, "--outdir", tmp_path / "other", "--device", "cpu", "--quiet")
    assert (refused.exit_code, "holds no run" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = " + "9" * 5000, "more than 20 digits"),
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("score_at = 1.5", "score_at must be a list"),
        ('data = ["a"]', "data must be of type str"),
        ("lr = 1" + "0" * 400, "more than 20 digits"),
    ],
    ids=["long", "deep", "number", "list", "huge"],
)
def test_a_config_of_any_kind_is_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "c.toml").write_text(text + "\n")
    said = ambient("train", "--config", tmp_path / "c.toml", "--dry-run", "--outdir", tmp_path / "run")
    assert said.exit_code in (2, 3)
    assert words in said.stderr
    assert len(said.stderr) < 500


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GRID + '[[cell]]\nname = "c"\ncorruption = 0.5\nsigma = ["x"]', "sigma must be a number"),
        (GRID + '[[cell]]\nname = "c"\ncorruption = 0.5\nsigma = [[1]]', "sigma must be a number"),
        (GRID + '[[cell]]\nname = "c"\nseeds = 1.5', "seeds must be a list"),
        ("cell = [1]", "every [[cell]] must be a table"),
        ('base = 3\n[[cell]]\nname = "c"', "[base] must be a table"),
        (GRID + '[[cell]]\nname = "c\\u001b[2J"', "printable"),
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    ],
    ids=["text", "nested", "seeds", "cell", "base", "escape", "deep"],
)
def test_a_grid_of_any_kind_is_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "g.toml").write_text(text + "\n")
    said = ambient("sweep", "status", tmp_path / "g.toml", "--runs", tmp_path)
    assert said.exit_code in (2, 3)
    assert words in said.stderr


@pytest.mark.parametrize(
    "line", ["9" * 5000, "[" * 100_000, '{"schema": 1e400}', '{"schema": "ambient.result/2"}', "\x00"]
)
def test_a_record_of_any_kind_is_a_sentence_with_file_and_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "r.jsonl").write_text("\n" + line + "\n")
    said = ambient("price", "--sigma", 0.2, tmp_path / "r.jsonl")
    assert said.exit_code == 3
    assert "r.jsonl:2: " in said.stderr
    assert len(said.stderr) < 1000


def test_so_many_seeds_are_refused_and_not_counted_out(tmp_path: Path) -> None:
    for seeds in ("0-99999999999", "9" * 5000):
        said = ambient("generate", tmp_path, "--seeds", seeds, "--outdir", tmp_path / "images")
        assert said.exit_code == 2
        assert "seed" in said.stderr
    assert not (tmp_path / "images").exists()


def test_names_reach_terminal_and_table_as_lines_and_never_as_formulas(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(
        'name = "g"\n[base]\ndata = "digits"\nmax_images = 96\n' + TINY + '[[cell]]\nname = "=1+1"\n'
    )
    done = ambient("sweep", "run", tmp_path / "g.toml", "--runs", tmp_path / "runs", "--outdir", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    with (tmp_path / "out" / "table.csv").open(newline="") as file:
        assert {row["cell"] for row in csv.DictReader(file)} == {"'=1+1"}
    said = ambient("price", "--sigma", 0.2, tmp_path / "a\x1b]0;title\x07b.jsonl")
    assert said.exit_code == 3
    assert "a\\x1b]0;title\\x07b.jsonl" in said.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR2, 75), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_first_moments_leaves_with_its_code_and_without_a_traceback(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """The program is held in the middle of its imports by a module that takes the place of typer."""
    (tmp_path / "typer.py").write_text("import os, time\nopen(os.environ['HERE'], 'w').close()\ntime.sleep(60)\n")
    here = tmp_path / "importing"
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}", "HERE": str(here)}
    started = subprocess.Popen(
        [sys.executable, root / "cli.py", "data", "check", "digits"], env=environment, stderr=subprocess.PIPE, text=True
    )
    while not here.exists():
        assert started.poll() is None, started.stderr.read()  # type: ignore[union-attr]
        time.sleep(0.01)
    started.send_signal(number)
    _, said = started.communicate(timeout=60)
    assert (started.returncode, said) == (code, f"ambient: stopped by {number.name} before anything was begun\n")


def test_lost_metrics_are_said_and_a_line_cut_short_is_not(tmp_path: Path) -> None:
    file, run = tmp_path / "tiny.toml", tmp_path / "run"
    file.write_text('data = "digits"\nmax_images = 96\n' + TINY)
    arguments = ("train", "--config", file, "--outdir", run, "--device", "cpu", "--tick", 16)
    assert ambient(*arguments).exit_code == 0
    directory = RunDirectory(run)
    lines = directory.metrics.read_text().splitlines()
    assert len(lines) > 3
    for damaged, words in (
        ([lines[0], "not JSON", *lines[2:]], "had 1 lines that cannot be read"),
        (None, "metrics.jsonl is gone"),
        ([*lines[:-1], lines[-1][:20]], ""),
    ):
        if damaged is None:
            directory.metrics.unlink()
        else:
            directory.metrics.write_text("\n".join(damaged) + ("\n" if words else ""))
        (run / "result.json").unlink()
        again = ambient(*arguments, "--duration", 96)
        assert again.exit_code == 0, again.stderr
        assert words in again.stderr
        assert words or "metrics.jsonl" not in again.stderr


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npz")
    said = ambient("data", "check", tmp_path / "x.npz")
    assert (said.exit_code, "neither a file nor a directory" in said.stderr) == (3, True)
