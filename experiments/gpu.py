"""What `experiments/gpu.sh` does: see there. Every number is measured here and now; what could not be is null.

A step is one of `training.loop.train`: draws, forward, backward, optimiser and averages. `flops_per_image` counts the
products of the network's forward and backward pass (torch's own counter); MFU is their rate over the dense peak that
the maker states for the device and arithmetic. `idle_share` is the share of a step in which no kernel runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ambient_theory.shared.files import atomic_write_text, read_json
from ambient_train.data.images import ImageSet
from ambient_train.data.mixture import TrainingSet, corrupt
from ambient_train.data.place import is_there
from ambient_train.diffusion.noise_levels import LevelTable
from ambient_train.networks.execution import arithmetic
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.presets import PRESETS
from ambient_train.training.batches import batch_loss, prepare_batch
from ambient_train.training.loop import train
from ambient_train.training.state import TrainState
from ambient_train.training.world import World

ROOT = Path(__file__).parents[1]
LIMIT_S, TESTS_S, STEPS_S, RANKS_S = 24 * 60.0, 5 * 60.0, 9 * 60.0, 2 * 60.0
PEAKS: dict[str, dict[str, float]] = {
    "H100|H200|H800": {"fp32": 67e12, "tf32": 495e12, "fp16": 989e12, "bf16": 989e12},
    "A100": {"fp32": 19.5e12, "tf32": 156e12, "fp16": 312e12, "bf16": 312e12},
}
"""Dense products a second of the SXM modules, from NVIDIA's data sheets."""
VARIANTS = (("fp32", False), ("tf32", False), ("fp16", False), ("bf16", False), ("bf16", True))
NETWORKS = {"CIFAR-10 DDPM++": ("cifar10", 128), "ImageNet-64 ADM": ("imagenet64", 32)}
TOY = {"arch": "SmallUNet", "network": {"model_channels": 8, "channel_mult": [1, 2], "emb_channels": 16}, "cond": False}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="the JSON to write")
    parser.add_argument("--cpu", action="store_true", help="walk through everything at toy size on a CPU")
    asked = parser.parse_args()
    if not asked.cpu and not torch.cuda.is_available():
        parser.error("no CUDA device is available here: give --cpu for the walk at toy size")
    begun = time.monotonic()
    if asked.cpu:
        torch.set_num_threads(1)
        torch.compile = partial(torch.compile, backend="eager")  # follows the code, without a compiler
    device = torch.device("cpu") if asked.cpu else torch.device("cuda", 0)
    result: dict[str, Any] = {"schema": "ambient.gpu/1", "toy": asked.cpu, "machine": machine(device)}

    def left(most: float) -> float:
        return max(min(most, LIMIT_S - (time.monotonic() - begun)), 1.0)

    phases = {
        "tests": lambda: tests(asked.cpu, left(TESTS_S)),
        "steps": lambda: steps(device, asked.cpu, left(STEPS_S)),
        "ranks": lambda: two_ranks(asked.cpu, left(RANKS_S)),
        "grid": lambda: grid(asked.cpu, left(LIMIT_S)),
    }
    for name, phase in phases.items():
        result[name] = phase()
        result["wall_s"] = round(time.monotonic() - begun, 1)
        atomic_write_text(asked.out, json.dumps(result, indent=1) + "\n")  # what is known survives the rest
        print(f"{name}: {json.dumps(result[name])[:200]}", file=sys.stderr, flush=True)
    failed = bool(result["tests"]["exit_code"] or result["ranks"]["exit_code"]) or any(
        "error" in row for row in result["steps"]
    )
    return int(failed)


def machine(device: torch.device) -> dict[str, Any]:
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "device": platform.machine() if gpu is None else gpu.name,
        "memory_gib": None if gpu is None else round(gpu.total_memory / 2**30, 1),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpu is not None else None,
    }


def tests(toy: bool, limit_s: float) -> dict[str, Any]:
    """The tests marked gpu; at toy size those that are not slow, on the CPU."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu and not slow" if toy else "gpu", "-p", "no:cacheprovider"]
    env = {**os.environ, **({"AMBIENT_GPU_TESTS": "cpu"} if toy else {})}
    if toy:
        command += ["-k", "fp32 and late or learns or batches"]
    done = within([*command, "tests/train/gpu"], limit_s, env)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error|skipped|deselected)", done["tail"])}
    return {"exit_code": done["exit_code"], **counts, "wall_s": done["wall_s"], "tail": done["tail"][-2000:]}


def within(command: list[str], limit_s: float, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a command; after the limit it is asked to leave (SIGTERM), a minute later it is ended. exit_code 124: so."""
    begun, late = time.monotonic(), False
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        late = True
        process.send_signal(signal.SIGTERM)
        try:
            said, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
    wall = round(time.monotonic() - begun, 1)
    return {"exit_code": 124 if late else process.returncode, "wall_s": wall, "tail": said[-4000:]}


