"""On a GPU: which memory format, precision and compilation is faster, at which loss."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from bench.measure import MIB, Row, seconds, wait
from bench.rows.step_rows import Step
from bench.trees import Tree
from common.arms import BASELINE

ARMS = [BASELINE, "rotation", "jigsaw"]  # finetuning, whole volumes, small patches
LOSS_STEPS = 20  # steps from the same start and cases, after which losses are compared
BURST = 0.5      # seconds of steps between two waits for the device: as in training, steps queue up
MOST = 16        # steps of a burst at most


@dataclass(frozen=True)
class Option:
    """One way to run a training step."""

    name: str
    precision: str
    channels_last: bool
    mode: str | None = None  # of torch.compile


@dataclass(frozen=True)
class Taken:
    """What a step was measured to take under one option."""

    batch: int
    step: float          # seconds
    validation: float    # seconds a validation case
    loss: float          # mean of the last steps; the same start and cases under every option
    peak: float | None   # MiB of GPU memory; None on the CPU


PLAIN = [Option("float32, contiguous", "float32", channels_last=False),
         Option("float32, channels_last", "float32", channels_last=True),
         Option("bfloat16, contiguous", "bfloat16", channels_last=False),
         Option("bfloat16, channels_last", "bfloat16", channels_last=True)]
OPTIONS = [*PLAIN,
           Option("bfloat16, contiguous, compiled", "bfloat16", channels_last=False,
                  mode="default"),
           Option("bfloat16, channels_last, compiled", "bfloat16", channels_last=True,
                  mode="default"),
           Option("bfloat16, channels_last, compiled with CUDA graphs", "bfloat16",
                  channels_last=True, mode="reduce-overhead")]


def rows(tree: Tree, rounds: int, told: Callable[[Row], None],
         options: list[Option] | None = None) -> None:
    """Tell a row for every arm and option, beside float32 contiguous."""
    for arm in ARMS:
        first: float | None = None
        for option in OPTIONS if options is None else options:
            found = _row(tree, arm, option, rounds, first)
            first = first or found.ours
            told(found)


def _row(tree: Tree, arm: str, option: Option, rounds: int, first: float | None) -> Row:
    """One option; what cannot be compiled or does not fit is a row that says so."""
    what = f"option, {'finetune' if arm == BASELINE else arm}: {option.name}"
    try:
        taken = timed(tree, arm, option, rounds=rounds, steps=LOSS_STEPS)
    except Exception as error:  # whatever a compiler raises is the finding
        return Row(what, None, None, "s", note=f"failed: {reason(error)}")
    finally:
        freed(tree.cases.device)
    peak = taken.peak or 0.0
    return Row(what, taken.step, first, "s", note=f"loss {taken.loss:.4f} after {LOSS_STEPS} steps"
               + (f"; peak {peak:.0f} MiB" if peak else ""),
               details={"loss": taken.loss, "peak_mib": peak})


def timed(tree: Tree, arm: str, option: Option, *, rounds: int, steps: int) -> Taken:
    """Take ``steps`` steps for the loss, then time bursts of steps and a validation batch.

    The first step is in neither figure: kernels are tried out and compiled in it.
    """
    device = tree.cases.device
    last = torch.channels_last_3d if tree.study.dimensions == 3 else torch.channels_last
    form = last if option.channels_last else torch.contiguous_format
    changed = replace(tree, study=replace(tree.study, precision=option.precision))

    def ready(model: nn.Module) -> Any:
        model.to(memory_format=form)
        return torch.compile(model, mode=option.mode) if option.mode else model
    step = Step(changed, arm, compiled=ready)
    torch.manual_seed(0)
    losses = [step()]
    wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    losses += [step() for _ in range(steps - 1)]
    wait(device)
    once = (time.perf_counter() - began) / (steps - 1)
    loss = float(torch.stack(losses[-5:]).mean())
    peak = torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else None
    burst = max(1, min(MOST, int(BURST / once)))
    taken, validated = seconds(device, rounds, lambda: [step() for _ in range(burst)],
                               step.validate)
    size = step.recipe.batch_size
    return Taken(size, taken / burst, validated / size, loss, peak)


def freed(device: torch.device) -> None:
    """Forget compiled code and give back memory, so that the next option starts afresh."""
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def reason(error: Exception) -> str:
    """An error in one short line."""
    return " ".join(str(error).split())[:150] or type(error).__name__
