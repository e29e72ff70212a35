"""`ambient fit-gmm`: what it says and writes is the public estimator's, from every kind of file."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from two_atoms import LAW, drawn
from typer.testing import CliRunner

from ambient_theory import HeteroscedasticMixture, fit_gmm
from ambient_theory.mixtures import noise_scale
from ambient_theory.mixtures.laws import AtomicLaw
from ambient_theory.own_data import fit as fitting
from ambient_theory.own_data.fit import Fit, fit_samples
from ambient_theory.own_data.options import FitConfig
from ambient_theory.own_data.report import sentences, summary
from ambient_theory.own_data.samples import samples_of_arrays, samples_of_file
from ambient_theory.shared.errors import DataError, UsageError
from cli import app

N = 150
FAST = ("--boot", "19", "--no-goodness", "--no-noise-scale")
QUICK: dict[str, Any] = {"boot": 19, "goodness": False, "noise_scale": False, "intervals": "none"}


def asked(*words: Any) -> Any:
    return CliRunner().invoke(app, ["fit-gmm", *map(str, words)])


def fitted(x: Any, s: Any, **settings: Any) -> Fit:
    config = FitConfig(**{"noise": "as given", **QUICK, **settings})
    return fit_samples(samples_of_arrays(x, s, config), config)


def listened(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple[HeteroscedasticMixture, Any, Any]]:
    """What the fits ask of a function of the estimator's, and what it answered: (model, the rest, answer), in turn."""
    asked: list[Any] = []
    answer = getattr(fitting, name)

    def heard(model: HeteroscedasticMixture, *rest: Any, **options: Any) -> Any:
        asked.append((model, (rest, options), answer(model, *rest, **options)))
        return asked[-1][2]

    monkeypatch.setattr(fitting, name, heard)
    return asked


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """N samples under two noise levels beside a column of words; the last column repeats the noise as variances."""
    x, s = drawn(N)
    path = tmp_path / "stars.csv"
    values = np.column_stack([x, s, s**2]).tolist()
    path.write_text(
        "name,x,sigma,variance\n" + "".join(f"star {i},{a!r},{b!r},{c!r}\n" for i, (a, b, c) in enumerate(values))
    )
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_law_intervals_and_posterior_means_are_those_of_the_estimator(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (table, "--column", "x", "--noise", "sigma", "--k", 2, "--outdir", out, *FAST, "--json")
    result = asked(*words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    x, s = drawn(N)
    model = HeteroscedasticMixture(2, random_state=0).fit(x, noise_std=s)
    assert found["atoms"] == model.means_.tolist()
    assert found["weights"] == model.weights_.tolist()
    assert found["bic"] == pytest.approx(model.bic(x, noise_std=s), rel=1e-12)
    u = model.intervals(x, noise_std=s)
    assert found["intervals"]["means_low"] == u.means_low.tolist()
    assert found["intervals"]["kind"] == "likelihood"
    posterior = rows_of(out / "posterior.csv")
    assert [int(r["row"]) for r in posterior] == list(range(2, N + 2))
    for name, values in (
        ("x", x),
        ("mean_x", model.predict_mean(x, noise_std=s)),
        ("std_x", model.predict_std(x, noise_std=s)),
    ):
        np.testing.assert_allclose([float(r[name]) for r in posterior], values[:, 0], rtol=1e-6, atol=1e-9)
    assert [int(r["atom"]) - 1 for r in posterior] == model.predict(x, noise_std=s).tolist()
    atoms = rows_of(out / "atoms.csv")
    assert [(r["atom"], r["what"]) for r in atoms] == [("1", "weight"), ("1", "x"), ("2", "weight"), ("2", "x")]
    assert json.loads((out / "fit.json").read_text()) == found
    assert (out / "fit.svg").read_text().startswith("<?xml")
    assert (out / "fit.png").read_bytes().startswith(b"\x89PNG")

    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert asked(*words).exit_code == 0  # the same command again writes the same, and another one is refused
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    other = asked(*words, "--seed", 1)
    assert other.exit_code == 2
    assert "a fit with another seed" in other.stderr
    table.write_text(table.read_text() + "one more,0.5,1,1\n")
    assert "another samples" in asked(*words).stderr


def test_noise_may_be_deviations_or_variances_or_a_file_of_its_own_or_a_number(table: Path, tmp_path: Path) -> None:
    x, s = drawn(N)
    np.save(tmp_path / "noise.npy", s)

    def read(**asked: Any) -> Any:
        return samples_of_file(table, FitConfig(columns=("x",), **asked))

    assert read(noise="sigma").x.tolist() == x.tolist()
    assert read(noise="sigma").noise_std.tolist() == s.tolist()
    assert read(noise=str(tmp_path / "noise.npy")).noise_std.tolist() == s.tolist()
    np.testing.assert_allclose(read(noise="variance", noise_is="variance").noise_std, s, rtol=1e-15)
    assert read(noise="1.5").noise_std.tolist() == [1.5] * N
    np.savetxt(tmp_path / "bare.txt", x)
    assert samples_of_file(tmp_path / "bare.txt", FitConfig(noise="1")).noise_std.tolist() == [1.0] * N
    assert read(noise="2.25", noise_is="variance").noise_std.tolist() == [1.5] * N


def test_samples_in_space_come_from_columns_or_from_an_array(tmp_path: Path) -> None:
    x, s = drawn(9, law=AtomicLaw(np.outer([-3, 3], np.eye(3)[0])))
    np.savez(tmp_path / "a.npz", X=x, s=s)
    np.save(tmp_path / "a.npy", np.column_stack([s, x]))
    rows = np.column_stack([x, s]).tolist()
    (tmp_path / "a.tsv").write_text("u\tv\tw\ts\n" + "".join("\t".join(map(repr, row)) + "\n" for row in rows))
    of_array = samples_of_file(tmp_path / "a.npz", FitConfig(noise="s"))
    unnamed = samples_of_file(tmp_path / "a.npy", FitConfig(noise="c1"))
    of_columns = samples_of_file(tmp_path / "a.tsv", FitConfig(noise="s", columns=("u", "v", "w")))
    assert of_array.x.tolist() == unnamed.x.tolist() == of_columns.x.tolist() == x.tolist()
    assert of_array.names == ("X[0]", "X[1]", "X[2]")
    assert unnamed.names == ("x1", "x2", "x3")
    assert of_array.digest() == unnamed.digest() == of_columns.digest()
    assert of_array.with_noise(2.0, known=True).digest() != of_array.digest()


def test_bic_chooses_k_and_the_ratio_test_is_that_of_the_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = listened(monkeypatch, "likelihood_ratio_test")
    x, s = drawn(N)
    by_bic = fitted(x, s, max_k=3)
    assert by_bic.model.n_components == 2
    assert [c.k for c in by_bic.candidates] == [1, 2, 3]
    assert min(by_bic.candidates, key=lambda c: c.bic).k == 2
    by_ratio = fitted(x, s, max_k=1, ratio_test=True)
    [(model, (samples, options), test)] = tests
    assert (model.n_components, model.random_state, options) == (1, 0, {"n_boot": 19, "random_state": 0})
    assert [np.array_equal(*pair) for pair in zip(samples, (x, s), strict=True)] == [True, True]
    assert by_ratio.ratios == {1: test}
    assert test.p == 1 / 20
    assert any("rejected against 2" in note for note in by_ratio.notes)


def test_rows_with_missing_values_end_it_or_are_left_out_by_name(table: Path, tmp_path: Path) -> None:
    lines = table.read_text().splitlines()
    lines[3], lines[7] = "star 2,,0.5,0.25", "star 6,1.0,NA,4"
    table.write_text("\n".join(lines) + "\n")
    refused = asked(table, "--column", "x", "--noise", "sigma", "--outdir", tmp_path / "out")
    assert refused.exit_code == 3
    assert "2 rows (4, 8; the header is row 1)" in refused.stderr
    assert not (tmp_path / "out").exists()
    kept = samples_of_file(table, FitConfig(columns=("x",), noise="sigma", skip_missing=True))
    assert "2 rows (4, 8; the header is row 1)" in kept.notes[0]
    assert kept.rows.tolist() == [row for row in range(2, N + 2) if row not in (4, 8)]
    assert kept.x[:, 0].tolist() == np.delete(drawn(N)[0][:, 0], [2, 6]).tolist()


def test_wrong_noise_is_found_and_said_and_the_right_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    goodness, scales = listened(monkeypatch, "goodness_of_fit"), listened(monkeypatch, "noise_scale")
    x, s = drawn(N)
    checks = {"k": 2, "goodness": True, "noise_scale": True}
    right, wrong = fitted(x, s, **checks), fitted(x, 1.5 * s, **checks)
    rescaled = fitted(x, 1.5 * s, k=2, noise_scale=None, rescale_noise=True)
    assert not any("rejected" in note or "do not fit" in note for note in right.notes)
    assert sum("rejected" in note or "do not fit" in note for note in wrong.notes) == 2
    model, (samples, options), answer = goodness[0]
    assert (model, options, answer) == (right.model, {"n_boot": 19, "random_state": 0}, right.goodness)
    assert [np.array_equal(*pair) for pair in zip(samples, (x, s), strict=True)] == [True, True]
    assert wrong.scale is not None
    _, ((seen, noise), _), answer = scales[1]
    assert answer is wrong.scale
    assert np.array_equal(seen, x)
    assert np.array_equal(noise, 1.5 * s)
    np.testing.assert_allclose(rescaled.samples.noise_std, wrong.scale.scale * 1.5 * s)
    assert rescaled.rescaled


def test_noise_that_nobody_knows_is_estimated_and_said_to_be() -> None:
    x, _ = drawn(N, levels=(0.7,))
    found = fitted(x, None, noise=None, unknown_noise=True, noise_scale=None, intervals="auto", max_k=2)
    assert found.model.n_components == 2
    assert found.scale is not None
    assert found.scale.low < 0.7 < found.scale.high
    assert set(found.samples.noise_std) == {found.scale.scale}
    assert found.intervals is found.scale.uncertainty
    fisher = fitted(x[:40], None, noise=None, unknown_noise=True, noise_scale=None, intervals="fisher", k=1)
    assert any("take the estimated noise as known" in note for note in fisher.notes)
    assert not any("as known" in note for note in found.notes)
    assert min(found.candidates, key=lambda c: c.bic).k == 2
    few = fitted([0.0, 1.0, 5.0], None, noise=None, unknown_noise=True, noise_scale=None)
    assert [c.k for c in few.candidates] == [1, 2]


def test_noise_that_is_estimated_is_profiled_once_for_each_number_of_atoms(monkeypatch: pytest.MonkeyPatch) -> None:
    profiled: list[int] = []
    answer = noise_scale._Profile.maximum

    def counted(self: Any) -> float:
        profiled.append(self.k)
        return answer(self)

    monkeypatch.setattr(noise_scale._Profile, "maximum", counted)
    x, _ = drawn(40, levels=(0.7,))
    found = fitted(x, None, noise=None, unknown_noise=True, noise_scale=None, intervals="auto", max_k=2)
    assert profiled == [1, 2]
    again = noise_scale.noise_scale(HeteroscedasticMixture(2, random_state=0), x, intervals=True, random_state=0)
    assert found.intervals is not None
    assert again.uncertainty is not None
    assert found.intervals.to_dict() == again.uncertainty.to_dict()


def test_equal_samples_are_one_atom_and_are_fitted_like_others() -> None:
    found = fitted(np.full(30, 5.0), 1.0, intervals="auto", noise_scale=None)
    assert found.model.means_.tolist() == [[5.0]]
    assert found.intervals is not None
    assert found.intervals.means_stderr[0, 0] == pytest.approx(30**-0.5)


def test_effective_sizes_and_intervals_are_said_in_every_unit() -> None:
    x, s = drawn(40)
    one, other = (fitted(c * x, c * s, k=5, intervals="fisher") for c in (1.0, 1e-20))
    assert sentences(one)[-1].partition("effective")[2] == sentences(other)[-1].partition("effective")[2]
    assert not any(word in sentences(other)[-1] for word in ("inf", "nan"))


def test_a_fit_that_has_not_converged_is_said_once_and_those_beside_it_are_not() -> None:
    rng = np.random.default_rng(4)
    s = rng.choice([1, 2.5], 300)
    x = AtomicLaw([-8, 0, 8.0], [0.3, 0.3, 0.4]).sample(s, rng)
    assert sum("short of a maximum" in note for note in fitted(x, s, k=5, method="em").notes) == 1
    notes = fitted(x, s, goodness=True, max_k=3).notes
    assert not any("max_iter" in note or "short of" in note for note in notes)


def test_in_space_the_bootstrap_carries_the_error_of_an_estimated_noise() -> None:
    x, _ = drawn(40, law=AtomicLaw(np.outer([-3, 3], np.eye(2)[0])), levels=(0.7,))
    found = fitted(x, None, noise=None, unknown_noise=True, noise_scale=None, intervals="auto", k=2)
    assert found.scale is not None
    ask: dict[str, Any] = {"n_boot": 19, "noise_error": found.scale.relative_error, "random_state": 0}
    again = found.model.intervals(x, noise_std=found.scale.scale, **ask)
    assert found.intervals is not None
    assert found.intervals.to_dict() == again.to_dict()
    assert not any("as known" in note for note in found.notes)
    open_ended = replace(found.scale, low=0.0)
    assert open_ended.relative_error == np.inf


def test_the_most_likely_of_all_laws_has_no_number_of_atoms() -> None:
    x, s = drawn(N)
    found = fitted(x, s, method="npmle", intervals="auto", noise_scale=None, goodness=True)
    assert found.goodness is not None
    assert found.goodness.p > 0.1
    assert (found.intervals, found.bic, found.scale) == (None, None, None)
    assert summary(found)["k"] == len(found.model.weights_)
    assert summary(found)["candidates"] == []
    with pytest.raises(UsageError, match="fixed number of atoms"):
        fitted(x, s, method="npmle", k=2)
    with pytest.raises(UsageError, match="on the line"):
        fitted(np.ones((3, 2)), s[:3], method="npmle")


def test_more_atoms_than_the_samples_support_are_said() -> None:
    found = fitted([1.0, 2.0, 3.0], 1.0, k=3)
    assert any("support fewer" in note for note in found.notes)
    x, s = drawn(N)
    assert not any("support fewer" in note for note in fitted(x, s, k=2).notes)


def test_beyond_some_samples_the_slow_checks_are_left_out_and_this_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "CHECKED_UP_TO", 30)
    x, s = drawn(40)
    few, many = (fitted(x[:n], s[:n], k=1, goodness=None, noise_scale=None) for n in (30, 40))
    assert few.goodness is not None
    assert few.scale is not None
    assert (many.goodness, many.scale) == (None, None)
    assert any("left out beyond 30" in note for note in many.notes)


@pytest.mark.parametrize("d", [1, 7])
def test_what_a_terminal_shows_fits_eighty_columns(d: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("ambient_theory.simulation.figures.save", lambda figure, path: [])  # a terminal shows none
    x, s = drawn(60, law=AtomicLaw(np.outer([-1e5, 2e5], np.eye(d)[0]), LAW.weights), levels=(1e3, 4e3))
    np.savez(tmp_path / "a.npz", a_rather_long_name_of_an_array=x, s=s)
    words = ("--noise", "s", "--max-k", 2, "--boot", 19, "--quiet", "--outdir", tmp_path / "out")
    result = asked(tmp_path / "a.npz", *words)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "intervals" in result.stdout
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "--noise is required"),
        (("--noise", "sigma"), 2, "--column name"),
        (("--noise", "sigma", "--column", "y"), 2, "no column 'y'"),
        (("--noise", "sgima", "--column", "x"), 2, "no column of"),
        (("--noise", "-1", "--column", "x"), 2, "> 0"),
        (("--noise", "name", "--column", "x"), 3, "must hold a number"),
        (("--noise", "sigma", "--column", "name"), 3, "must hold a number"),
        (("--noise", "x", "--column", "x"), 3, ".csv: column x: the noise must be > 0"),
        (("--noise", "sigma", "--unknown-noise", "--column", "x"), 2, "contradict"),
        (("--unknown-noise", "--rescale-noise", "--column", "x"), 2, "leave --noise-scale"),
        (("--noise", "sigma", "--rescale-noise", "--no-noise-scale", "--column", "x"), 2, "leave one of them out"),
        (("--noise", "sigma", "--k", "2", "--max-k", "3", "--column", "x"), 2, "leave one of them out"),
        (("--unknown-noise", "--ratio-test", "--column", "x"), 2, "takes the noise as known"),
        (("--noise", "sigma", "--k", "500", "--column", "x"), 2, "150 samples for --k 500"),
        (("--unknown-noise", "--noise-is", "variance", "--column", "x"), 2, "states none"),
        (("--noise", "sigma", "--method", "npmle", "--max-k", "3", "--column", "x"), 2, "npmle has none"),
        (("--noise", "sigma", "--boot", "50", "--no-goodness", "--intervals", "none"), 2, "nothing that is asked for"),
        (("--noise", "sigma", "--level", "0.99", "--boot", "50", "--column", "x"), 2, "100 bootstrap samples or more"),
        (("--noise", "sigma", "--level", "1", "--column", "x"), 2, "--level"),
        (("--noise", "sigma", "--column", "x", "--column", "variance", "--intervals", "fisher"), 2, "for the line"),
        (("--noise", "sigma", "--column", "x", "--method", "dmm", "--intervals", "likelihood"), 2, "take bootstrap"),
        (
            (
                "--noise",
                "sigma",
                "--column",
                "x",
                "--method",
                "dmm",
                "--level",
                "0.95",
                "--boot",
                "19",
                "--no-goodness",
            ),
            2,
            "give 39 or more",
        ),
        (("--noise", "sigma", "--method", "npmle", "--ratio-test", "--column", "x"), 2, "fixed number of atoms"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_nothing_is_written(
    words: tuple[str, ...], code: int, said: str, table: Path, tmp_path: Path
) -> None:
    result = asked(table, *words, "--outdir", tmp_path / "out")
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_arrays_are_checked_like_files() -> None:
    with pytest.raises(DataError, match=r"missing or infinite in 1 row \(1; counted from 0\)"):
        fit_gmm([1.0, np.nan, 2.0], 1.0)
    with pytest.raises(DataError, match="must be > 0, and it is -1"):
        fit_gmm([1.0, 2.0], [1.0, -1.0], noise_is="variance")
    with pytest.raises(UsageError, match="2 values for 3 samples"):
        fit_gmm([1.0, 2.0, 3.0], [1.0, 1.0])
    with pytest.raises(UsageError, match="required"):
        fit_gmm([1.0, 2.0, 3.0])


def test_a_fit_beside_its_samples_does_not_take_their_place(tmp_path: Path) -> None:
    x, s = drawn(N)
    path = tmp_path / "atoms.csv"
    path.write_text("x,s\n" + "".join(f"{a},{b}\n" for a, b in zip(x.ravel(), s, strict=True)))
    before = path.read_bytes()
    refused = asked(path, "--column", "x", "--noise", "s", *FAST, "--outdir", tmp_path)
    assert (refused.exit_code, "holds atoms.csv and no fit of ambient" in refused.stderr) == (2, True), refused.output
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["atoms.csv"]
    path.rename(tmp_path / "mine.csv")
    (tmp_path / "config.json").write_text('{"of": "another program"}')
    refused = asked(tmp_path / "mine.csv", "--column", "x", "--noise", "s", *FAST, "--outdir", tmp_path)
    assert "is damaged, or is not of a fit: choose another --outdir" in refused.stderr
