"""What `make bench` measured, in short: benchmarks/latest.json to experiments/bench.json and docs/speed.md.

python experiments/bench.py [benchmarks/latest.json]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from marked_page import MarkedPage

from ambient_theory.shared.files import atomic_write_text, read_json

ROOT = Path(__file__).parents[1]
OUT, PAGE = ROOT / "experiments" / "bench.json", ROOT / "docs" / "speed.md"
MARKED = MarkedPage(PAGE, "bench.py")
STEP = "test_cifar10_ddpmpp_step"
LOADER = "test_noisy_batches_at_32x32_beside_making_their_noise_again"
RATIOS: tuple[tuple[str, str, str], ...] = (
    ("DDPM++ step, fp32 over bf16", f"{STEP}[fp32]", f"{STEP}[bf16]"),
    (
        "noisy batches at 32x32, noise made again over kept",
        LOADER,
        "",
    ),
    ("step with the consistency loss over a plain one", "test_a_step_beside_a_plain_one[consistency]", ""),
    ("step of the distillation over a plain one", "test_a_step_beside_a_plain_one[distillation]", ""),
    ("posterior sample over a generated image", "test_a_posterior_sample_beside_a_generated_image", ""),
)
"""(what, benchmark, the one whose time divides its; "" where the benchmark has a ratio of its own)."""


def condensed(latest: dict[str, Any]) -> dict[str, Any]:
    """Medians and counts by benchmark, and the machine in words; of the machine nothing that names it."""
    cpu = latest["machine_info"]["cpu"]
    machine = {
        "cpu": cpu.get("brand_raw"),
        "cores": os.cpu_count(),
        "python": latest["machine_info"]["python_version"],
        "torch": __import__("torch").__version__,
        "load": round(os.getloadavg()[0], 2),
        "busy": os.getloadavg()[0] > 0.5,
    }
    entries = {
        b["name"]: {
            "median_s": b["stats"]["median"],
            "rounds": b["stats"]["rounds"],
            "extra": b["extra_info"],
            "file": b["fullname"].partition("::")[0],
        }
        for b in latest["benchmarks"]
    }
    return {"schema": "ambient.bench/1", "when": latest["datetime"][:10], "machine": machine, "benchmarks": entries}


def table(found: dict[str, Any]) -> str:
    """The marked lines of docs/speed.md: ratios within the run, then counts of a step."""
    entries, machine = found["benchmarks"], found["machine"]
    out = ["| what | ratio | command |", "|---|---|---|"]
    for what, name, under in RATIOS:
        if name not in entries or (under and under not in entries):
            continue
        own = entries[name]
        value = own["median_s"] / entries[under]["median_s"] if under else own["extra"]["ratio"]
        out.append(f"| {what} | {value:.3g} | `pytest --benchmark-only {own['file']}` |")
    out += ["", "| a step of | host waits | launches | bytes sent | images |", "|---|---|---|---|---|"]
    for name, entry in entries.items():
        if "host_syncs" in (extra := entry["extra"]):
            preset = name.partition("[")[2].partition("-")[0]
            cells = (extra["host_syncs"], extra["launches"], extra["sent_bytes"], extra["batch"])
            out.append(f"| `{preset}` | {' | '.join(f'{c:,}' for c in cells)} |")
    loader = entries.get(LOADER)
    if loader:
        out += ["", f"Noisy batches at 32x32 come at {loader['extra']['images_per_s']:,.0f} images a second."]
    busy = (
        f"other work ran beside it (load {machine['load']:g} on {machine['cores']} cores)"
        if machine["busy"]
        else "idle"
    )
    out += ["", f"Measured on {machine['cpu']}, one thread, torch {machine['torch']}, {found['when']}; {busy}."]
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks" / "latest.json"
    result = condensed(read_json(source))
    atomic_write_text(OUT, json.dumps(result, indent=1) + "\n")
    MARKED.write(table(result))
