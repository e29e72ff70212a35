"""How a network is carried out: in which precision, on how many threads, with which memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import nn

from ambient_theory.shared.errors import UsageError

FULL = ("fp32", "tf32")
"""Precisions of float32 numbers; they differ on GPUs, see `arithmetic`."""
REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Precisions below float32, in which networks compute by autocast; parameters stay in float32."""


def autocast(device: torch.device | str, precision: str) -> AbstractContextManager[object]:
    """The context in which a network computes in `precision`: fp32, tf32 (no change) | bf16 | fp16.

    What fp32 is on a GPU, `arithmetic` says.

    Raises UsageError for another one.
    """
    if precision in FULL:
        return contextlib.nullcontext()
    if precision not in REDUCED:
        raise UsageError(f"precision {precision!r} is not one of {', '.join((*FULL, *REDUCED))}")
    return torch.autocast(torch.device(device).type, REDUCED[precision])


@contextlib.contextmanager
def arithmetic(precision: str, *, deterministic: bool = False) -> Iterator[None]:
    """How float32 numbers are multiplied on a GPU inside, forward and backward: as they are in fp32, in matrix products
    and in convolutions (where cuDNN's own choice would be TF32), else rounded to TF32 first.

    deterministic: only operations whose results do not depend on the order in which parallel threads finish; torch
    raises RuntimeError for one that has no such form. Set before CUDA is first used: cuBLAS reads its part of it then.
    """
    tf32 = precision != "fp32"
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    was = torch.are_deterministic_algorithms_enabled(), convolutions.deterministic, convolutions.benchmark
    products.allow_tf32 = convolutions.allow_tf32 = tf32
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        convolutions.deterministic, convolutions.benchmark = True, False
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before
        if deterministic:
            torch.use_deterministic_algorithms(was[0])
            convolutions.deterministic, convolutions.benchmark = was[1:]


def one_thread_for_small(arch: str, device: torch.device | str) -> None:
    """Let PyTorch use one thread for the small network on a CPU: its operations are too short to be shared out.

    Other cores then serve other runs (`--workers`). Larger networks keep all threads.
    """
    if torch.device(device).type == "cpu" and arch == "SmallUNet":
        torch.set_num_threads(1)


def recompute_blocks(network: nn.Module) -> None:
    """Make a network keep no activations inside its blocks but recompute them in the backward pass.

    A quarter to a third more time for five to nine times less memory kept (measured at 32x32), and not one number
    changes (Chen et al. 2016, arXiv 1604.06174). network: a raw one or one inside an `EDMPrecond`. Raises UsageError
    for an architecture without such blocks.
    """
    raw = getattr(network, "model", network)
    if not hasattr(raw, "gradient_checkpointing"):
        raise UsageError(
            f"{type(raw).__name__} has no blocks whose activations could be recomputed: it is small, or use a smaller "
            "micro-batch"
        )
    raw.gradient_checkpointing = True