def steps(device: torch.device, toy: bool, limit_s: float) -> list[dict[str, Any]]:
    """A row for each network and arithmetic: seconds a step, images a second, MFU, idle share."""
    begun, rows = time.monotonic(), []
    left = len(NETWORKS) * len(VARIANTS)
    for name, (preset, batch) in NETWORKS.items():
        data, config, label_dim = job(preset, 8 if toy else batch, toy)
        flops = flops_per_image(data, config, label_dim)
        for precision, compiled in VARIANTS:
            share_s = (limit_s - (time.monotonic() - begun)) / left
            left -= 1
            row: dict[str, Any] = {"network": name, "precision": precision, "compiled": compiled, "batch": config.batch}
            try:
                measured = timed(replace(config, precision=precision), data, label_dim, device, compiled, share_s)
                row |= measured
                row["flops_per_image"] = flops
                peak = peak_of(device, precision)
                row["mfu"] = None if peak is None else round(measured["img_per_s"] * flops / peak, 4)
            except (RuntimeError, MemoryError) as error:
                row["error"] = f"{type(error).__name__}: {error}"[:500]
            rows.append(row)
    return rows


def job(preset: str, batch: int, toy: bool) -> tuple[TrainingSet, TrainConfig, int]:
    """Images of noise with the preset's shape, nine tenths of them noisy, and its config."""
    chosen = PRESETS[preset]
    channels, side, _ = (3, 16, 16) if toy else chosen.shape
    pixels = np.random.default_rng(0).integers(0, 256, (max(4 * batch, 256), channels, side, side)).astype(np.uint8)
    n = len(pixels)
    classes = 1000 if chosen.train["cond"] and not toy else 0
    ids = np.arange(n, dtype=np.int64)
    source = ImageSet("noise", pixels, ids % classes if classes else None, ids)
    if classes:
        source = replace(source, classes=tuple(str(k) for k in range(classes)))
    data = corrupt(source, n_clean=n // 10, n_noisy=n - n // 10, sigma_n=0.2, seed=0)
    table = {**chosen.train, "n_clean": n // 10, "n_noisy": n - n // 10, "sigma": 0.2, "batch": batch}
    table |= {"precision": "fp32", "loss_scale": 1.0, **(TOY if toy else {})}
    return data, TrainConfig.from_dict(table), classes


def flops_per_image(data: TrainingSet, config: TrainConfig, label_dim: int) -> float:
    """Of one image through the network and back, counted on a CPU with a batch of one."""
    cpu = torch.device("cpu")
    state, table = TrainState(config, data.shape, label_dim, cpu), LevelTable.of(data.levels)
    state.network.train()
    counter = FlopCounterMode(display=False)
    with counter:
        batch = prepare_batch(config, data, table, torch.arange(1), label_dim, cpu)
        batch_loss(config, state.network, batch, table, state.errors)[0].sum().backward()
    return float(counter.get_total_flops())


def peak_of(device: torch.device, precision: str) -> float | None:
    """Products a second that the maker states; None for a device that is not in the table."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peaks[precision] for known, peaks in PEAKS.items() if re.search(known, name)), None)


def timed(
    config: TrainConfig, data: TrainingSet, label_dim: int, device: torch.device, compiled: bool, limit_s: float
) -> dict[str, Any]:
    """Seconds of a step after some that warm up, and the share of it in which the device idles."""
    begun = time.monotonic()
    with arithmetic(config.precision):
        state = TrainState(config, data.shape, label_dim, device)
        running = train(state, data, 10**12, world=World(device=device), compiled=compiled)

        def take(count: int) -> float:
            wait(device)
            started = time.perf_counter()
            for _ in range(count):
                next(running)
            wait(device)
            return (time.perf_counter() - started) / count

        first_s = take(1)
        one_s = min(take(1) for _ in range(3))
        count = max(2, min(50, int((limit_s - (time.monotonic() - begun)) / 3 / one_s), int(10 / one_s)))
        step_s = take(count)
        busy_s = busy(partial(take, 3), device)
    return {
        "step_s": step_s,
        "steps": count,
        "first_step_s": round(first_s, 3),
        "img_per_s": config.batch / step_s,
        "idle_share": None if busy_s is None else round(max(1 - busy_s / 3 / step_s, 0.0), 4),
        "memory_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 2) if device.type == "cuda" else None,
    }


def busy(work: Any, device: torch.device) -> float | None:
    """Seconds in which kernels ran: the union of their intervals; None without a GPU."""
    if device.type != "cuda":
        work()
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
    spans = sorted(
        (e.time_range.start, e.time_range.end)
        for e in profiler.events()
        if e.device_type == torch.autograd.DeviceType.CUDA
    )
    total, end = 0.0, 0.0
    for start, stop in spans:
        total += max(stop - max(start, end), 0.0)
        end = max(end, stop)
    return total / 1e6


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def two_ranks(toy: bool, limit_s: float) -> dict[str, Any]:
    """The digits by one process and by two that share the device (over gloo): largest difference of their weights."""
    from ambient_train.training import checkpoints

    with tempfile.TemporaryDirectory() as folder:
        weights, outcomes = [], []
        for processes in (1, 2):
            path = Path(folder) / str(processes)
            command = [sys.executable, "cli.py", "train", "--data", "digits", "--sigma", "0.2", "--corruption", "0.9"]
            command += ["--duration", "640" if toy else "6400", "--no-score", "--outdir", str(path), "--quiet"]
            command += ["--device", "cpu" if toy else "cuda", "--nproc", str(processes)]
            outcomes.append(within(command, limit_s / 2))
            found = checkpoints.newest_valid(path / "checkpoints")[0]
            weights.append({} if found is None else found.groups["network"])
        same = bool(weights[0]) and weights[0].keys() == weights[1].keys()
        gap = (
            max((float((weights[0][k] - weights[1][k]).abs().max()) for k in weights[0]), default=0.0) if same else None
        )
    code = next((o["exit_code"] for o in outcomes if o["exit_code"]), 0 if same else 1)
    return {
        "exit_code": code,
        "largest_difference": gap,
        "wall_s": [o["wall_s"] for o in outcomes],
        **({"tail": outcomes[-1]["tail"][-1000:]} if code else {}),
    }


def grid(toy: bool, limit_s: float) -> dict[str, Any]:
    """The cells of gpu_grid.toml until the time is over, and the records of those that are done."""
    data = "fashion" if is_there("fashion") or os.environ.get("FASHION_MNIST_DIR") else "photos32"
    text = (ROOT / "experiments" / "gpu_grid.toml").read_text(encoding="utf-8").replace("DATA", data)
    if toy:
        data = "digits"
        text = re.sub(r"(?s)\[base\].*?(?=\[\[cell\]\])", TOY_BASE, text).partition(
            '[[cell]]\nname = "10 % clean only'
        )[0]
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "grid.toml", Path(folder) / "out"
        path.write_text(text, encoding="utf-8")
        command = [
            sys.executable,
            "cli.py",
            "sweep",
            "run",
            str(path),
            "--runs",
            f"{folder}/runs",
            "--outdir",
            str(out),
        ]
        done = within([*command, "--device", "cpu" if toy else "cuda"], limit_s)
        results = sorted((Path(folder) / "runs").glob("*/result.json"))
        points = [
            {**record, "cell": read_json(file.parent / "manifest.json").get("cell")}
            for file in results
            for point in read_json(file)["points"]
            for record in point["records"]
        ]
    kept = ("cell", "n_clean", "n_noisy", "sigma", "metric", "extractor", "value", "duration_nimg", "wall_s")
    return {
        "data": data,
        "exit_code": done["exit_code"],
        "wall_s": done["wall_s"],
        "cells_done": len(results),
        "records": [{k: r[k] for k in kept if k in r} for r in points if r.get("level") is None],
        **({"tail": done["tail"][-1000:]} if not results else {}),
    }


TOY_BASE = """[base]
preset = "digits"
max_images = 64
batch = 16
duration = 64
network = { model_channels = 4, channel_mult = [1, 2], emb_channels = 8 }
evaluation = { n = 40, extractors = ["pixels"], metrics = ["fd"], denoise = 0 }

"""

if __name__ == "__main__":
    sys.exit(main())
