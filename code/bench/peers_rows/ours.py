"""The project's own way: what exp.py does for one run of the baseline on all labels, all of it.

Left out are the scores in each scan's own grid, which the others do not have. Not left out are
those of the last weights, records and checkpoints, which they do not have either. It takes all
cores it is given for the one run, where exp.py gives each run one and trains several at a time.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench import trees
from bench.peers_rows.alike import opened
from bench.peers_rows.plan import Plan
from bench.peers_rows.usual import Watch
from common.arms import BASELINE
from common.machine import devices, limits
from common.runs import records
from common.runs.stages import finetuning, finish_finetuning, load_cases


def prepare(plan: Plan, watch: Watch) -> None:
    """Check, preprocess and split the cases, as exp.py does first."""
    exp = trees.script(plan.tree)
    with watch("seconds"):
        opened(exp, plan.flags, Path(plan.folder))


def run(plan: Plan, watch: Watch) -> float:
    """Train and test the run from what is cached; returns its test score."""
    device, exp = torch.device("cpu"), trees.script(plan.tree)
    with watch("data"):
        study = opened(exp, plan.flags, Path(plan.folder))
        study = replace(study, native=None)
        limits.keep_memory()  # as every run of exp.py on the CPU
        cases = load_cases(study, device)
    one = study.finetune_run(BASELINE, 100, plan.seed)
    one.start(records.provenance(str(device), plan.cores, devices.described(device)))
    with watch("loop"):
        fit = finetuning(study, one, cases, lambda steps: None)
        fit.validate = _watched(fit.validate, watch)  # type: ignore[method-assign]
        fit.start()
        while fit.due():
            fit.epoch()
    with watch("test"):
        finish_finetuning(study, fit)
    scores = one.scores()
    assert scores["steps"] == plan.steps and scores["test_cases"] == len(plan.cases["test"])
    return float(scores["test"][scores["metric"]])


def _watched(job: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    def watched(*given: Any) -> Any:
        with watch("validation"):
            return job(*given)
    return watched
