"""What a study will show: known numbers by hand, and simulated studies that show it as often."""

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student
from test_estimates import cases, flat

from common.stats import dunnett, power
from common.stats.estimates import Design, Spread
from common.stats.family import compare, pool
from common.stats.measures import Arm, mean_of
from common.stats.power import Known

DICE = mean_of("dice", "Dice")
KNOWN = Known("a study", 5, 9, runs=0.01, cases=0.04)
FIXED, ROTATED = Design(1, 5), Design(5, 5)
STUDIES = 300


def test_the_spread_to_expect_with_one_test_set_by_hand() -> None:
    found = KNOWN.spread(FIXED, arms=3, seeds=5, tested=25)
    assert (found.runs, found.cases) == pytest.approx(((2 / 5) ** 0.5 * 0.01, 0.04 / 5))
    assert (found.runs_df, found.cases_df) == (3 * 4, 24)


@pytest.mark.parametrize(("seeds", "blocks"), [(3, 3), (5, 5), (10, 5)])
def test_the_spread_to_expect_with_rotated_folds_by_hand(seeds: int, blocks: int) -> None:
    found = KNOWN.spread(Design(5, 50), arms=3, seeds=seeds, tested=25)
    of_cases = 0.04**2 / 2 / 25  # a difference has twice the variance of an arm
    block = 0.01**2 / (seeds / blocks) + of_cases
    overlap = 0.5 / 4  # half of the labels; a test fold is a quarter of the training cases
    assert found.runs == pytest.approx(
        (2 * (block / blocks + overlap * (0.01**2 + of_cases))) ** 0.5)
    assert (found.runs_df, found.cases) == (3 * (blocks - 1), 0)


@pytest.mark.parametrize("arms", [1, 4])
def test_shown_are_half_the_interval_and_z_standard_errors_more(arms: int) -> None:
    for spread in (Spread(0.01, 12), Spread(0.01, 12, 0.02, 30)):
        half, most = power.shown(spread, arms)
        assert half == spread.half(arms)
        assert most - half == pytest.approx(norm.ppf(0.8) * spread.error, rel=1e-4)
        assert norm.ppf(0.8) == pytest.approx(0.8416, abs=1e-4)
    assert power.shown(Spread(0.01, 12), 1)[0] == pytest.approx(student.ppf(0.975, 12) * 0.01)


def simulated(design: Design, seeds: int, arms: int, tested: int, gain: float,
              rng: np.random.Generator) -> bool:
    """Whether a study of these spreads shows the gain of its first arm."""
    of_case = KNOWN.cases / 2**0.5 * rng.normal(size=(arms + 1, design.folds, tested))
    which = [seed % design.folds for seed in range(seeds)]
    scores = (KNOWN.runs * rng.normal(size=(arms + 1, seeds)) + of_case.mean(axis=2)[:, which]
              + 0.02 * rng.normal(size=seeds))
    scores[1] += gain
    pooled = pool(scores, range(seeds), design)
    assert pooled is not None
    blocks = design.averaged(scores, range(seeds))
    over_cases = 0.0 if design.rotated else float(
        (of_case[1, 0] - of_case[0, 0]).std(ddof=1)) / tested**0.5
    spread = Spread(*pooled.spread(0, blocks.shape[1], design), over_cases, tested - 1)
    return bool((blocks[1] - blocks[0]).mean() > spread.half(arms))


