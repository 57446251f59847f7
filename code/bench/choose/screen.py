"""Which arms are worth a study? Every arm's gain on validation, and whether its task was learnt.

    python code/bench/choose/screen.py 3d --out results/published/screening/nodules.md \\
        -- --data FOLDER --fractions 2 5 --seeds 20 21 --draws 4 \\
        -- --tasks baseline rotation rpl --pretext-steps 1000 -- --tasks mae --pretext-steps 5000

Flags behind the first -- are those of the tree's exp.py; each further -- begins a group of arms
with more flags of its own. An arm has the rates that --tune has chosen for it, if there are some.
Each encoder is finetuned on DRAWS labelled subsets at every fraction. Scored on
validation alone: no test case is looked at, so that arms may be chosen by it. Runs lie in
RESULTS/screen; several shells share them, and what is done is not done again.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import mean
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from bench import trees
from common.arms import BASELINE
from common.errors import InputError, exit_status
from common.files import starting, write_text
from common.machine import devices
from common.report.reading import LEARNT
from common.runs import records
from common.runs.study import Study
from common.schedule import grid
from common.schedule.mending import check_stale, mend
from common.schedule.plan import Job, finetuning, in_order, pretrainings, step_bytes
from common.schedule.workers import work_off
from common.settings import from_flags


def main() -> int:
    """Train what is not trained yet, then compare."""
    parser = trees.parser(__doc__)
    parser.add_argument("--out", type=Path, help="also write the table there")
    asked, flags = trees.arguments(parser)
    exp = trees.script(asked.tree)
    studies = [_study(exp, group) for group in groups(flags)]
    arms = {arm: study for study in studies for arm in study.settings.TASKS}
    if BASELINE not in arms:
        raise InputError(f"TASKS: the {BASELINE} is missing, which the others are compared with")
    for study in studies:
        place = devices.choose(study.settings.DEVICE, ranks=1)[0]
        with starting(study.folder):
            mend(jobs(study))
            check_stale(jobs(study), rerun=study.settings.RERUN)
        workers = devices.workers(study.settings, [place], step_bytes(study))
        if failures := work_off(study, jobs, [place], workers):
            print("\n".join(failures), file=sys.stderr)
            return 1
    text = table(arms)
    print(text)
    if asked.out:
        write_text(asked.out, text)
    return 0


def groups(flags: Sequence[str]) -> list[list[str]]:
    """Flags for all, then behind each -- those of a group: every group's flags, in full."""
    ends = [at for at, flag in enumerate(flags) if flag == "--"]
    parts = [list(flags[begin + 1:end]) for begin, end in pairwise([-1, *ends, len(flags)])]
    return [[*parts[0], *more] for more in parts[1:] or [[]]]


def _study(exp: ModuleType, flags: Sequence[str]) -> Study:
    """A group's study: the whole pool, nothing primary, the rates of the study itself."""
    settings = from_flags(vars(exp), flags)
    settings.POOL, settings.PRIMARY = [100], []
    place = devices.choose(settings.DEVICE, ranks=1)[0]
    chosen = grid.rated(trees.study_of(exp, settings, place)).rates
    settings.RESULTS = str(Path(settings.RESULTS) / "screen")
    return replace(trees.study_of(exp, settings, place), rates=chosen)


def jobs(study: Study) -> list[Job]:
    """Every arm's pretraining, and its finetunings scored on validation."""
    s = study.settings
    return in_order([*pretrainings(study), *(
        finetuning(study, partial(study.trial_run, arm, fraction, seed, study.rates_of(arm),
                                  draw=draw), arm, fraction, seed)
        for arm in s.TASKS for fraction in s.FRACTIONS for seed in s.SEEDS
        for draw in range(s.DRAWS))])


def scores(study: Study, arm: str, fraction: int) -> np.ndarray:
    """Validation scores of an arm, (seeds, draws), of the weights chosen there."""
    s = study.settings
    found = [[study.trial_run(arm, fraction, seed, study.rates_of(arm), draw=draw).scores()
              for draw in range(s.DRAWS)] for seed in s.SEEDS]
    return np.array([[one["val"][one["metric"]] or 0.0 for one in row] for row in found], float)


def learnt(study: Study, arm: str) -> tuple[str, float | None]:
    """Whether an arm's task was learnt, and the seconds that its pretraining took, in the mean."""
    if not study.pretrained_here(arm):
        return "", None
    runs = [study.pretrain_run(arm, seed) for seed in study.settings.SEEDS]
    found = [run.scores() for run in runs]
    seconds = mean(sum(line["seconds"] for line in records.read_log(run.folder, "time"))
                   for run in runs)
    names = list(found[0]["score"])
    if not names:
        return f"loss {mean(one['loss'] for one in found):.3f}", seconds
    said = []
    for name in names:
        value = mean(one["score"][name] for one in found)
        chance = mean(one["chance"][name] for one in found) if found[0]["chance"] else None
        if chance is None:
            said.append(f"{name} {value:.3f}")
            continue
        known = "" if value - chance >= LEARNT * (1 - chance) else ", **not learnt**"
        said.append(f"{name} {value:.3f} (chance {chance:.3f}{known})")
    return ", ".join(said), seconds


def table(arms: Mapping[str, Study]) -> str:
    """An arm a row; the best at the smallest fraction first."""
    study = arms[BASELINE]
    s = study.settings
    base = {fraction: scores(study, BASELINE, fraction) for fraction in s.FRACTIONS}
    gains = {arm: [scores(own, arm, fraction) - base[fraction] for fraction in s.FRACTIONS]
             for arm, own in arms.items() if arm != BASELINE}
    heads = [f"less the baseline at {fraction} % (SE)" for fraction in s.FRACTIONS]
    lines = [f"| arm | task | {' | '.join(heads)} | seconds of pretraining |",
             "|---|---|" + "---|" * (len(heads) + 1),
             f"| {BASELINE} | | " + " | ".join(f"{base[fraction].mean():.3f} itself"
                                               for fraction in s.FRACTIONS) + " | |"]
    for arm, found in sorted(gains.items(), key=lambda one: -one[1][0].mean()):
        task, seconds = learnt(arms[arm], arm)
        lines.append(f"| {arm} | {task} | " + " | ".join(map(_cell, found))
                     + f" | {'' if seconds is None else f'{seconds:.0f}'} |")
    count = len(s.SEEDS) * s.DRAWS
    return "\n".join([*lines, "", f"{study.dataset}; {len(study.splits.val)} validation cases, "
                      f"{count} pairs ({len(s.SEEDS)} seeds, each with its encoder, x {s.DRAWS} "
                      "labelled subsets). SE: of the mean of the pairs, as if each had its own "
                      "encoder; not adjusted for looking at several arms.", ""])


def _cell(gains: np.ndarray) -> str:
    pairs = gains.flatten()
    error = pairs.std(ddof=1) / np.sqrt(len(pairs)) if len(pairs) > 1 else float("nan")
    return f"{pairs.mean():+.3f} ({error:.3f})"


if __name__ == "__main__":
    sys.exit(exit_status(main))
