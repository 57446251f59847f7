"""Would other settings change what pretraining gives? Scores on validation only, none on test.

    python code/bench/choose/tries.py 2d --try start-lr-factor=.1 --try pretext-lr=3e-4 \\
        -- --data FOLDER --tasks baseline rotation --fractions 5 10 --seeds 0 1 2 ...

Flags behind -- are those of the tree's exp.py; every --try changes some of them, without dashes.
Runs lie in RESULTS (as exp.py makes them) and RESULTS/tries/<what was changed>;
encoders that a try leaves as they are are lent to it. Prints, for every arm, its validation score
over the second half of the steps (one validation alone is noisy) and the best one, and of the
former the difference to the baseline under the same settings. One process.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from bench import trees
from common.arms import BASELINE
from common.errors import InputError, exit_status
from common.files import read_json, write_json
from common.machine import devices
from common.runs.records import validations
from common.runs.study import Study
from common.schedule import grid
from common.settings import from_flags

AS_GIVEN = "as given"


@dataclass(frozen=True)
class Try:
    """What is changed of the given settings, and the study that this makes."""

    name: str
    study: Study


def main() -> int:
    """Train under every setting, then compare on validation."""
    parser = trees.parser(__doc__)
    parser.add_argument("--try", dest="tries", action="append", default=[],
                        metavar="NAME=VALUE[,...]", help="flags of exp.py to change; repeatable")
    asked, flags = trees.arguments(parser)
    tries = [make(asked.tree, flags, text) for text in ("", *asked.tries)]
    first = tries[0].study
    device = devices.choose(first.settings.DEVICE, ranks=1)[0]
    for one in tries:
        if one.study.settings.of_stage("pretrain") == first.settings.of_stage("pretrain"):
            lend_encoders(first, one.study)
        if grid.run(one.study, [device], 1):
            return 1
        if one.study is not first:
            write_json(one.study.folder / "try.json", {"changed": one.name})
    print("| changed | labels | task | pretext | validation, second half | best | "
          "less the baseline's | by seed |\n|---|---|---|---|---|---|---|---|")
    for one in tries:
        compare(one)
    return 0


def make(tree: str, flags: list[str], text: str) -> Try:
    """The study of exp.py with what ``text`` changes; InputError for what it cannot be."""
    changed = dict(pair.partition("=")[::2] for pair in text.split(",") if pair)
    exp = trees.script(tree)
    settings = from_flags(vars(exp), [*flags, *(word for name, value in changed.items()
                                                for word in (f"--{name}", value))])
    if BASELINE not in settings.TASKS:
        raise InputError(f"--tasks: no {BASELINE} among them, with which the others are compared")
    if text:
        settings.RESULTS = str(Path(settings.RESULTS) / "tries" / text)
    device = devices.choose(settings.DEVICE, ranks=1)[0]
    return Try(text or AS_GIVEN, trees.study_of(exp, settings, device))


def lend_encoders(study: Study, other: Study) -> None:
    """Copy what was pretrained, so that only finetuning differs."""
    if study is not other and (study.home / "pretrain").exists():
        shutil.copytree(study.home / "pretrain", other.home / "pretrain", dirs_exist_ok=True)


def compare(one: Try) -> None:
    """Print every arm's validation scores, as rows of a table."""
    s, measure = one.study.settings, trees.headline(one.study).name
    for fraction in sorted(s.FRACTIONS):
        scores = {task: np.array([second_half_and_best(one.study, task, fraction, seed, measure)
                                  for seed in s.SEEDS]) for task in s.TASKS}
        for task in s.TASKS:
            half, best = scores[task].mean(0)
            gains = scores[task][:, 0] - scores[BASELINE][:, 0]
            shown = ("|" if task == BASELINE else f"{gains.mean():+.3f} | "
                     + " ".join(f"{gain:+.3f}" for gain in gains))
            print(f"| {one.name} | {fraction} % | {task} | {pretext(one.study, task)} | "
                  f"{half:.3f} | {best:.3f} | {shown} |")


def second_half_and_best(study: Study, task: str, fraction: int, seed: int,
                         name: str) -> tuple[float, float]:
    """A run's validation score, mean over its second half, and the highest."""
    values = [value for _, value in validations(
        study.finetune_run(task, fraction, seed).folder, name)]
    return float(np.mean(values[len(values) // 2:])), max(values)


def pretext(study: Study, task: str) -> str:
    """Pretext scores of every seed."""
    if not study.pretrained_here(task):
        return ""
    runs = [study.pretrain_run(task, seed).folder for seed in study.settings.SEEDS]
    return ", ".join("/".join(f"{value:.2f}" for value in read_json(run / "scores.json")[
        "score"].values()) for run in runs)


if __name__ == "__main__":
    sys.exit(exit_status(main))
