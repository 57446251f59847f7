"""On a GPU: which memory format, precision and compilation is faster, at which loss."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from measure import MIB, Row, seconds
from step_rows import Step
from torch import nn
from trees import Tree

from common.arms import BASELINE

ARMS = [BASELINE, "rotation", "jigsaw"]  # finetuning, whole volumes, small patches
LOSS_STEPS = 20  # steps from the same start and cases, after which losses are compared


@dataclass(frozen=True)
class Option:
    """One way to run a training step."""

    name: str
    precision: str
    channels_last: bool
    mode: str | None = None  # of torch.compile


OPTIONS = [Option("float32, contiguous", "float32", channels_last=False),
           Option("float32, channels_last_3d", "float32", channels_last=True),
           Option("bfloat16, contiguous", "bfloat16", channels_last=False),
           Option("bfloat16, channels_last_3d", "bfloat16", channels_last=True),
           Option("bfloat16, contiguous, compiled", "bfloat16", channels_last=False,
                  mode="default"),
           Option("bfloat16, channels_last_3d, compiled", "bfloat16", channels_last=True,
                  mode="default"),
           Option("bfloat16, channels_last_3d, compiled with CUDA graphs", "bfloat16",
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
        step, loss, peak = _timed(tree, arm, option, rounds)
    except Exception as error:  # whatever a compiler raises is the finding
        return Row(what, None, None, "s", note=f"failed: {' '.join(str(error).split())[:150]}")
    finally:
        torch._dynamo.reset()
        gc.collect()
        if tree.cases.device.type == "cuda":
            torch.cuda.empty_cache()
    return Row(what, step, first, "s", note=f"loss {loss:.4f} after {LOSS_STEPS} steps"
               + (f"; peak {peak:.0f} MiB" if peak else ""),
               details={"loss": loss, "peak_mib": peak})


def _timed(tree: Tree, arm: str, option: Option, rounds: int) -> tuple[float, float, float]:
    """Seconds a step, mean loss of the last five of LOSS_STEPS, and peak GPU memory in MiB."""
    device = tree.cases.device
    form = torch.channels_last_3d if option.channels_last else torch.contiguous_format
    changed = replace(tree, study=replace(tree.study, precision=option.precision))

    def ready(model: nn.Module) -> Any:
        model.to(memory_format=form)
        return torch.compile(model, mode=option.mode) if option.mode else model
    step = Step(changed, arm, compiled=ready)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    torch.manual_seed(0)
    losses = [step() for _ in range(LOSS_STEPS)]
    loss = float(torch.stack(losses[-5:]).mean())
    peak = torch.cuda.max_memory_allocated(device) / MIB if device.type == "cuda" else 0.0
    return seconds(device, rounds, step)[0], loss, peak
