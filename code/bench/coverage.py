"""Do the intervals hold? Simulated studies with known gains, through the code of the tables.

    python code/bench/coverage.py                 the whole table, minutes on one core
    python code/bench/coverage.py --studies 200   fewer studies a row

A simulated study has no gain anywhere. A score is a block's effect on all arms, plus what the arm
makes of its training cases, of chance and of its test cases; each part's share of the variance is
that of a Dice at 5 % of the hippocampus' labels or is varied. What is counted:

    single    how often the interval of one arm holds the truth (aim .94 to .97)
    family    how often any adjusted interval of the fraction misses it (aim at most .06 where arms
              vary alike, .10 where they do not)
    across    how often the interval of an arm at 5 % less the baseline on all labels holds it
    exchange  the same of exchange rates (exchange.py): three arms on known curves, at all fractions

Training sets that overlap: every case of the pool adds its own to a score, the more the fewer are
learnt from; "none" of a run's variance comes from that, or a quarter: Nadeau and Bengio's
correlation of .2 on all labels (estimates.py). With one fixed test set the training cases are taken
as given, and the truth is that of their average.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import exit_status
from common.files import ROOT, write_text
from common.stats.estimates import Design, Spread
from common.stats.exchange import BEYOND, points, rates
from common.stats.family import pool
from common.stats.measures import Floats, resamples
from common.stats.savings import ALL, across
from common.stats.worth import Value, worth

OUT = ROOT / "results/published/coverage/coverage.md"
STUDIES = 2000
CASES = 190               # labelled cases outside validation; a fifth is a test fold
FOLDS = 5
PER_FOLD = CASES // FOLDS
RUN, CASE = 0.009, 0.033  # SD of a run about arm and seed; over cases of a difference
BLOCK = 0.02              # SD of what a seed does to all arms alike
ALL_RUN = 0.004           # SD of the baseline on all labels, and of what a seed does there
QUARTER = 0.267           # of a run's variance: a correlation of .2, of sets that share 3 of 4
READ = """\
On all labels the seeds' training sets share three quarters of their cases. How much of a run's
spread comes from these cases no record of one fraction can tell (Bengio and Grandvalet 2004, No
Unbiased Estimator of the Variance of K-Fold Cross-Validation), so a quarter is allowed for; where
it is none, intervals there are up to 1.8 times as wide as needed. A bound from another fraction is
no better: if a case adds its own, what training cases share at any fraction is at most
(1 - 1 / (FOLDS - 1)) f times the variance at a small fraction f, which for the hippocampus at 5 %
is .22 of the variance on all labels, and Nadeau and Bengio's term is .25 of it.
"""
SEEDS, ARMS = (3, 5, 10), (1, 3, 7)
FRACTIONS = {5: 9.0, 10: 18.0, 25: 46.0, 50: 91.0, 100: 182.0}  # percent -> labelled cases
TARGET, ALIKE = 0.83, 0.6    # score looked up; correlation of a run's chance over fractions
CURVES = {"power law": lambda n, gain: 0.86 - 0.25 * (n * gain) ** -0.6,  # gain: labels count so
          "line": lambda n, gain: 0.75 + 0.02 * np.log(n * gain)}        # many times
GAINS = (1.0, 1.5, 2.0, 1.0)  # of the baseline and the arms
RATES = ("reach", "saved", "twice", "worth")
SPREADS = {"equal": 0.0, "log-SD .3": 0.3, "log-SD .5": 0.5}


@dataclass(frozen=True)
class Row:
    """One kind of study."""

    folds: int
    fraction: int   # percent
    trained: float  # share of a run's variance that comes from its training cases
    spread: float   # SD of the logarithm of the arms' spreads
    seeds: int
    arms: int

    @property
    def design(self) -> Design:
        """As the estimators are told."""
        return Design(self.folds, self.fraction)


@dataclass(frozen=True)
class Found:
    """Shares of simulated studies; the half intervals' median."""

    single: float
    family: float
    guarded: float
    half: float


