"""The trainer's commands as a user meets them: results on stdout, one sentence and the right exit code for mistakes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from invoke import TINY, ambient
from PIL import Image
from typer.testing import Result


def train(config: Path, out: Path, *more: object) -> Result:
    return ambient("train", "--config", config, "--outdir", out, "--device", "cpu", "--quiet", *more)


def test_train_writes_the_run_directory_and_says_where(tmp_path: Path, tiny_config: Path) -> None:
    out = tmp_path / "run"
    result = train(tiny_config, out, "--sigma", 0.2, "--corruption", 0.9, "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["directory"] == str(out)
    record = answer["records"][0]
    assert (record["n_clean"], record["n_noisy"], record["sigma_n"]) == (144, 1298, 0.2)
    assert record["extra"]["floor"] < record["value"]
    names = {p.name for p in out.iterdir()}
    assert names >= {"manifest.json", "metrics.jsonl", "checkpoints", "samples", "log.txt", "result.json"}
    assert len(list((out / "samples").glob("*.png"))) == 1
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["nimg"] for line in lines] == [16, 32, 48, 64, 80, 96]


def test_same_command_again_is_done_and_a_longer_one_continues(tmp_path: Path, tiny_config: Path) -> None:
    out = tmp_path / "run"
    first = train(tiny_config, out, "--json")
    result_file = (out / "result.json").read_bytes()
    again = train(tiny_config, out, "--json")
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert (out / "result.json").read_bytes() == result_file
    longer = train(tiny_config, out, "--duration", 160, "--json")
    assert json.loads(longer.stdout)["nimg"] == 160
    straight = train(tiny_config, tmp_path / "other", "--duration", 160, "--json")
    values = [[r["value"] for r in json.loads(x.stdout)["records"]] for x in (longer, straight)]
    assert values[0] == values[1]


def test_default_directory_is_named_after_the_run(
    tmp_path: Path, tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = ambient("train", "--config", tiny_config, "--sigma", 0.2, "--corruption", 0.5, "--seed", 3, "--quiet")
    assert result.exit_code == 0, result.output
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("digits-s0.2-c0.5-seed3-")


def test_another_config_on_the_same_directory_is_refused_with_the_keys(tmp_path: Path, tiny_config: Path) -> None:
    out = tmp_path / "run"
    assert train(tiny_config, out).exit_code == 0
    result = train(tiny_config, out, "--sigma", 0.4, "--corruption", 0.9, "--lr", 0.5)
    assert result.exit_code == 2
    for key in ("sigma", "n_noisy", "lr"):
        assert key in result.stderr
    assert "Traceback" not in result.output


def test_folder_that_holds_something_else_is_left_alone(tmp_path: Path, tiny_config: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    result = train(tiny_config, tmp_path / "mine")
    assert result.exit_code == 2
    assert [p.name for p in (tmp_path / "mine").iterdir() if p.name != "lock"] == ["thesis.tex"]


def test_train_on_a_folder_of_images_resized(tmp_path: Path, tiny_config: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(40):
        pixels = np.random.default_rng(k).integers(0, 256, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    out = tmp_path / "run"
    result = train(
        tiny_config, out, "--data", folder, "--resolution", 8, "--n-clean", 10, "--n-noisy", 20, "--sigma", 0.1
    )
    assert result.exit_code == 0, result.output
    grid = np.asarray(Image.open(next((out / "samples").glob("*.png"))))
    assert grid.ndim == 3


@pytest.fixture(scope="module")
def plain_losses(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Of a run with the defaults, step by step."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "tiny.toml").write_text(TINY)
    result = train(folder / "tiny.toml", folder / "run", "--sigma", 0.3, "--corruption", 0.5)
    assert result.exit_code == 0, result.output
    return losses(folder / "run")


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--compat", "paper"], {"weight": "y", "draw": "paper", "buffer": 1.0}),
        (["--weight", "optimal"], {"weight": "optimal", "draw": "clean-first", "buffer": 1.05}),
        (["--draw", "sigma-first"], {"weight": "x0", "draw": "sigma-first", "buffer": 1.05}),
        (["--draw", "image-first", "--buffer", "1.5"], {"weight": "x0", "draw": "image-first", "buffer": 1.5}),
    ],
)
def test_the_loss_and_the_draw_that_are_asked_for_are_used(
    tmp_path: Path, tiny_config: Path, plain_losses: list[float], extra: list[str], said: dict[str, object]
) -> None:
    result = train(tiny_config, tmp_path / "asked", "--sigma", 0.3, "--corruption", 0.5, "--json", *extra)
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "asked" / "manifest.json").read_text())["config"]
    assert {key: config[key] for key in said} == said
    method = json.loads(result.stdout)["records"][0]["method"]
    assert {key: method[key] for key in said} == said
    assert losses(tmp_path / "asked") != plain_losses  # a flag that is dropped on the way would train the same


def test_a_dry_run_refuses_a_directory_that_the_run_would_refuse(
    tmp_path: Path, tiny_config: Path, trained: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    before = sorted(trained.rglob("*"))
    for taken, words in ((trained, "another config (lr: "), (tmp_path / "full", "holds no run")):
        refused = [train(tiny_config, taken, "--lr", 0.5, *more) for more in (["--dry-run"], [])]
        assert [r.exit_code for r in refused] == [2, 2]
        assert words in refused[0].stderr
        assert refused[0].stderr.splitlines()[-1] == refused[1].stderr.splitlines()[-1]
    assert sorted(trained.rglob("*")) == before
    assert train(tiny_config, trained, "--dry-run").exit_code == 0


def test_dry_run_writes_nothing(tmp_path: Path, tiny_config: Path) -> None:
    out = tmp_path / "run"
    result = train(tiny_config, out, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["parameters"] > 1000
    assert plan["img_per_s"] > 0
    assert not out.exists()
    shown = train(tiny_config, out, "--dry-run").stdout.splitlines()
    settings = [line for line in shown[: len(plan["config"])] if not line.startswith("# ")]
    assert tomllib.loads("\n".join(settings)) == {k: v for k, v in plan["config"].items() if v is not None}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--sigma", "-1"], 2, "sigma"),
        (["--sigma", "nan"], 2, "sigma"),
        (["--sigma", "0.2", "--corruption", "1.5"], 2, "corruption"),
        (["--keep", "0"], 2, "keep"),
        (["--keep", "0.5", "--n-clean", "3"], 2, "exclude"),
        (["--n-clean", "100000"], 2, "1442"),
        (["--data", "no/such/place"], 3, "no/such/place"),
        (["--config", "missing.toml"], 3, "missing.toml"),
        (["--preset", "huge"], 2, "digits"),
        (["--duration", "long"], 2, "200k"),
        (["--batch", "0"], 2, "batch"),
        (["--lr", "0"], 2, "lr"),
        (["--weight", "best"], 2, "x0"),
        (["--draw", "lots"], 2, "sigma-first"),
        (["--compat", "matlab"], 2, "paper"),
        (["--compat", "paper", "--weight", "x0"], 2, "compat"),
        (["--precision", "fp64"], 2, "precision"),
        (["--device", "abacus"], 2, "device"),
        (["--resolution", "7"], 2, "7"),
        (["--arch", "transformer"], 2, "architecture"),
        (["--seed", "x"], 2, "seed"),
        (["--metric", "fjd"], 2, "choose from fd"),
        (["--eval-seed", str(2**70)], 2, "must be <= "),
        (["--metric", "is", "--extractor", "pixels"], 2, "needs class probabilities"),
        (["--extractor", "resnet"], 2, "not one of effnet-lite0"),
        (["--extractor", "torchscript:none.pt"], 3, "none.pt"),
        (["--extractor", "inception:none.pth"], 2, "none.pth"),
    ],
)
def test_bad_input_gets_one_sentence_and_no_traceback(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = ambient("train", "--device", "cpu", *arguments)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "runs").exists()


def test_bad_config_files_are_named(tmp_path: Path) -> None:
    for text, code, words in (
        ("sigma = ", 3, "bad.toml"),
        ("colour = 3", 2, "colour"),
        ('batch = "many"', 2, "batch"),
        ("network = 3", 2, "network"),
        ("network = { depth = 3 }", 2, "depth"),
        ("evaluation = { n = 3 }", 2, "evaluation.n"),
        ("evaluation = { steps = 3 }", 2, "steps"),
    ):
        (tmp_path / "bad.toml").write_text(text)
        result = ambient("train", "--config", tmp_path / "bad.toml", "--outdir", tmp_path / "r", "--device", "cpu")
        assert result.exit_code == code, (text, result.output)
        assert words in result.stderr


def test_generate_makes_the_image_of_a_seed_in_any_company(tmp_path: Path, trained: Path) -> None:
    run = trained
    some = ambient("generate", run, "--outdir", tmp_path / "a", "--seeds", "0-9", "--batch", 4, "--quiet")
    assert some.exit_code == 0, some.output
    assert len(list((tmp_path / "a").glob("*.png"))) == 10
    one = ambient("generate", run, "--outdir", tmp_path / "b", "--seeds", "7", "--format", "npz", "--json", "--quiet")
    images = np.load(json.loads(one.stdout)["path"])["images"]
    assert images.shape == (1, 1, 8, 8)
    png = np.asarray(Image.open(tmp_path / "a" / "000007.png")).astype(int)
    assert np.abs(png - images[0, 0].astype(int)).max() <= 1
    grid = ambient("generate", run, "--outdir", tmp_path / "c", "--seeds", "0-8", "--format", "grid", "--quiet")
    assert grid.exit_code == 0
    nested = ambient("generate", run, "--outdir", tmp_path / "d", "--seeds", "999,1000", "--subdirs", "--quiet")
    assert nested.exit_code == 0
    assert {p.parent.name for p in (tmp_path / "d").rglob("*.png")} == {"000000", "001000"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--seeds", "a"], 2),
        (["--format", "gif"], 2),
        (["--steps", "0"], 2),
        (["--class", "3"], 2),
        (["--at", "999"], 2),
        (["--solver", "rk4"], 2),
    ],
)
def test_generate_refuses_what_it_cannot_do(tmp_path: Path, trained: Path, arguments: list[str], code: int) -> None:
    result = ambient("generate", trained, "--outdir", tmp_path / "x", "--quiet", *arguments)
    assert result.exit_code == code, result.output
    assert not (tmp_path / "x").exists()
    assert result.stderr.strip()
    assert "Traceback" not in result.output


def test_conditional_network_generates_the_class_asked_for(tmp_path: Path, tiny_config: Path) -> None:
    run = tmp_path / "run"
    result = train(tiny_config, run, "--cond", "--augment", 0.2, "--xflip")
    assert result.exit_code == 0, result.output
    made = {}
    for label in (3, 4, None):
        out, asked = tmp_path / f"class-{label}", [] if label is None else ["--class", label]
        shown = ambient("generate", run, "--outdir", out, "--seeds", "0-9", "--format", "npz", "--quiet", *asked)
        assert shown.exit_code == 0, shown.output
        made[label] = np.load(out / "images.npz")["images"]
    assert (made[3] != made[4]).any()  # a class that is dropped on the way would give the same images
    assert (made[None][3] == made[3][3]).all()  # without one, image k has class k mod 10
    assert (made[None][4] == made[4][4]).all()
    refused = ambient("generate", run, "--outdir", tmp_path / "x", "--seeds", "0-3", "--class", 10, "--quiet")
    assert (refused.exit_code, "classes 0 to 9" in refused.stderr) == (2, True)


def test_evaluate_a_run_and_the_same_images_agree(tmp_path: Path, trained: Path) -> None:
    run = trained
    common = ["--extractor", "pixels", "--metric", "fd", "--json", "--quiet"]
    scored = ambient("evaluate", run, "--n", 60, "--seed", 0, "--outdir", tmp_path / "scores", *common)
    assert scored.exit_code == 0, scored.output
    assert (tmp_path / "scores" / "records.jsonl").exists()
    ambient("generate", run, "--outdir", tmp_path / "images", "--seeds", "0-59", "--format", "npz", "--quiet")
    images = ambient("evaluate", tmp_path / "images" / "images.npz", "--data", "digits", *common)
    assert images.exit_code == 0, images.output
    a, b = ([s["value"] for s in json.loads(x.stdout)["scores"]] for x in (scored, images))
    assert a == pytest.approx(b, rel=1e-3)
    repeated = ambient("evaluate", run, "--n", 60, "--repeats", 3, *common)
    assert repeated.exit_code == 0, repeated.output
    assert len(json.loads(repeated.stdout)["scores"][0]["values"]) == 3


def test_a_folder_of_scores_or_images_holds_what_was_asked_first(tmp_path: Path, trained: Path) -> None:
    scores, images = tmp_path / "scores", tmp_path / "images"
    common = ("--n", 60, "--metric", "fd", "--extractor", "pixels", "--quiet")
    assert ambient("evaluate", trained, *common, "--outdir", scores).exit_code == 0
    assert ambient("evaluate", f"{trained}/", *common, "--outdir", scores).exit_code == 0  # the same run
    assert ambient("generate", trained, "--seeds", "0-1", "--outdir", images, "--quiet").exit_code == 0
    written = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    other = {
        "n": ambient("evaluate", trained, *common, "--n", 50, "--outdir", scores),
        "metrics": ambient("evaluate", trained, *common, "--metric", "kid", "--outdir", scores),
        "data": ambient("evaluate", trained, *common, "--data", "fashion", "--outdir", scores),
        "sampler": ambient("generate", trained, "--seeds", "0-1", "--steps", 3, "--outdir", images, "--quiet"),
    }
    for what, refused in other.items():
        assert (refused.exit_code, f"another {what}: choose another --outdir" in refused.stderr) == (2, True), refused
    assert written == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for file, said in ((scores / "scores.json", ("target", "scores")), (images / "generated.json", ("network",))):
        stored = json.loads(file.read_text())
        kept = {k: stored[k] for k in (*said, *(("config_hash",) if "network" in stored else ()))}
        file.write_text(json.dumps(kept))  # as earlier versions wrote them
    assert ambient("evaluate", trained, *common, "--n", 50, "--outdir", scores).exit_code == 0
    assert ambient("generate", trained, "--seeds", "0-1", "--steps", 3, "--outdir", images, "--quiet").exit_code == 0


def test_evaluate_replaces_no_file_of_anybody_else(tmp_path: Path, trained: Path) -> None:
    common = ("evaluate", trained, "--n", 60, "--metric", "fd", "--extractor", "pixels", "--quiet")
    foreign, records = tmp_path / "mine.npz", tmp_path / "sweep" / "records.jsonl"
    np.savez(foreign, mu=np.zeros(64), sigma=np.eye(64))  # statistics, but not ours
    records.parent.mkdir()
    records.write_text("of a sweep\n")
    before = foreign.read_bytes()
    one = ("--reference", "heldout-clean")
    for more, said in (
        (("--save-stats", foreign, *one), "holds no statistics of ambient"),
        (("--save-stats", tmp_path / "stats.txt", *one), "ends in .npz"),
        (("--outdir", records.parent), "no evaluation of ambient"),
    ):
        refused = ambient(*common, *more)
        assert (refused.exit_code, said in refused.stderr) == (2, True), refused.output
    assert foreign.read_bytes() == before
    assert [p.name for p in records.parent.iterdir()] == ["records.jsonl"]
    for _ in range(2):  # its own are written again
        assert ambient(*common, "--save-stats", tmp_path / "own.npz", *one).exit_code == 0
    assert ambient(*common, "--save-stats", tmp_path / "own.npz").exit_code == 0  # two references, named apart
    assert {p.name for p in tmp_path.glob("own-*.npz")} == {
        "own-heldout-clean-pixels.npz",
        "own-train-clean-pixels.npz",
    }


def test_evaluate_refuses_what_it_cannot_compare(tmp_path: Path) -> None:
    assert ambient("evaluate", tmp_path / "nothing", "--data", "digits").exit_code == 3
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(50):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(folder / f"{k}.png")
    assert ambient("evaluate", folder).exit_code == 2
    assert ambient("evaluate", folder, "--data", "digits", "--repeats", 2).exit_code == 2
    assert ambient("evaluate", folder, "--data", "digits", "--extractor", "magic").exit_code == 2
    for idle in ("--at", "--eval-seed", "--n-denoise", "--steps", "--iddpm-levels"):
        refused = ambient("evaluate", folder, "--data", "digits", idle, 64)
        assert (refused.exit_code, f"{idle}: for networks only" in refused.stderr) == (2, True), refused.output


def test_what_evaluate_cannot_measure_is_refused_before_an_image_is_made(
    tmp_path: Path, tiny_config: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = tmp_path / "noisy"
    assert train(tiny_config, noisy, "--sigma", 0.3, "--corruption", 1.0, "--no-score").exit_code == 0

    def sampled(*_: object, **__: object) -> None:
        raise AssertionError("images are made before the refusal")

    monkeypatch.setattr("ambient_train.tasks.evaluate.generate", sampled)
    for run, option, words in (
        (
            noisy,
            ("--memorisation",),
            "--memorisation needs clean training images and held-out ones: the run saw no two",
        ),
        (trained, ("--resolution", 4), "images of 4x4 pixels, those that are scored have 8x8"),
        (trained, ("--resolution", 4), "give --resolution 8"),
    ):
        refused = ambient("evaluate", run, *option, "--outdir", tmp_path / "scores", "--quiet")
        assert refused.exit_code in (2, 3), refused.output
        assert words in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "scores").exists()


def test_help_answers_without_heavy_imports() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from cli import app; "
        "r = CliRunner().invoke(app, ['--help']); assert r.exit_code == 0; "
        "heavy = {'torch', 'numpy', 'scipy', 'sympy', 'sklearn', 'matplotlib', 'pandas'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_data_that_is_noisy_throughout_is_scored_by_its_held_out_noisy_images(
    tmp_path: Path, tiny_config: Path
) -> None:
    noisy = np.random.default_rng(0).normal(0, 0.6, (40, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "scans.npz", images=noisy, sigma=np.full(40, 0.3, np.float32))
    result = train(tiny_config, tmp_path / "run", "--data", tmp_path / "scans.npz")
    assert result.exit_code == 0, result.output
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {r["reference"] for r in stored["points"][0]["records"]} == {"heldout-noisy"}
    assert "heldout-no" in result.stdout
    alone = train(tiny_config, tmp_path / "all", "--data", tmp_path / "scans.npz", "--holdout", 0)
    assert alone.exit_code == 0, alone.output
    assert "no scores" in alone.stdout  # nothing is held out, and nothing is clean
    assert (tmp_path / "run" / "result.json").exists()


COMMANDS = """train generate evaluate sweep_run sweep_plan sweep_status simulate-gmm compare price budget data_prepare
data_check data_corrupt export runs presets config_show sweep_init
runs_compare fit-gmm"""


@pytest.mark.parametrize("command", COMMANDS.split())
def test_every_help_ends_with_an_example_of_options_that_exist(command: str) -> None:
    words = command.split("_")
    shown = " ".join(ambient(*words, "--help").stdout.split())
    example = shown.rsplit("Example: ", 1)[1]
    assert example.startswith(" ".join(["ambient", *words]))
    flags = [w for w in example.split() if w.startswith("--")]
    assert all(shown.count(flag) > 1 for flag in flags)
