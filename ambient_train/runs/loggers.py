"""`--log tensorboard | wandb`: what metrics.jsonl holds, and the scores, also in a logger that people watch.

metrics.jsonl is always written; a logger comes on top and is imported only when it is asked for. The step of
everything is the number of training images. Nothing is read back: a run continues from its own directory.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ambient_theory.shared.errors import UsageError, first_line
from ambient_theory.shared.files import content_hash
from ambient_theory.shared.records import HELDOUT_BEST, Record
from ambient_train.settings.files import LOGGERS


class Logger(Protocol):
    """Opened by `with` in the process that writes the run directory, after the directory is claimed."""

    def __enter__(self) -> Logger: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def metrics(self, line: Mapping[str, float]) -> None:
        """A line of metrics.jsonl."""

    def scores(self, nimg: int, records: Sequence[Record]) -> None:
        """The scores after `nimg` training images."""

    def rewind(self, nimg: int) -> None:
        """Training goes on from `nimg` images: what was logged beyond is void."""


def score_values(records: Sequence[Record]) -> dict[str, float]:
    """`score/<metric>/<extractor>/<reference>` -> value; by level `score/denoise/<level>/<reference>`.

    Scores of the held-out best checkpoint begin with `score-heldout-best/`.
    """
    out = {}
    for r in records:
        what = r.extractor.split(":")[0] if r.level is None else f"{r.level:.3g}"
        head = "score-heldout-best" if r.checkpoint == HELDOUT_BEST else "score"
        out[f"{head}/{r.metric}/{what}/{r.reference}"] = r.value
    return out


def train_values(line: Mapping[str, float]) -> dict[str, float]:
    """`train/<name>` -> value, of a line of metrics but for its image count."""
    return {f"train/{name}": value for name, value in line.items() if name != "nimg"}


class TensorBoardLogger:
    """Event files in `tensorboard/` of the run directory. A rewind purges later events (TensorBoard hides them)."""

    def __init__(self, path: Path, config: Mapping[str, Any]):
        self._folder = path / "tensorboard"
        self._writer: Any = None
        self._purge_step: int | None = None

    def __enter__(self) -> TensorBoardLogger:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def metrics(self, line: Mapping[str, float]) -> None:
        self._write(train_values(line), int(line["nimg"]))

    def scores(self, nimg: int, records: Sequence[Record]) -> None:
        self._write(score_values(records), nimg)

    def rewind(self, nimg: int) -> None:
        self.__exit__()
        self._purge_step = nimg + 1

    def _write(self, values: Mapping[str, float], nimg: int) -> None:
        if self._writer is None:
            module = importlib.import_module("torch.utils.tensorboard")
            self._writer = module.SummaryWriter(log_dir=str(self._folder), purge_step=self._purge_step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, global_step=nimg)
        self._writer.flush()


class WandbLogger:
    """A run of Weights & Biases in the project `ambient`, with files in `wandb/` of the run directory.

    Its identifier is a function of directory and config, so the same command continues the same run. The service
    ignores steps below those it has seen, so after a rewind the repeated part is not logged twice.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]):
        self._path, self._config = path, dict(config)
        self._run: Any = None

    def __enter__(self) -> WandbLogger:
        wandb = importlib.import_module("wandb")
        try:
            self._run = wandb.init(
                project="ambient",
                dir=str(self._path),
                name=self._path.name,
                id=content_hash([str(self._path.resolve()), self._config], 16),
                resume="allow",
                config=self._config,
            )
        except Exception as error:  # whatever the service has to say: no key, no network
            raise UsageError(
                f"--log wandb could not start ({first_line(error)}): log in, set WANDB_MODE=offline, or leave it out"
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        if self._run is not None:
            self._run.finish(exit_code=1 if error and error[0] is not None else 0)
            self._run = None

    def metrics(self, line: Mapping[str, float]) -> None:
        self._log(train_values(line), int(line["nimg"]))

    def scores(self, nimg: int, records: Sequence[Record]) -> None:
        self._log(score_values(records), nimg)

    def rewind(self, nimg: int) -> None:
        pass

    def _log(self, values: dict[str, float], nimg: int) -> None:
        self._run.log(values, step=nimg)


_MADE: tuple[tuple[Callable[[Path, Mapping[str, Any]], Logger], str, str], ...] = (
    (TensorBoardLogger, "torch.utils.tensorboard", "tb"),
    (WandbLogger, "wandb", "wandb"),
)
_KINDS = dict(zip(LOGGERS, _MADE, strict=True))


def check_loggers(names: Sequence[str]) -> None:
    """Raise UsageError for an unknown logger, or for one whose package is not installed, naming the extra."""
    for name in names:
        if name not in _KINDS:
            raise UsageError(f"--log {name!r} is not one of {', '.join(LOGGERS)}")
        _, module, extra = _KINDS[name]
        try:
            importlib.import_module(module)
        except ImportError:
            raise UsageError(
                f"--log {name} needs the package {name}, which is not installed: "
                f"pip install 'ambient-worth[{extra}]', or leave it out (metrics.jsonl is always written)"
            ) from None


def make_loggers(names: Sequence[str], path: Path, config: Mapping[str, Any]) -> list[Logger]:
    """The loggers of the run directory `path`, not opened yet. Raises as `check_loggers` does."""
    check_loggers(names)
    return [_KINDS[name][0](path, config) for name in dict.fromkeys(names)]
