"""The Python API: the commands' own functions, by keyword, imported when used; the examples run."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

import ambient_theory
import ambient_train
from ambient_theory import HeteroscedasticMixture, bounds, compare, simulate
from ambient_theory.shared.advice import Worth
from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.frames import flat
from ambient_train import evaluate, generate, load, restore, train, worth
from ambient_train.interchange.load import load_trained
from ambient_train.pricing.answer import WorthAnswer
from ambient_train.pricing.noise import SmallNoise
from ambient_train.runs.directory import RunDirectory
from ambient_train.settings.layers import over_file, read_toml

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY: dict[str, Any] = {
    "data": "digits",
    "sigma": 0.6,
    "corruption": 0.5,
    "max_images": 96,
    "batch": 16,
    "duration": "64",
    "network": {"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8},
    "evaluation": {"n": 40, "extractors": ["pixels"], "metrics": ["fd"], "denoise": 16, "sampler": {"steps": 3}},
    "device": "cpu",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.set_num_threads(1)
    return train(**TINY, outdir=tmp_path_factory.mktemp("api") / "run")


def test_importing_the_packages_imports_nothing_heavy() -> None:
    heavy = "sorted(m for m in ('torch', 'numpy', 'scipy') if m in sys.modules)"
    code = f"import ambient_train, ambient_theory, sys; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_is_there_and_a_wrong_one_is_not() -> None:
    for package in (ambient_train, ambient_theory, bounds, compare):
        assert dir(package)
        for name in dir(package):
            assert getattr(package, name) is not None
    assert callable(worth)
    assert ambient_train.worth is worth  # no folder of that name comes between
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = ambient_train.trian  # type: ignore[attr-defined]


def test_training_is_that_of_the_command_and_the_same_call_finds_it_done(run: Any) -> None:
    config = RunDirectory(run.directory).manifest()["config"]
    assert (config["sigma"], config["n_noisy"], config["batch"]) == (0.6, 48, 16)
    again = train(**TINY, outdir=run.directory)
    assert [r.to_dict() for r in again.records] == [r.to_dict() for r in run.records]
    assert repr(run).startswith(f"TrainResult('{run.directory}', 64 images: fd ")
    assert run._repr_html_().startswith('<img src="data:image/png;base64,iVBOR')
    plan = train(**TINY, outdir=run.directory, dry_run=True)
    assert plan.duration_nimg == 64
    assert repr(plan).startswith(f"DryRun('{run.directory}', 64 images to train on: about ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sigmma": 1.0}, "sigmma"),
        ({"batch": "many"}, "batch must be of type int"),
        ({"corruption": 0.5}, "sigma"),
        ({"duration": "soon"}, "200k"),
        ({"micro_batch": 0}, "micro_batch"),
    ],
)
def test_wrong_keywords_are_refused_before_anything_is_written(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        train(**settings, outdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_lies_below_keywords_and_shares_replace_its_counts(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('data = "digits"\nn_clean = 30\nn_noisy = 60\nsigma = 0.2\nmax_images = 96\nseed = 7\n')
    plan = train(config=file, corruption=0.5, seed=8, outdir=tmp_path / "run", dry_run=True)
    assert (plan.config["n_clean"], plan.config["n_noisy"], plan.config["seed"]) == (48, 48, 8)


def test_a_keyword_may_be_the_flag_with_underscores(run: Any, tmp_path: Path) -> None:
    tiny = {k: v for k, v in TINY.items() if k != "network"}
    wide = {"width": 4, "channel_mult": "1,2", "network": {"emb_channels": 8}, "lr_ramp": "2k", "ema": 300}
    own = {"max_time": "10m", "checkpoint_every": "1k", "tick": 32, "outdir": tmp_path / "run", "dry_run": True}
    plan = train(**tiny, **wide, **own)
    assert (plan.config["network"], plan.config["lr_ramp_nimg"]) == (TINY["network"], 2000)
    assert plan.config["ema_halflife_nimg"] == 300
    made = generate(run.directory, tmp_path / "a", seeds=range(2), at=64, format="npz", device="cpu")
    assert made.path.name == "images.npz"
    scored = evaluate(run.directory, at="64", metric=["fd"], n_eval=48, reference=["heldout-clean"], device="cpu")
    assert [(s.metric, s.reference, s.n) for s in scored.scores] == [("fd", "heldout-clean", 48)]
    with pytest.raises(UsageError, match="n is given twice, as n and as n_eval: give one"):
        evaluate(run.directory, n=40, n_eval=48)
    with pytest.raises(UsageError, match="model_channels is given twice, also in network"):
        train(**TINY, width=8)


def test_a_file_and_a_keyword_may_call_a_setting_by_its_two_names(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('duration = "20k"\nlr_ramp_nimg = 10\nevaluation = { n_eval = 50, denoise = 0 }\n')
    made = over_file(read_toml(file), {"duration_nimg": 500, "lr_ramp": 20, "evaluation": {"n": 60, "n_denoise": 5}})
    assert (made.schedule.duration_nimg, made.train.lr_ramp_nimg) == (500, 20)
    assert (made.evaluation.n, made.evaluation.denoise) == (60, 5)


def test_numbers_of_numpy_paths_and_text_are_taken_or_refused_in_a_sentence(run: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=np.zeros((40, 1, 8, 8), np.uint8))
    plan = train(data=tmp_path / "data.npz", preset="digits", seed=np.int64(2), lr=np.float32(0.5), dry_run=True)
    assert (plan.config["data"], plan.config["seed"], plan.config["lr"]) == (str(tmp_path / "data.npz"), 2, 0.5)
    assert load(run.directory, at="64").trained.nimg == load(run.directory, at=60).trained.nimg == 64
    adviser = compare.adviser()
    for sigma in (np.float32(0.5), [0.5], np.array([0.5], np.float32)):
        answer = worth("digits", sigma=sigma, adviser=adviser, time="10m", dry_run=True, outdir=tmp_path / "answer")
        assert list(dict(answer.sigmas)) == [0.5]
    model = load(run.directory)
    noisy = np.zeros((2, 1, 8, 8))
    for refused, words in (
        (lambda: worth("digits", sigma="0.5", adviser=adviser, dry_run=True), "sigma must be a list of type float"),
        (lambda: load(run.directory, at="soon"), "'soon': give a number of images"),
        (lambda: restore(run.directory, tmp_path / "r", at="1k", samples=0), "no checkpoint after 1000 images"),
        (lambda: model.generate(range(2), batch=0), "batch 0 is not allowed: it must be >= 1"),
        (lambda: model.denoise(noisy, 0.2, batch=-1), "batch -1 is not allowed"),
        (lambda: train(widht=8), "unknown setting.* widht: known are .*max_time_s.*model_channels"),
    ):
        with pytest.raises(UsageError, match=words):
            refused()
    assert not (tmp_path / "r").exists()


def test_a_model_generates_what_the_command_generates(run: Any, tmp_path: Path) -> None:
    model = load(run.directory, device="cpu")
    images = model.generate(range(5))
    written = generate(run.directory, tmp_path / "images", seeds=range(5), form="npz", device="cpu")
    stored = np.load(written.path)
    assert np.array_equal(images, stored["images"])
    assert repr(written) == written._repr_html_().replace("&#x27;", "'") == f"Generated('{written.path}', 5 images)"
    grid = generate(run.directory, tmp_path / "grid", seeds=range(4), form="grid", device="cpu")
    assert grid._repr_html_().startswith('<img src="data:image/png;base64,iVBOR')
    assert images.dtype == np.uint8
    assert not np.array_equal(images, model.generate(range(5), steps=4))
    assert "images [1, 8, 8]" in repr(model)
    with pytest.raises(UsageError, match="no seeds"):
        model.generate([])
    with pytest.raises(UsageError, match=r"seed 1180591620717411303424: a seed is a whole number below 10\^15"):
        model.generate([0, 2**70])
    with pytest.raises(UsageError, match="sigma_min"):
        generate(run.directory, tmp_path / "other", stepss=3)
    assert not (tmp_path / "other").exists()


def test_denoising_is_the_network_at_the_level_of_each_image(run: Any) -> None:
    model = load(run.directory, device="cpu")
    noisy = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    levels = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
    network = load_trained(run.directory).network
    with torch.no_grad():
        expected = network(torch.from_numpy(noisy), torch.from_numpy(levels)).numpy()
    assert np.allclose(model.denoise(noisy, levels, batch=2), expected, atol=1e-6)
    assert np.allclose(model.denoise(noisy[2:3], 0.4), expected[2:3], atol=1e-6)
    assert model.denoise(noisy[:0], 0.4).shape == (0, 1, 8, 8)
    for bad, sigma, error in (
        (noisy[:, 0], 0.4, UsageError),
        (noisy, 0.0, UsageError),
        (noisy, levels[:4], UsageError),
        (np.full_like(noisy, np.nan), 0.4, DataError),
    ):
        with pytest.raises(error):
            model.denoise(bad, sigma)


def test_evaluation_and_restoration_by_keyword(run: Any, tmp_path: Path) -> None:
    scored = evaluate(run.directory, metrics=["fd"], device="cpu", references=["heldout-clean"])
    [value] = [s.value for s in scored.scores]
    [expected] = [
        r.value for r in run.records if (r.metric, r.reference, r.checkpoint) == ("fd", "heldout-clean", "last")
    ]
    assert value == pytest.approx(expected, rel=1e-5)
    assert repr(scored).startswith("Evaluation(")
    restored = restore(run.directory, tmp_path / "restored", samples=2, steps=3, max_images=4, device="cpu")
    assert (tmp_path / "restored" / "restored.npz").is_file()
    assert json.dumps(restored.to_dict())
    assert repr(restored).startswith(f"Restored('{tmp_path}/restored', 4 noisy images: PSNR in dB ")
    assert restored._repr_html_().startswith('<img src="data:image/png;base64,iVBOR')
    with pytest.raises(UsageError, match="unknown option"):
        evaluate(run.directory, metrixs=["fd"])


def test_worth_says_what_it_would_do(tmp_path: Path) -> None:
    plan = worth("digits", sigma=0.6, adviser=compare.adviser(), time="10m", dry_run=True, outdir=tmp_path / "answer")
    assert 0.6 in dict(plan.sigmas)
    assert not (tmp_path / "answer").exists()
    assert re.match(rf"Plan\('{tmp_path}/answer', about \d+ trainings in 10.0 min\)", repr(plan))
    with pytest.raises(UsageError, match="belong together"):
        worth("digits", sigma=0.6, adviser=compare.adviser(), price_clean=3.0)


def test_the_theory_by_keyword(tmp_path: Path) -> None:
    terms = bounds.bound(k=2, d=1, levels=[1.0, 2.0], counts=[10, 90])
    assert terms.total == terms.low > 0
    result = simulate(n=(1000,), k=[2], reps=4, outdir=tmp_path / "simulation")
    assert {f.name for f in result.files} >= {"records.jsonl", "table.csv"}
    assert repr(result) == f"SimulationResult('{tmp_path}/simulation', {len(result.summary['rows'])} cells)"
    assert result._repr_html_().startswith('<img src="data:image/png;base64,iVBOR')
    with pytest.raises(UsageError, match="unknown option"):
        simulate(n=(1000,), repps=4)
    assert HeteroscedasticMixture(n_components=2).n_components == 2


def test_results_become_frames_where_pandas_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Any) -> None:
    found = compare.read(run.directory)
    assert repr(found).startswith("Reading(")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        found.to_frame()
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda rows: rows))
    assert [row["value"] for row in found.to_frame()] == [r.value for r in found.records]
    first, row = run.records[0], run.to_frame()[0]
    assert row["metric"] == first.metric
    assert row["floor"] == first.extra["floor"]
    assert row["interval95"] == first.extra["interval95"]
    assert "extra" not in row
    assert flat({"a": 1, "extra": {"a": 2, "b": 3}}) == {"a": 1, "extra_a": 2, "b": 3}
    assert flat({"a": 1}) == {"a": 1}
    [answer, *_] = compare.price_by_level(compare.read_shipped().records, sigma_n=0.2)
    assert [list(row.values()) for row in answer.to_frame()] == answer.rows()
    assert repr(answer) == f"BandAnswer({answer.sentence()})"
    simulated = simulate(n=(1000,), k=[2], reps=4, outdir=tmp_path)
    assert simulated.to_frame() == simulated.summary["rows"]


def test_an_answer_on_the_worth_is_short_and_has_a_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    columns = ("level s", "worth")
    found = [Worth(0.6, rule, None, None, "σ 0.6: price 2", columns, (("0.1", "1"), ("9", "2")), {}) for rule in "ab"]
    small = SimpleNamespace(name="digits", resolution=8, noise=SmallNoise(1.0))
    answer = WorthAnswer(
        small, {0.6: 0.6}, {0.6: found}, {}, {}, SimpleNamespace(duration_nimg=4096), 9, 99, 1.0, tmp_path, tmp_path
    )  # type: ignore[arg-type]
    assert repr(answer) == f"WorthAnswer(digits, σ 0.6, a: price 2; page '{tmp_path}')"
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda rows: rows))
    assert answer.to_frame()[3] == {"sigma": 0.6, "rule": "b", "level s": "9", "worth": "2"}


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_example_train_and_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("train_and_look").main(tmp_path, duration="512", n=40)
    said = capsys.readouterr().out
    assert "TrainResult(" in said
    assert "memorisation:" in said


@pytest.mark.slow
def test_example_denoise_arrays_gains(tmp_path: Path) -> None:
    assert example("denoise_arrays").main(tmp_path / "run", duration="8k") > 1.0  # dB; an untrained network loses


def test_example_price_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("price_and_page").main(tmp_path, page=False)
    assert "At σ 0.2" in capsys.readouterr().out


def test_example_fit_noisy_numbers() -> None:
    atoms, weights = example("fit_noisy_numbers").main(n=20_000)
    # by the information of the noise the atoms' standard errors are .03 and .02; 4 of them
    assert np.sort(atoms) == pytest.approx([-1, 1], abs=0.12)
    assert weights[np.argsort(atoms)] == pytest.approx([0.3, 0.7], abs=0.06)


def test_example_bound_and_simulation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("bound_and_simulation").main(tmp_path, n="1e3,1e4", reps=4)
    assert "rate of W1" in capsys.readouterr().out


@pytest.mark.slow
def test_example_first_steps_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its cells in their order, at a smaller size than the first one says."""
    cells = json.loads((EXAMPLES / "first_steps.ipynb").read_text(encoding="utf-8"))["cells"]
    first, *rest = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    exec(first, names)
    assert {"duration", "n", "outdir"} <= set(names)
    names |= {"duration": "8k", "n": 40, "outdir": str(tmp_path)}
    matplotlib.use("Agg")
    for source in rest:
        exec(source, names)
    assert names["gain"] > 1.0  # dB; an untrained network loses
    assert names["images"].shape == (16, 1, 8, 8)
    assert len(names["answers"]) == 3
    said = capsys.readouterr().out
    assert "memorisation:" in said
    assert "above the noise level" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["count_noise", "sky_maps", "mri_spectrum"])
def test_example_of_noise(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At toy size: every step runs, and says what the noise model gains; the gain itself needs the real size."""
    gained = example(name).main(tmp_path, n=80, duration="128", samples=2, most=10)
    assert np.isfinite(gained).all()
    assert len(gained) >= 5
    assert "as white noise of one level" in capsys.readouterr().out
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_no_example_is_left_out() -> None:
    tested = {name.removeprefix("test_example_") for name in globals() if name.startswith("test_example_")}
    tested = (tested - {"of_noise"}) | {"count_noise", "sky_maps", "mri_spectrum"}
    tested = {t.removesuffix("_gains").removesuffix("_notebook") for t in tested}
    files = [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb")]
    assert {p.stem for p in files} - {"pictures"} == tested
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in files if f"]({p.name})" not in listed] == []
