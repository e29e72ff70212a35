"""The held-out best checkpoint: chosen at points that no duration changes, kept, scored, exact under resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch

from ambient_theory.shared.errors import StoppedError, UsageError
from ambient_theory.shared.records import HELDOUT_BEST, NATS, Record
from ambient_train.data.load import load_images
from ambient_train.diffusion.generate import denoiser
from ambient_train.evaluation.denoising import denoising_error, halves, quadrature
from ambient_train.interchange.load import load_trained
from ambient_train.runs import heldout
from ambient_train.runs.heldout import HeldOut, candidate_points
from ambient_train.runs.run import execute
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.run_options import Schedule


def by_rule(scores: dict[int, list[Record]], at: int, rule: str) -> dict[tuple[Any, ...], float]:
    return {(r.metric, r.reference, r.level): r.value for r in scores[at] if r.checkpoint == rule}


def chosen_at(scores: dict[int, list[Record]], at: int) -> set[int]:
    return {r.extra["nimg"] for r in scores[at] if r.checkpoint == HELDOUT_BEST}


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates from 32 images on, so that a tiny run has several: 32, 48, 64, 96, 128, 192, 256, 320."""
    monkeypatch.setattr(heldout, "FIRST_POINT", 32)


@pytest.fixture
def best_at(monkeypatch: pytest.MonkeyPatch, early: None) -> Any:
    """Make a candidate the best one, whatever was measured: the criterion is the distance to its image count."""

    def choose(nimg: int) -> None:
        from ambient_train.runs.session import Session

        monkeypatch.setattr(Session, "_on_leader", lambda self, measure: abs(self.state.nimg - nimg) + 1.0)

    return choose


def test_candidates_are_whole_steps_and_do_not_depend_on_the_duration() -> None:
    points = candidate_points(128, 200_000)
    assert points[:4] == (4096, 5888, 8192, 11648)
    assert all(p % 128 == 0 for p in points)
    for upto in (1_000, 4_096, 50_000, 131_072):
        assert candidate_points(128, upto) == tuple(p for p in points if p <= upto)
    assert candidate_points(16, 4_000) == ()


def test_the_best_candidate_is_kept_beside_the_newest_and_scored_as_if_the_run_had_ended_there(
    tmp_path: Path, best_at: Any
) -> None:
    best_at(64)
    scores = tiny_run.run(tmp_path / "run")
    assert chosen_at(scores, 320) == {64}
    kept = {int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()}
    assert {64, 320} <= kept
    short = tiny_run.run(tmp_path / "short", duration=64)
    best, ended = by_rule(scores, 320, HELDOUT_BEST), by_rule(short, 64, "last")
    for key in ended:
        if key[0] == "fd":
            assert best[key] == ended[key]
    assert best != by_rule(scores, 320, "last")


def test_scoring_an_earlier_checkpoint_on_the_way_leaves_the_training_as_it_was(tmp_path: Path, best_at: Any) -> None:
    """At 160 images the best one, of 96, is restored and scored; what follows is as if only the end were scored."""
    best_at(96)
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    tiny_run.run(whole)
    job = replace(tiny_run.job(), schedule=Schedule(duration_nimg=tiny_run.DURATION, score_at=(160,)))
    scores = execute(job, halted, tiny_run.OPTIONS)
    assert chosen_at(scores, 160) == {96}
    left, right = tiny_run.final(halted), tiny_run.final(whole)
    assert all(torch.equal(left[name], right[name]) for name in right)


def test_where_the_last_one_is_the_best_both_rules_give_the_same_scores(tmp_path: Path, best_at: Any) -> None:
    best_at(320)
    scores = tiny_run.run(tmp_path / "run")
    assert chosen_at(scores, 320) == {320}
    best, last = by_rule(scores, 320, HELDOUT_BEST), by_rule(scores, 320, "last")
    assert {k: v for k, v in best.items() if k[0] == "fd"} == {k: v for k, v in last.items() if k[0] == "fd"}


def test_a_run_that_is_stopped_and_continued_chooses_and_scores_the_same(tmp_path: Path, early: None) -> None:
    whole = tiny_run.run(tmp_path / "whole")

    def leave(progress: Any) -> None:
        if progress.phase == "training" and progress.done >= 208:
            raise StoppedError("enough")

    with pytest.raises(StoppedError):
        tiny_run.run(tmp_path / "cut", listener=leave)
    again = tiny_run.run(tmp_path / "cut")
    tiny_run.assert_same_run(tmp_path / "cut", tmp_path / "whole")
    assert chosen_at(again, 320) == chosen_at(whole, 320)
    longer, straight = tiny_run.run(tmp_path / "cut", duration=480), tiny_run.run(tmp_path / "straight", duration=480)
    assert by_rule(longer, 480, HELDOUT_BEST) == by_rule(straight, 480, HELDOUT_BEST)