def rows() -> Iterator[Row]:
    """Every kind that is looked at."""
    for folds, fraction, trained in ((1, 5, 0.0), (1, 5, QUARTER), (FOLDS, 5, 0.0),
                                     (FOLDS, 5, QUARTER), (FOLDS, 100, 0.0),
                                     (FOLDS, 100, QUARTER)):
        for spread in SPREADS.values():
            for seeds in SEEDS:
                for arms in ARMS:
                    yield Row(folds, fraction, trained, spread, seeds, arms)


def simulate(row: Row, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Scores (1 + arms, seeds), SE over cases (arms), and the truth (arms) of one study."""
    scale = np.exp(rng.normal(0, row.spread, (row.arms + 1, 1)))
    of_case = CASE / 2**0.5 * rng.normal(size=(row.arms + 1, CASES))
    of_fold = of_case.reshape(-1, FOLDS, PER_FOLD)
    tested = [seed % row.folds for seed in range(row.seeds)]
    variance = RUN**2 + (CASE**2 / 2 / PER_FOLD if row.folds > 1 else 0.0)
    adds = (row.trained * variance) ** 0.5 * rng.normal(size=(row.arms + 1, CASES))
    chance = max(0.0, RUN**2 - row.trained * variance) ** 0.5
    learnt = []
    for fold in tested:
        train = np.delete(np.arange(CASES), np.s_[fold * PER_FOLD:(fold + 1) * PER_FOLD])
        number = max(2, round(row.fraction / 100 * len(train)))
        labelled = train if row.fraction == 100 else rng.choice(train, number, replace=False)
        learnt.append(adds[:, labelled].mean(axis=1) * number**0.5)
    scores = scale * (np.stack(learnt, axis=1)
                      + chance * rng.normal(size=(row.arms + 1, row.seeds)))
    scores += of_fold.mean(axis=2)[:, tested] + BLOCK * rng.normal(size=row.seeds)
    paired = of_fold[1:, 0] - of_fold[:1, 0]
    truth = np.zeros(row.arms)
    if row.folds == 1:  # the training cases are given: the truth is the mean over their subsets
        given = scale[:, 0] * adds[:, PER_FOLD:].mean(axis=1) * number**0.5
        truth = given[1:] - given[0]
    return scores, paired.std(axis=1, ddof=1) / PER_FOLD**0.5, truth


def count(row: Row, studies: int, seed: int = 0) -> Found:
    """Simulate studies of a kind and count."""
    rng = np.random.default_rng([seed, row.folds, row.fraction, row.seeds, row.arms,
                                 round(1000 * row.trained), round(1000 * row.spread)])
    single = family = guarded = 0.0
    halves = []
    for _ in range(studies):
        scores, over_cases, truth = simulate(row, rng)
        seeds, design = range(row.seeds), row.design
        pooled = pool(scores, seeds, design)
        assert pooled is not None
        blocks = design.averaged(scores, seeds)
        error = np.abs((blocks[1:] - blocks[:1]).mean(axis=1) - truth)
        spreads = [Spread(*pooled.spread(arm, blocks.shape[1], design),
                          0.0 if design.rotated else over_cases[arm], PER_FOLD - 1)
                   for arm in range(row.arms)]
        single += float(np.mean([miss <= one.half() for miss, one in zip(error, spreads,
                                                                         strict=True)]))
        wide = [one.half(row.arms) for one in spreads]
        family += any(miss > half for miss, half in zip(error, wide, strict=True))
        guarded += pooled.own is not None
        halves.append(float(np.median(wide)))
    return Found(single / studies, family / studies, guarded / studies, float(np.median(halves)))


def count_across(row: Row, studies: int, seed: int = 0) -> float:
    """How often the interval of an arm less the baseline on all labels holds the truth, zero."""
    rng = np.random.default_rng([seed, 9, row.folds, row.seeds, row.arms])
    held = 0
    for _ in range(studies):
        family, _, _ = simulate(row, rng)
        goal = ALL_RUN * 2**0.5 * rng.normal(size=row.seeds)
        over_cases = 0.0
        if row.folds > 1:
            tested = [number % row.folds for number in range(row.seeds)]
            goal += (CASE / 2**0.5 / PER_FOLD**0.5 * rng.normal(size=FOLDS))[tested]
        else:
            of_cases = CASE / 2**0.5 * rng.normal(size=PER_FOLD)
            goal += of_cases.mean()
            over_cases = CASE / PER_FOLD**0.5
        half = across(family, goal, range(row.seeds), row.design, over_cases=over_cases,
                      cases=PER_FOLD)
        blocks = row.design.averaged(family[-1] - goal, range(row.seeds))
        held += half is not None and abs(float(blocks.mean())) <= half
    return held / studies


def study(form: str, folds: int, seeds: int, rng: np.random.Generator
          ) -> tuple[Floats, Floats | None]:
    """Scores (arms, fractions, seeds) on known curves, and bootstrap draws of their test cases."""
    n, arms = np.array(list(FRACTIONS.values())), len(GAINS)
    y = np.stack([CURVES[form](n, gain) for gain in GAINS])[..., None]
    spread = RUN * (n / n[0])[:, None] ** -0.25
    for size, number in ((1.0, arms), (BLOCK / RUN, 1)):  # of an arm's run, of a block
        chance = (ALIKE**0.5 * rng.normal(size=(number, 1, seeds))
                  + (1 - ALIKE) ** 0.5 * rng.normal(size=(number, len(n), seeds)))
        y = y + size * spread * chance
    of_case = CASE / 2**0.5 * (rng.normal(size=(arms, CASES)) + rng.normal(size=CASES))
    of_fold = of_case.reshape(arms, FOLDS, PER_FOLD)
    y = y + of_fold.mean(axis=2)[:, None, [seed % folds for seed in range(seeds)]]
    if folds > 1:
        return y, None
    drawn = of_fold[:, 0] @ resamples(PER_FOLD).T / PER_FOLD
    return y, np.repeat(drawn[:, None], len(n), axis=1)


def truths(form: str, gain: float) -> dict[str, float]:
    """The exchange rates of an arm whose curve is known, as far as they are looked up."""
    n = np.array(list(FRACTIONS.values()))
    curve = CURVES[form]
    one = (float((0.25 / (0.86 - TARGET)) ** (1 / 0.6)) if form == "power law" else
           float(np.exp((TARGET - 0.75) / 0.02)))
    return {"reach": max(n[0], one / gain), "saved": one - max(n[0], one / gain),
            "twice": curve(BEYOND * n[-1], gain) - curve(n[-1], gain), "worth": n[1] * gain}


def count_exchange(form: str, folds: int, seeds: int, studies: int) -> dict[str, float]:
    """How often intervals of exchange rates hold the truth, all arms beside the baseline."""
    rng = np.random.default_rng([7, len(form), folds, seeds])
    held = dict.fromkeys(RATES, 0.0)
    for _ in range(studies):
        y, cases = study(form, folds, seeds, rng)
        drawn, spread = points(y, range(seeds), folds, list(FRACTIONS), cases=cases,
                               tested=PER_FOLD)
        of_arm = {str(arm): one for arm, one in enumerate(drawn.swapaxes(0, 1))}
        found = rates(of_arm, spread, FRACTIONS, target=TARGET, bound=1.0)
        worths = worth(of_arm, FRACTIONS)
        for arm, gain in list(enumerate(GAINS))[1:]:
            rate, true = found[str(arm)], truths(form, gain)
            values: dict[str, Value | None] = {"reach": rate.reach, "saved": rate.saved,
                                               "twice": rate.twice, "worth": worths[str(arm)][10]}
            for name, value in values.items():
                assert value is not None and value.low is not None and value.high is not None
                held[name] += value.low <= true[name] + 1e-9 and true[name] <= value.high + 1e-9
    return {name: number / studies / (len(GAINS) - 1) for name, number in held.items()}


def exchange_table(found: Sequence[tuple[str, int, int, dict[str, float]]]) -> str:
    """A line a kind of study: how often each exchange rate's interval holds the truth."""
    lines = [["curves", "test set", "seeds", *RATES]]
    lines += [["---"] * len(lines[0])]
    lines += [[form, "fixed" if folds == 1 else "rotated", str(seeds),
               *(f"{held[name]:.3f}" for name in RATES)] for form, folds, seeds, held in found]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def table(found: Sequence[tuple[Row, Found]]) -> str:
    """A line a kind and number of seeds, the numbers of arms side by side."""
    names = {value: name for name, value in SPREADS.items()}
    head = ["test set", "labels", "from training cases", "arms vary", "seeds",
            *(f"{what}, {arms} arm{'s' * (arms > 1)}" for what in ("single", "family")
              for arms in ARMS), "half interval, 1 to 7 arms"]
    lines = [head, ["---"] * len(head)]
    for key in dict.fromkeys((r.folds, r.fraction, r.trained, r.spread, r.seeds) for r, _ in found):
        same = [one for r, one in found if (r.folds, r.fraction, r.trained, r.spread,
                                            r.seeds) == key]
        folds, fraction, trained, spread, seeds = key
        lines.append(["fixed" if folds == 1 else "rotated", f"{fraction} %",
                      "a quarter" if trained else "none", names[spread], str(seeds),
                      *(f"{one.single:.3f}" for one in same),
                      *(f"{one.family:.3f}" for one in same),
                      f"{same[0].half:.4f} to {same[-1].half:.4f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def summary(found: Sequence[tuple[Row, Found]]) -> str:
    """The aims, and what of the table is beyond them."""
    lines = []
    for name, spread, aim in (("alike", 0.0, 0.06), ("by log-SD .3", 0.3, 0.10),
                              ("by log-SD .5", 0.5, 0.10)):
        here = [one.family for row, one in found if row.spread == spread]
        lines.append(f"- family, arms vary {name}: {min(here):.3f} to {max(here):.3f} (aim: at "
                     f"most {aim:.2f}); beyond it {sum(one > aim for one in here)} of "
                     f"{len(here)} numbers.")
    for name, rows_ in (("other than rotated, all labels, none from training cases",
                         [one for row, one in found if not _safe(row)]),
                        ("rotated, all labels, none from training cases",
                         [one for row, one in found if _safe(row)])):
        here = [one.single for one in rows_]
        lines.append(f"- single, {name}: {min(here):.3f} to {max(here):.3f} (aim: .94 to .97).")
    return "\n".join(lines) + "\n"


def _safe(row: Row) -> bool:
    """Whether the correlation that is allowed for is not there."""
    return row.folds > 1 and row.fraction == ALL and not row.trained


def across_table(found: Sequence[tuple[Row, float]]) -> str:
    """The same for what labels saved rest on."""
    lines = [["test set", "seeds", *(f"across, {arms} arm{'s' * (arms > 1)}" for arms in ARMS)]]
    lines.append(["---"] * len(lines[0]))
    for folds, seeds in dict.fromkeys((row.folds, row.seeds) for row, _ in found):
        lines.append(["fixed" if folds == 1 else "rotated", str(seeds),
                      *(f"{held:.3f}" for row, held in found
                        if (row.folds, row.seeds) == (folds, seeds))])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    """Simulate every kind, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=STUDIES, help=f"of a row [{STUDIES}]")
    parser.add_argument("--out", type=Path, default=OUT, help="where the table goes")
    given = parser.parse_args()
    found = []
    for row in rows():
        found.append((row, count(row, given.studies)))
        print(row, found[-1][1], flush=True)
    others = [Row(folds, 5, 0.0, 0.0, seeds, arms) for folds in (1, FOLDS) for seeds in SEEDS
              for arms in ARMS]
    second = across_table([(row, count_across(row, given.studies)) for row in others])
    second += "\n" + exchange_table([
        (form, folds, seeds, count_exchange(form, folds, seeds, given.studies // 4))
        for form in CURVES for folds in (1, FOLDS) for seeds in SEEDS])
    text = ((__doc__ or "").partition("\n\n")[0] + f"\n\n{given.studies} studies a number.\n\n"
            + summary(found) + "\n" + READ + "\n" + table(found) + "\n" + second)
    write_text(given.out, text)
    print(table(found) + "\n" + second + f"-> {given.out}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