@pytest.mark.parametrize(("design", "seeds"), [(FIXED, 5), (ROTATED, 5), (ROTATED, 10)])
def test_a_gain_is_shown_as_often_as_is_said(design: Design, seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    expected = KNOWN.spread(design, arms=3, seeds=seeds, tested=40)
    for gain, share in zip(power.shown(expected, 3), (0.5, 0.8), strict=True):
        found = np.mean([simulated(design, seeds, 3, 40, gain, rng) for _ in range(STUDIES)])
        assert found == pytest.approx(share, abs=0.09), (gain, found)  # three errors


def test_seeds_for_are_the_fewest_that_show_the_gain() -> None:
    for design in (FIXED, ROTATED):
        for gain in (0.02, 0.03):
            seeds = power.seeds_for(gain, KNOWN, design, arms=2, tested=200)
            assert seeds is not None and 3 <= seeds < 30
            enough, fewer = (power.shown(KNOWN.spread(design, arms=2, seeds=number, tested=200),
                                         2)[1] for number in (seeds, seeds - 1))
            assert enough <= gain and (seeds == 3 or fewer > gain)
    assert power.seeds_for(0.2, KNOWN, FIXED, arms=2, tested=200) == 3  # no interval under three
    assert power.seeds_for(0.001, KNOWN, FIXED, arms=2, tested=200) is None
    assert power.seeds_for(0.02, KNOWN, FIXED, arms=2, tested=10) is None  # the cases are too few


def test_without_these_cases_no_number_of_seeds_shows_a_gain() -> None:
    for arms, gain in ((1, 0.02), (3, 0.01)):
        number = power.cases_for(gain, KNOWN, arms=arms)
        quantile = dunnett.quantile(arms, 1e6)
        assert number == int(np.ceil(((quantile + 0.8416) * 0.04 / gain) ** 2))
        endless = [power.shown(KNOWN.spread(FIXED, arms=arms, seeds=10**6, tested=cases), arms)[1]
                   for cases in (number - 1, round(1.1 * number) + 2)]
        assert endless[0] > gain > endless[1]
    assert power.cases_for(0.02, KNOWN, arms=1) == 32  # ((1.96 + .84) * .04 / .02)^2 = 31.4


@pytest.mark.parametrize("folds", [1, 5])
def test_the_spreads_of_a_finished_study_are_those_put_in(folds: int) -> None:
    rng, found = np.random.default_rng(folds), []
    for _ in range(20):
        arms: dict[str, Arm] = {}
        hard = rng.normal(0.5, 0.1, (folds, 40))
        for name in ("baseline", "a", "b", "c", "d"):
            of_case = hard + rng.normal(0, 0.04 / 2**0.5, (folds, 40))
            arms[name] = {seed: {0: cases((of_case[seed % folds] + rng.normal(0, 0.005)).tolist(),
                                          100 * (seed % folds))} for seed in range(5)}
        one = power.of_family(compare(DICE, arms, "baseline", Design(folds, 5)), "a study", 9)
        assert one is not None and (one.study, one.fraction, one.labelled) == ("a study", 5, 9)
        found.append(one)
    for one in found:
        assert one.cases == pytest.approx(0.04, rel=0.3)
    assert np.mean([one.cases for one in found]) == pytest.approx(0.04, rel=0.05)
    assert np.mean([one.runs**2 for one in found]) ** 0.5 == pytest.approx(0.005, rel=0.2)


def test_spreads_of_a_study_without_intervals_are_not_known() -> None:
    two = {"baseline": flat([0.4, 0.5]), "cpc": flat([0.5, 0.55])}
    assert power.of_family(compare(DICE, two, "baseline", FIXED), "", 9) is None
    three = {"baseline": flat([0.4, 0.5, 0.45]), "cpc": flat([0.5, 0.55, 0.6])}
    assert power.of_family(compare(DICE, three, "baseline", FIXED), "", 9) is not None
    alone = compare(DICE, {**three, "oracle": three["cpc"]}, "baseline", FIXED, controls=[
        "oracle", "cpc"])
    assert power.of_family(alone, "", 9) is None  # of controls nothing is pooled


def test_spreads_are_had_of_every_fraction_with_enough_runs() -> None:
    rng = np.random.default_rng(3)

    def runs(seeds: int) -> Arm:
        return {seed: {0: cases(rng.random(6).tolist())} for seed in range(seeds)}
    arms = {("baseline", 5): runs(3), ("cpc", 5): runs(3), ("baseline", 10): runs(2),
            ("cpc", 10): runs(2), ("cpc", 25): runs(3), ("baseline", 50): runs(3),
            ("baseline", 100): runs(4), ("cpc", 100): runs(4), ("oracle", 100): runs(4)}
    labelled = {5: 2, 10: 4, 25: 9, 50: 18, 100: 36}
    found = power.of_runs(DICE, arms, labelled, baseline="baseline", folds=1, study="this one",
                          controls=["oracle"])
    assert [(one.study, one.fraction, one.labelled) for one in found] == [
        ("this one", 5, 2), ("this one", 100, 36)]
    family = compare(DICE, {name: arm for (name, fraction), arm in arms.items() if fraction == 100},
                     "baseline", Design(1, 100), controls=["oracle"])
    assert found[1] == power.of_family(family, "this one", 36)


def test_the_nearest_fraction_is_so_by_the_ratio_of_labelled_cases() -> None:
    known = [Known("", fraction, labelled, 0.0, 0.0) for fraction, labelled in (
        (5, 10), (25, 50), (100, 200))]
    for labelled, fraction in ((1, 5), (10, 5), (22, 5), (23, 25), (99, 25), (101, 100),
                               (900, 100)):
        assert power.nearest(known, labelled).fraction == fraction
