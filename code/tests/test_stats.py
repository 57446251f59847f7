"""From records to intervals: on simulated test cases they hold the truth as often as they say."""

from dataclasses import replace

import numpy as np
import pytest
from test_estimates import DICE, FIXED, arm, flat

from common.stats.estimates import Design, Spread, mean
from common.stats.family import compare, pool

TRIALS = 400


def simulate(rng: np.random.Generator, seeds: int, cases: np.ndarray, level: float,
             spread: float = 0.03) -> np.ndarray:
    values: np.ndarray = (level + cases + rng.normal(0, spread, (seeds, 1))
                          + rng.normal(0, 0.05, (seeds, len(cases))))
    return values


@pytest.mark.parametrize("spread", [0.0, 0.03, 0.1])  # over seeds; that of the cases is .01
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_the_truth(seeds: int, spread: float) -> None:
    rng = np.random.default_rng(seeds)
    covered = np.zeros(3)
    for _ in range(TRIALS):
        cases = rng.normal(0, 0.05, 40)
        own = rng.normal(0, 0.03, 40)  # what the arm changes differs from case to case
        base = arm(simulate(rng, seeds, cases, 0.5, spread).tolist())
        other = arm(simulate(rng, seeds, cases + own, 0.52, spread).tolist())
        result = compare(DICE, {"baseline": base, "cpc": other}, "baseline", FIXED).differences
        for index, (ends, truth) in enumerate([
                (mean(DICE, base, FIXED).interval, 0.5), (result["cpc"].interval, 0.02),
                (replace(result["cpc"], arms=7).adjusted, 0.02)]):
            assert ends is not None
            covered[index] += ends[0] <= truth <= ends[1]
    share = covered / TRIALS
    assert (share[:2] > 0.93).all() and (share[:2] <= 0.999).all(), share  # .95 less two errors
    assert share[1] < 0.995 or spread < 0.03, share  # on the safe side where cases vary more
    assert share[2] > 0.965, share  # of .982 with Dunnett's t of seven arms and 2 degrees


def test_a_run_that_one_arm_lacks_does_not_widen_the_others_intervals() -> None:
    rng = np.random.default_rng(0)
    scores = 0.5 + rng.normal(0, 0.05, 10) + rng.normal(0, 0.005, (3, 10))  # ten seeds, five folds
    whole = {name: flat(row, 5) for name, row in zip(("baseline", "cpc", "rpl"), scores.tolist(),
                                                     strict=True)}
    part = {**whole, "cpc": {seed: run for seed, run in whole["cpc"].items() if seed != 9}}
    halves = [compare(DICE, arms, "baseline", Design(5, 5)).differences["rpl"].half
              for arms in (whole, part)]
    assert halves[0] and halves[1] and halves[1] < 1.5 * halves[0]


@pytest.mark.parametrize(("arms", "seeds", "unsteady"), [(3, 5, 3), (7, 10, 0)])
def test_with_one_unsteady_arm_the_family_errs_in_one_study_of_ten_at_most(
        arms: int, seeds: int, unsteady: int) -> None:
    rng, missed = np.random.default_rng(0), 0
    scale = np.ones((arms + 1, 1))
    scale[unsteady] = 10  # times the SD of the others; there is no gain anywhere
    for _ in range(TRIALS):
        scores = scale * rng.normal(size=(arms + 1, seeds))
        pooled = pool(scores, range(seeds), FIXED)
        assert pooled is not None
        gains = np.abs((scores[1:] - scores[0]).mean(axis=1))
        missed += any(gain > Spread(*pooled.spread(arm, seeds, FIXED)).half(arms)
                      for arm, gain in enumerate(gains))
    assert missed / TRIALS <= 0.10
