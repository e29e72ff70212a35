"""The page of the trainer's options, made from the dataclasses that declare them.

`make docs` writes it to docs/options.md, and behind it the section of `simulate-gmm`, which
`ambient_theory.simulation.options` makes: neither package imports the other's.
"""

from __future__ import annotations

from ambient_theory.shared.options import options_table
from ambient_theory.shared.output import Output
from ambient_train.data.estimation.options import NoiseOptions
from ambient_train.data.prepare.options import CorruptOptions, DecodeOptions, PrepareOptions
from ambient_train.diffusion.sampler_settings import GeneralSamplerConfig, SamplerConfig
from ambient_train.settings.amounts import Amounts
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.evaluation import EvalConfig
from ambient_train.settings.files import (
    ArchiveFiles,
    CurveFiles,
    EvaluateFiles,
    ExportOptions,
    GenerateFiles,
    NoiseFiles,
    PictureFiles,
    PlanFiles,
    RestoreFiles,
    SweepFiles,
    TrainFiles,
    WorthFiles,
)
from ambient_train.settings.layers import NetworkFlags, Start
from ambient_train.settings.plan_options import GridStart, PlanOptions
from ambient_train.settings.requests import AtCheckpoint, GenerateOptions, Question
from ambient_train.settings.restore import RestoreOptions
from ambient_train.settings.run_options import LaunchOptions, PoolOptions, RunOptions, Schedule, SlurmOptions
from ambient_train.settings.worth import WorthOptions

SECTIONS: tuple[tuple[str, str, tuple[type, ...]], ...] = (
    (
        "Training",
        "`ambient train` and `ambient config show`; at the top of a config file, in `[base]` and `[[cell]]` of a grid.",
        (TrainConfig,),
    ),
    (
        "How many images, and from where to start",
        "As above. Shares or counts, not both; a noise level needs one of them.",
        (Amounts, Start, NetworkFlags),
    ),
    ("Duration", "As above. `duration` may grow: the same command then trains on.", (Schedule,)),
    (
        "Scores",
        "`ambient train` and, without `--best` and `--generate-at`, `ambient evaluate`; the table `evaluation` of a "
        "file. A run remembers them, and `ambient evaluate` and `ambient generate` start from what it remembers.",
        (EvalConfig,),
    ),
    ("Sampler", "As above; the table `evaluation.sampler` of a file.", (SamplerConfig,)),
    (
        "Sampler of EDM's ablation",
        "`ambient generate` and `ambient evaluate`. A choice that only this one has makes it the sampler.",
        (GeneralSamplerConfig,),
    ),
    ("Images", "`ambient generate`; not in files.", (GenerateOptions,)),
    ("What is scored", "`ambient evaluate`; not in files.", (Question,)),
    ("Restoration", "`ambient restore`; not in files.", (RestoreOptions, AtCheckpoint)),
    ("Machine and run", "`ambient train`; not in files, since they change neither weights nor scores.", (RunOptions,)),
    ("Processes", "`ambient train` and `ambient restore`; not in files.", (LaunchOptions,)),
    ("Sweep", "`ambient sweep run`; not in files.", (PoolOptions,)),
    ("Worth", "`ambient worth`; not in files.", (WorthOptions,)),
    ("A new grid", "`ambient sweep init`; not in files.", (GridStart,)),
    ("What to train next", "`ambient sweep plan --target price`; not in files.", (PlanOptions,)),
    ("Cluster", "`ambient sweep run --slurm`; not in files.", (SlurmOptions,)),
    ("Archives", "`ambient data prepare`; not in files.", (PrepareOptions, DecodeOptions)),
    ("Noise written down", "`ambient data corrupt`; not in files.", (CorruptOptions,)),
    ("Noise estimated", "`ambient data noise`; not in files.", (NoiseOptions, NoiseFiles)),
    ("Picture of data", "`ambient data show`; not in files.", (PictureFiles,)),
    ("What is printed", "Every command; not in files. Those that only list have no `--quiet`.", (Output,)),
    ("Files of a training", "`ambient train`; not in files.", (TrainFiles,)),
    ("Files of generated images", "`ambient generate`; not in files.", (GenerateFiles,)),
    ("Files of scores", "`ambient evaluate`; not in files.", (EvaluateFiles,)),
    ("Files of restored images", "`ambient restore`; not in files.", (RestoreFiles,)),
    (
        "Files of a sweep",
        "`ambient sweep run`; `ambient sweep status` and `ambient runs` have `--runs`; not in files.",
        (SweepFiles,),
    ),
    ("Files of a plan", "`ambient sweep plan`; not in files.", (PlanFiles,)),
    ("Files of a worth", "`ambient worth`; not in files.", (WorthFiles,)),
    ("Files of curves", "`ambient runs compare`; not in files.", (CurveFiles,)),
    ("Files of archives", "`ambient data prepare` and `ambient data corrupt`; not in files.", (ArchiveFiles,)),
    ("Export", "`ambient export`; not in files.", (ExportOptions,)),
)


def options_page() -> str:
    """Markdown with one table a section."""
    layers = "defaults < preset < file < flags, and in a grid `[base]` < `[[cell]]`; tables are merged key by key"
    parts = ["# Options\n", f"Made by `make docs` from the code. Precedence: {layers}.\n"]
    for title, where, classes in SECTIONS:
        parts += [f"## {title}\n", f"{where}\n", options_table(*classes, files="not in files" not in where)]
    return "\n".join(parts)


if __name__ == "__main__":
    print(options_page(), end="")
