"""The campaign that kills commands sees what is lost: each kind of loss, made on purpose."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import commands
import numpy as np
import pytest

Action = Callable[[Path], object]


def sound(out: Path) -> None:
    out.mkdir(exist_ok=True)
    part = out / ".result.json.part"
    part.write_text(json.dumps({"value": 1, "wall_s": os.getpid()}))
    part.replace(out / "result.json")


def forgets_its_part(out: Path) -> None:
    sound(out)
    if not (out / "begun").exists():
        (out.parent / "beside").touch()
    (out / "begun").touch()


def goes_on_wrong(out: Path) -> None:
    again = out.exists()
    out.mkdir(exist_ok=True)
    (out / "result.json").write_text(json.dumps({"value": 2 if again else 1}))


def breaks(out: Path) -> None:
    if out.exists():
        raise RuntimeError("a traceback")
    sound(out)


def trial(action: Action, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, int], list[str]]:
    """One trial of a command that does `action`, killed at calls for files alone."""

    def app(arguments: Sequence[str]) -> None:
        action(Path(arguments[-1]))

    monkeypatch.setattr(commands, "app", app)
    command = commands.Command("made", lambda out: ("--outdir", out))
    out = commands._fresh(folder / "known", command)
    assert commands.start(command.arguments(out))[0] == 0
    known = commands.Reference(commands.content(out), seconds=0.2, calls=4)
    counts, notes = {}, []
    for seed in range(6):
        found, said = commands.trial(command, known, folder / f"trial-{seed}", np.random.default_rng(seed))
        counts = {k: counts.get(k, 0) + found[k] for k in (*counts, *found)}
        notes += said
    return counts, notes


def test_a_sound_command_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, notes = trial(sound, tmp_path, monkeypatch)
    assert counts["kills"] > 0
    assert "lost" not in counts
    assert "unexpected" not in counts or all("File too large" in note for note in notes)


@pytest.mark.parametrize(
    ("action", "kind", "words"),
    [
        (forgets_its_part, "lost", "beside"),
        (goes_on_wrong, "lost", "result.json"),
        (breaks, "unexpected", "a traceback"),
    ],
)
def test_each_kind_of_loss_is_counted_and_named(
    action: Action, kind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, notes = trial(action, tmp_path, monkeypatch)
    assert counts[kind] > 0
    assert any(words in note for note in notes)


def test_a_digest_leaves_out_the_clock_and_sees_everything_else(tmp_path: Path) -> None:
    for name, value in (("a", {"x": 1, "wall_s": 1}), ("b", {"x": 1, "wall_s": 2}), ("c", {"x": 2, "wall_s": 1})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "r.json").write_text(json.dumps(value))
    a, b, c = (commands.content(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c
