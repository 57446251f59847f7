"""What protocols of published codes make of the same encoders: steps by fraction, slow BatchNorm.

    python code/bench/protocol.py 2d -- --data FOLDER --fractions 5 10 --seeds 0 1 2 ...

Flags behind -- are those of the tree's exp.py. Finetunes its arms, from the encoders that lie in
RESULTS (or trains them there), in three ways: as exp.py does; with --no-equal-steps, where 5 % of
the labels also get a twentieth of the steps; and with BatchNorm's momentum at .01 beside, so that a
baseline's running statistics are still near their initial values after few steps. Prints scores and
paired differences to the baseline, and beside them the validation score averaged over the whole run
(as one code plotted it), which rewards whoever learns sooner. One process; at small fractions the
second and third way cost a fraction of the first.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from torch.nn.modules.batchnorm import _BatchNorm

from bench import trees
from common.arms import BASELINE, is_control
from common.errors import InputError, exit_status
from common.files import write_json
from common.machine import devices
from common.report.tables import shown
from common.runs import grid
from common.runs.records import cases_of, read_runs, validations
from common.runs.study import Study
from common.settings import from_flags
from common.stats.estimates import Design, mean
from common.stats.family import compare as compared


@dataclass(frozen=True)
class Way:
    """A protocol; its runs lie in ``folder`` below RESULTS."""

    name: str
    folder: str
    equal_steps: bool
    momentum: float | None = None  # of every BatchNorm layer; None: the networks' own


WAYS = (Way("equal steps", "", equal_steps=True),
        Way("steps by fraction", "protocol-steps", equal_steps=False),
        Way("and slow BatchNorm", "protocol-steps-slow", equal_steps=False,
            momentum=0.01))  # the paper's code, in PyTorch's meaning


def main() -> int:
    """Finetune in all three ways, then compare every arm with its baseline."""
    asked, flags = trees.arguments(trees.parser(__doc__))
    studies = [study_of(asked.tree, way, flags) for way in WAYS]
    device = devices.choose(studies[0].settings.DEVICE, ranks=1)[0]
    for way, study in zip(WAYS, studies, strict=True):
        lend_encoders(studies[0], study)
        with batchnorm(way.momentum):
            if grid.run(study, [device], 1):
                return 1
        write_json(study.folder / "protocol.json", asdict(way))
    print("| way | labels | task | test score | difference to the baseline | validation, mean over "
          "the run |\n|---|---|---|---|---|---|")
    for way, study in zip(WAYS, studies, strict=True):
        compare(study, way)
    return 0


def study_of(tree: str, way: Way, flags: list[str]) -> Study:
    """The study of exp.py under another protocol, with its runs in a folder of their own."""
    exp = trees.script(tree)
    settings = from_flags(vars(exp), flags)
    if BASELINE not in settings.TASKS:
        raise InputError(f"--tasks: no {BASELINE} among them, with which the others are compared")
    settings.EQUAL_STEPS = way.equal_steps
    settings.RANKS_PER_RUN = 1  # BatchNorm is changed in this process only
    settings.RESULTS = str(Path(settings.RESULTS) / way.folder)
    return trees.study_of(exp, settings, devices.choose(settings.DEVICE, ranks=1)[0])


def lend_encoders(study: Study, other: Study) -> None:
    """Copy what was pretrained, so that only finetuning differs."""
    if study is not other and (study.folder / "pretrain").exists():
        shutil.copytree(study.folder / "pretrain", other.folder / "pretrain", dirs_exist_ok=True)


@contextmanager
def batchnorm(momentum: float | None) -> Iterator[None]:
    """Every BatchNorm layer built within has this momentum, if one is given."""
    plain = _BatchNorm.__init__

    def changed(self: _BatchNorm, *sizes: Any, **options: Any) -> None:
        plain(self, *sizes, **options)
        self.momentum = self.momentum if momentum is None else momentum

    _BatchNorm.__init__ = changed  # type: ignore[method-assign]
    try:
        yield
    finally:
        _BatchNorm.__init__ = plain  # type: ignore[method-assign]


def compare(study: Study, way: Way) -> None:
    """Print every arm's score and its paired difference to the baseline, as rows of a table."""
    measure = trees.headline(study)
    s = study.settings
    arms = {key: {seed: arm[seed] for seed in s.SEEDS if seed in arm}
            for key, arm in cases_of(read_runs(study.folder, "finetune")).items()}
    for fraction in sorted(s.FRACTIONS):
        here = {task: arms[task, fraction] for task in s.TASKS}
        design = Design(s.FOLDS, fraction)
        family = compared(measure, here, BASELINE, design, controls=[*filter(is_control, here)])
        for task in s.TASKS:
            score = shown(mean(measure, here[task], design))
            change = family.differences.get(task)
            gain = shown(change, sign=True) if change else ""
            print(f"| {way.name} | {fraction} % | {task} | {score} | {gain} | "
                  f"{over_the_run(study, task, fraction, measure.name):.3f} |")


def over_the_run(study: Study, task: str, fraction: int, name: str) -> float:
    """Validation score, mean over all validations and seeds."""
    return float(np.mean([value for seed in study.settings.SEEDS for _, value in validations(
        study.finetune_run(task, fraction, seed).folder, name)]))


if __name__ == "__main__":
    sys.exit(exit_status(main))
