"""What a study will be able to show, and how many seeds a wanted gain needs.

Two numbers. Half the interval that holds for all arms: a gain of that size is shown in half of all
repetitions of the study. And the gain shown with 80 % power: z(.8) = .84 standard errors more. They
need two spreads, had from finished runs: of a run's score about arm and seed, and over test cases
of an arm's difference to the baseline.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import InputError
from common.files import ROOT, read_json
from common.stats import dunnett
from common.stats.estimates import MIN_BLOCKS, Design, Spread
from common.stats.family import Family, compare
from common.stats.measures import Arm, Measure

POWER = 0.8        # of the larger gain
Z = 0.8416         # standard normal quantile of POWER
MOST_SEEDS = 50    # more are not looked at
KNOWN = "code/common/stats/known_spreads.json"  # of published studies


@dataclass(frozen=True)
class Known:
    """The spreads of a finished study at one labelled fraction."""

    study: str       # whose they are
    fraction: int    # percent
    labelled: int    # cases
    runs: float      # SD of a run's score about arm and seed, test cases apart
    cases: float     # SD over test cases of an arm less the baseline

    def spread(self, design: Design, *, arms: int, seeds: int, tested: int) -> Spread:
        """The spread to expect; ``tested`` cases a fold, or in all with one test set."""
        if not design.rotated:
            return Spread((2 / seeds) ** 0.5 * self.runs, arms * (seeds - 1),
                          self.cases / tested**0.5, tested - 1)
        blocks = min(seeds, design.folds)
        of_cases = self.cases**2 / (2 * tested)  # of one arm, in one fold
        block = self.runs**2 * blocks / seeds + of_cases
        single = self.runs**2 + of_cases
        return Spread((2 * (block / blocks + design.overlap * single)) ** 0.5, arms * (blocks - 1))


@dataclass(frozen=True)
class Expected:
    """What a planned study will show at one labelled fraction."""

    fraction: int           # percent
    labelled: int           # cases
    arms: int               # that intervals are adjusted for
    half: float             # the gain shown in half of all repetitions
    most: float             # with POWER
    source: str             # whose spreads these are
    seeds: int | None       # that a wanted gain takes with POWER; None: MOST_SEEDS are too few
    cases: int              # test cases that it takes in any case; 0 without a wanted gain
    least: float            # the gain that MOST_SEEDS show with POWER


def expected(known: Sequence[Known], design: Design, *, labelled: int, arms: int, seeds: int,
             tested: int, adjusted: int = 0, gain: float = 0.0) -> Expected:
    """What to expect at a fraction of ``labelled`` cases; ``tested`` cases a fold or test set.

    ``arms`` share their spread; ``adjusted`` for are as many (0), or the one that is primary.
    """
    near, number = nearest(known, labelled), adjusted or arms
    half, most = shown(near.spread(design, arms=arms, seeds=seeds, tested=tested), number)
    least = shown(near.spread(design, arms=arms, seeds=MOST_SEEDS, tested=tested), number)[1]
    return Expected(round(design.fraction), labelled, number, half, most, near.study,
                    seeds_for(gain, near, design, arms=arms, tested=tested, adjusted=number)
                    if gain else None, cases_for(gain, near, arms=number) if gain else 0, least)


def shown(spread: Spread, arms: int) -> tuple[float, float]:
    """The gains that are shown in half of all repetitions, and with POWER."""
    half = spread.half(arms)
    return half, half + Z * spread.error


def seeds_for(gain: float, known: Known, design: Design, *, arms: int, tested: int,
              adjusted: int = 0) -> int | None:
    """The fewest seeds that show a gain with POWER; None if MOST_SEEDS do not."""
    return next((seeds for seeds in range(MIN_BLOCKS, MOST_SEEDS + 1) if shown(known.spread(
        design, arms=arms, seeds=seeds, tested=tested), adjusted or arms)[1] <= gain), None)


def cases_for(gain: float, known: Known, *, arms: int) -> int:
    """The test cases without which no number of seeds shows a gain with POWER."""
    return int(np.ceil(((dunnett.quantile(arms, 1e6) + Z) * known.cases / gain) ** 2))


def of_family(family: Family, study: str, labelled: int) -> Known | None:
    """The spreads of a finished family; None without an interval."""
    if family.pooled is None or not family.over_cases:
        return None
    one_set = float(np.median(list(family.over_cases.values()))) ** 2 * family.test_sets
    runs = family.pooled.single - (one_set / 2 if family.design.rotated else 0.0)
    return Known(study, round(family.design.fraction), labelled, max(0.0, runs) ** 0.5,
                 (one_set * family.tested) ** 0.5)


def of_runs(measure: Measure, arms: Mapping[tuple[str, int], Arm], labelled: Mapping[int, int], *,
            baseline: str, folds: int, study: str, controls: Collection[str]) -> list[Known]:
    """The spreads of every fraction of a study that has enough runs."""
    found = []
    for fraction in sorted({fraction for _, fraction in arms}):
        design = Design(folds, fraction)
        here = {name: arm for (name, at), arm in arms.items() if at == fraction}
        if baseline in here and len(here) > 1:
            found.append(of_family(compare(measure, here, baseline, design, controls=controls),
                                   study, labelled[fraction]))
    return [one for one in found if one is not None]


def published(dataset: str, metric: str) -> list[Known]:
    """The spreads of the published study of a data set, else of the first one with its metric.

    (The file has the studies first whose records are in the folder.)
    """
    path = ROOT / KNOWN
    studies = [one for one in read_json(path) if one["metric"] == metric]
    if not studies:
        raise InputError(f"{path}: no study that reports {metric}; restore it with git checkout")
    chosen = next((one for one in studies if one["dataset"] == dataset), studies[0])
    return [Known(chosen["study"], *row) for row in chosen["spreads"]]


def of_another(study: str, dataset: str) -> bool:
    """Whether a source of spreads is the published study of another data set."""
    return any(one["study"] == study and one["dataset"] != dataset
               for one in read_json(ROOT / KNOWN))


def nearest(known: Sequence[Known], labelled: int) -> Known:
    """The spreads of the fraction with the nearest number of labelled cases, by ratio."""
    return min(known, key=lambda one: abs(np.log(one.labelled / labelled)))
