"""What does a training step spend its time on, and how near is it to what the machine can do?

    python code/bench/grid/steps.py          small networks on one CPU thread, half a minute

Every arm's step as exp.py takes it, on generated cases: its seconds, its FLOPs by counting those of
convolutions and matrix products, their rate beside that of a large matrix product in the same run,
and the shares of its parts by torch's profiler.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bench import trees
from bench.measure import Sizes, flops, matrix_rate, seconds
from bench.rows.step_rows import Step
from bench.speed import SIZES
from common.arms import BASELINE
from common.errors import exit_status
from common.machine import limits

FLAGS = {"3d": ("--resolution", "32", "--levels", "2", "--filters", "8"),
         "2d": ("--resolution", "96", "--blocks", "2", "4", "4", "2", "--growth", "16")}
ARMS = {"3d": (BASELINE, "rotation", "rpl", "volumefusion"), "2d": (BASELINE, "vicreg")}
STEPS = 5        # under the profiler
BATCH = "batch"  # of what makes the views of a step, for the profiler
PARTS = {        # by what the names of torch's operations contain; the first that fits
    "convolutions": ("convolution", "conv3d", "conv_transpose"),
    "BatchNorm": ("batch_norm",),
    "ReLU, pooling, joining": ("threshold", "clamp", "relu", "pool", "cat"),
    "Adam": ("adam", "optimizer"),
}


class Found(NamedTuple):
    """A step: seconds, floating-point operations, and the share of each part."""

    seconds: float
    flop: float
    shares: Mapping[str, float]


def main() -> int:
    """Measure the steps of both trees and print the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tree", choices=sorted(ARMS), nargs="+", default=["3d", "2d"])
    parser.add_argument("--smoke", action="store_true", help="tiny, to see whether it runs")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    limits.keep_memory()  # as every run of exp.py on the CPU
    device = torch.device("cpu")
    rate = matrix_rate(device, torch.float32)
    with tempfile.TemporaryDirectory() as name:
        opened = {tree: _opened(tree, Path(name), device, smoke=asked.smoke)
                  for tree in asked.tree}
        print(f"One thread; a matrix product of float32: {rate / 1e9:.0f} GFLOP/s.\n\n"
              f"| step | ms | GFLOP | GFLOP/s | of the product's | making the batch | "
              f"{' | '.join(PARTS)} | rest |\n|{'---|' * (len(PARTS) + 7)}", flush=True)
        for tree, arm in [(one, arm) for one in asked.tree for arm in ARMS[one]]:
            print(line(f"{tree}, {arm}", measured(opened[tree], arm, asked.rounds), rate),
                  flush=True)
    return 0


def _opened(tree: str, folder: Path, device: torch.device, *, smoke: bool) -> trees.Tree:
    flags = (*FLAGS[tree], "--precision", "float32")
    small: Sizes = SIZES["smoke"]
    if tree == "3d":
        sizes = small if smoke else Sizes(**{**vars(small), "volumes": flags})
        return trees.open_3d(folder / tree, device, sizes)
    sizes = small if smoke else Sizes(**{**vars(small), "photographs": flags})
    return trees.open_2d(folder / tree, device, sizes)


def measured(tree: trees.Tree, arm: str, rounds: int) -> Found:
    """Time a step, count its operations, and divide it into parts."""
    step = Step(tree, arm)
    taken = seconds(tree.cases.device, rounds, step)[0]
    return Found(taken, flops(step), shares(step))


def shares(step: Step) -> dict[str, float]:
    """The share of each part of a step's time on the CPU: making the batch, PARTS, the rest."""
    with _marked(step), profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            step()
    events = profiler.key_averages()
    whole = sum(event.self_cpu_time_total for event in events)
    made = next(event.cpu_time_total for event in events if event.key == BATCH)
    found = {"making the batch": made / whole, **dict.fromkeys(PARTS, 0.0)}
    for event in events:
        name = event.key.lower()
        part = next((part for part, words in PARTS.items()
                     if any(word in name for word in words)), None)
        if part is not None and not name.startswith("autograd::"):
            found[part] += event.self_cpu_time_total / whole
    return {**found, "rest": max(0.0, 1 - sum(found.values()))}


@contextmanager
def _marked(step: Step) -> Any:
    """Within, what a step does before the network is known to the profiler as BATCH."""
    def under(job: Callable[..., Any]) -> Callable[..., Any]:
        def done(*given: Any, **named: Any) -> Any:
            with record_function(BATCH):
                return job(*given, **named)
        return done
    with patch.object(step.task, "prepare", under(step.task.prepare)):
        yield


def line(name: str, found: Found, rate: float) -> str:
    """A row of the table."""
    speed = found.flop / found.seconds
    cells = [name, f"{1e3 * found.seconds:.0f}", f"{found.flop / 1e9:.1f}", f"{speed / 1e9:.0f}",
             f"{100 * speed / rate:.0f} %", *(f"{100 * share:.0f} %"
                                              for share in found.shares.values())]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(exit_status(main))
