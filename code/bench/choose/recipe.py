"""What is each item of the finetuning recipe worth? The baseline with each switched off.

    python code/bench/choose/recipe.py 3d --out results/published/recipe/hippocampus.md \\
        -- --data FOLDER --fractions 5 100 --seeds 10 11 12 13 14 ...

Flags behind -- are those of the tree's exp.py. On validation alone, by the trials of --tune: no
test case is looked at. Runs lie in RESULTS/recipe/<item>; several shells share them, and what is
done is not done again. A table: score of the weights chosen on validation and of the last ones,
means over seeds; the spread over seeds; the recipe less the run without the item, paired by seed;
95 % intervals.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from scipy.stats import chi2
from scipy.stats import t as student

from bench import trees
from common.arms import BASELINE
from common.errors import exit_status
from common.files import write_text
from common.machine import devices
from common.runs import rates
from common.runs.study import Study
from common.schedule.plan import Job, finetuning
from common.schedule.workers import work_off
from common.settings import from_flags

WHOLE = "the recipe"
RATE = ["--finetune-schedule", "constant", "--finetune-ramp", "0"]
ITEMS = {  # what is left out -> flags; an item that is off anyway is left out of the table
    "3d": {WHOLE: [], "rate rises, then falls": RATE, "cross-entropy": ["--finetune-loss", "dice"],
           "augmentation": ["--augment-degrees", "0", "--augment-zoom", "0",
                            "--no-augment-intensity"],
           "a share of the volumes": ["--augment-share", "1"],  # every volume turned and scaled
           "no dropout": ["--finetune-dropout", ".5"]},
    "2d": {WHOLE: [], "rate rises, then falls": RATE, "mirrored": ["--augment-flips", "none"],
           "scaled": ["--augment-zoom", "0"], "turned": ["--augment-degrees", "0"],
           "light changed": ["--no-augment-intensity"]}}
for items in ITEMS.values():
    items["any of these"] = [flag for flags in items.values() for flag in flags]


def main() -> int:
    """Train what is not trained yet, then compare."""
    parser = trees.parser(__doc__)
    parser.add_argument("--out", type=Path, help="also write the table there")
    parser.add_argument("--only", nargs="+", metavar="ITEM", help="these items alone")
    asked, flags = trees.arguments(parser)
    items = {name: more for name, more in ITEMS[asked.tree].items()
             if name == WHOLE or not asked.only or name in asked.only}
    studies = {name: study_of(asked.tree, flags, name, more) for name, more in items.items()}
    whole = studies[WHOLE].settings
    left = {name: one for name, one in studies.items() if name == WHOLE
            or one.settings.of_stage("finetune") != whole.of_stage("finetune")}
    for one in left.values():
        place = devices.choose(one.settings.DEVICE, ranks=1)[0]
        if failures := work_off(one, jobs, [place], 1):
            print("\n".join(failures), file=sys.stderr)
            return 1
    text = table({name: {fraction: scores(one, fraction) for fraction in whole.FRACTIONS}
                  for name, one in left.items()})
    print(text)
    if asked.out:
        write_text(asked.out, text)
    return 0


def study_of(tree: str, flags: Sequence[str], name: str, more: Sequence[str]) -> Study:
    """The study of exp.py without an item, its runs in a folder of their own."""
    exp = trees.script(tree)
    settings = from_flags(vars(exp), [*flags, *more])
    folder = name.replace(",", "").replace(" ", "-")
    settings.RESULTS = str(Path(settings.RESULTS) / "recipe" / folder)
    settings.TASKS = [BASELINE]
    return trees.study_of(exp, settings, devices.choose(settings.DEVICE, ranks=1)[0])


def jobs(study: Study) -> list[Job]:
    """The baseline's runs at every fraction and seed, scored on validation alone."""
    s, own = study.settings, rates.of_constants(study.settings, BASELINE)
    return [finetuning(study, partial(study.trial_run, BASELINE, fraction, seed, own), BASELINE,
                       fraction, seed) for fraction in s.FRACTIONS for seed in s.SEEDS]


def scores(study: Study, fraction: int) -> np.ndarray:
    """Validation scores (seeds, 2): of the weights chosen there, and of the last."""
    own = rates.of_constants(study.settings, BASELINE)
    found = [study.trial_run(BASELINE, fraction, seed, own).scores()
             for seed in study.settings.SEEDS]
    return np.array([[one["val"][one["metric"]], one["last"]["val"][one["metric"]]]
                     for one in found], float)


def table(found: dict[str, dict[int, np.ndarray]]) -> str:
    """A fraction and an item a row."""
    lines = ["| labels | without | chosen weights | last weights | SD over seeds, last | "
             "the recipe less this, last |", "|---|---|---|---|---|---|"]
    for fraction in found[WHOLE]:
        for name, of in found.items():
            values = of[fraction]
            chosen, last = values.mean(0)
            gain = "" if name == WHOLE else _paired(found[WHOLE][fraction][:, 1] - values[:, 1])
            lines.append(f"| {fraction} % | {'nothing' if name == WHOLE else name} | {chosen:.3f} "
                         f"| {last:.3f} | {_deviation(values[:, 1])} | {gain} |")
    seeds = len(next(iter(found[WHOLE].values())))
    return "\n".join([*lines, "", f"{seeds} seeds, 95 % intervals, not adjusted.", ""])


def _deviation(values: np.ndarray) -> str:
    """The standard deviation with its interval, of normal scores."""
    df, square = len(values) - 1, float(values.var(ddof=1))
    low, high = (np.sqrt(df * square / chi2.ppf(at, df)) for at in (0.975, 0.025))
    return f"{np.sqrt(square):.3f} ({low:.3f} to {high:.3f})"


def _paired(values: np.ndarray) -> str:
    """The mean with its t interval."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.3f} ({values.mean() - half:+.3f} to {values.mean() + half:+.3f})"


if __name__ == "__main__":
    sys.exit(exit_status(main))