def test_a_best_checkpoint_that_does_not_hold_is_said_and_left_out(tmp_path: Path, best_at: Any) -> None:
    best_at(64)
    tiny_run.run(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    damaged = tmp_path / "run" / "checkpoints" / f"{64:012d}" / "ema.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    said: list[str] = []
    scores = tiny_run.run(tmp_path / "run", talk=said.append)
    assert by_rule(scores, 320, HELDOUT_BEST) == {}
    assert by_rule(scores, 320, "last")
    assert any("held-out best checkpoint is not scored" in line for line in said)


def test_the_denoising_error_of_the_records_is_that_of_the_averaged_weights(tmp_path: Path) -> None:
    scores = tiny_run.run(tmp_path / "run")[320]
    network = load_trained(tmp_path / "run").network
    judge = HeldOut(tiny_run.config(), tiny_run.EVALUATION)
    images = judge.clean
    assert images is not None
    assert len(images) == tiny_run.EVALUATION.denoise
    direct = denoising_error(denoiser(network, "fp32"), images.images, images.ids, judge.levels, seed=1_000_000)
    stored = [r for r in scores if r.metric == "denoise" and r.checkpoint == "last"]
    assert [r.level for r in stored] == list(judge.levels)
    np.testing.assert_allclose([r.value for r in stored], direct.mean, rtol=1e-5)
    np.testing.assert_allclose([r.stderr for r in stored], direct.stderr, rtol=1e-4)
    total = next(r for r in scores if r.metric == NATS and r.checkpoint == "last")
    np.testing.assert_allclose(total.value, 64 * np.dot(direct.mean, quadrature(judge.levels)), rtol=1e-5)
    # the half that chose no checkpoint is what the chosen one is scored on; taken from the whole it is the same
    whole, alone = (judge.error(network, half=half, device=torch.device("cpu")) for half in (False, True))
    taken = judge.half_of(whole)
    assert taken is not None
    assert alone is not None
    assert whole is not None
    assert taken.to_dict() == alone.to_dict() != whole.to_dict()
    half = next(r for r in scores if r.metric == "denoise" and r.checkpoint == HELDOUT_BEST)
    assert half.n_eval == tiny_run.EVALUATION.denoise - tiny_run.EVALUATION.denoise // 2
    first, second = halves(images.ids, 1_000_000)
    assert not {*first.tolist()} & {*second.tolist()}


def test_the_noise_is_the_same_for_every_model_of_a_data_set(tmp_path: Path) -> None:
    config, evaluation = tiny_run.config(), tiny_run.EVALUATION
    seen: list[torch.Tensor] = []

    class Spy(torch.nn.Module):
        label_dim = 0

        def forward(self, x: torch.Tensor, sigma: torch.Tensor, class_labels: object = None) -> torch.Tensor:
            seen.append(x.clone())
            return x

    for _ in range(2):
        HeldOut(config, evaluation).error(Spy(), half=False, device=torch.device("cpu"))  # type: ignore[arg-type]
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_nothing_is_chosen_where_nothing_is_held_out_or_nobody_asks() -> None:
    config, evaluation = tiny_run.config(), tiny_run.EVALUATION
    assert HeldOut(config, evaluation).criterion == "denoise"
    assert HeldOut(tiny_run.config(holdout=0.0), evaluation).criterion == ""
    assert HeldOut(config, EvalConfig(best=False)).criterion == ""
    assert HeldOut(config, EvalConfig(denoise=0)).criterion == ""


def test_data_without_clean_images_choose_by_the_proximal_score(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).normal(0, 0.6, (80, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "scans.npz", images=noisy, sigma=np.full(80, 0.3, np.float32))
    source = load_images(str(tmp_path / "scans.npz"), split="heldout")
    config = tiny_run.config(data=str(tmp_path / "scans.npz"), max_images=None)
    judge = HeldOut(config, tiny_run.EVALUATION)
    assert judge.clean is None
    assert judge.criterion == "proximal"
    assert judge.noisy is not None
    assert len(judge.noisy) == len(source)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Image counts of the states from which images are generated."""
    from ambient_train.runs.session import Session

    seen: list[int] = []
    original = Session._generate
    monkeypatch.setattr(
        Session, "_generate", lambda self, saved: (seen.append(self.state.nimg), original(self, saved))[1]
    )
    return seen


def scored_at(path: Path, points: tuple[int, ...], **evaluation: Any) -> dict[int, list[Record]]:
    made = replace(tiny_run.job(), evaluation=replace(tiny_run.EVALUATION, **evaluation))
    return execute(replace(made, schedule=Schedule(duration_nimg=320, score_at=points)), path, tiny_run.OPTIONS)


def test_a_best_checkpoint_that_was_scored_before_is_not_scored_again(
    tmp_path: Path, best_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    best_at(64)
    seen = counted(monkeypatch)
    scores = scored_at(tmp_path / "run", (64, 128))
    assert seen == [64, 128, 320]  # 64 once, as the last and the best at 64
    assert [chosen_at(scores, n) for n in (64, 128, 320)] == [{64}, {64}, {64}]
    monkeypatch.setattr("ambient_train.runs.session.Session._taken_over", lambda *_: [])
    anew = scored_at(tmp_path / "anew", (64, 128))
    assert seen[3:] == [64, 128, 64, 320, 64]
    for n in (64, 128, 320):
        assert by_rule(scores, n, HELDOUT_BEST) == by_rule(anew, n, HELDOUT_BEST)
        assert {r.duration_nimg for r in scores[n]} == {n}


def test_images_are_generated_at_the_end_alone_where_that_is_asked(
    tmp_path: Path, best_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    best_at(64)
    every = scored_at(tmp_path / "every", (64, 128))
    seen = counted(monkeypatch)
    scores = scored_at(tmp_path / "end", (64, 128), generate_at="end")
    assert seen == [320, 64]  # the best one's distances were not taken before
    for n in (64, 128, 320):
        for rule in ("last", HELDOUT_BEST):
            expected = by_rule(every, n, rule)
            wanted = {k: v for k, v in expected.items() if n == 320 or k[2] is not None or k[0] == NATS}
            assert by_rule(scores, n, rule) == wanted
    with pytest.raises(UsageError, match="give denoise > 0"):
        replace(tiny_run.EVALUATION, generate_at="end", denoise=0)
