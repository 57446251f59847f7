"""Exchange rates on curves that are known: labels to a score, labels saved, shares of the pool."""

from collections.abc import Callable

import numpy as np
import pytest

from bench.coverage import count_exchange, exchange_table
from common.stats.estimates import Design
from common.stats.exchange import (
    DRAWS,
    EXPONENTS,
    Exchange,
    Fit,
    along,
    exchange,
    fit,
    points,
    rates,
)
from common.stats.measures import Arm, Floats, mean_of
from common.stats.shares import Pool, pool
from common.stats.worth import worth

DICE = mean_of("dice", "Dice")
LABELS = {5: 9.0, 10: 18.0, 25: 46.0, 50: 91.0, 100: 182.0}
N = np.array(list(LABELS.values()))
SPREAD = np.full(5, 0.003)


def law(n: Floats, gain: float = 1.0) -> Floats:
    return np.asarray(0.86 - 0.25 * (gain * n) ** -EXPONENTS[24])


def line(n: Floats, gain: float = 1.0) -> Floats:
    return np.asarray(0.7 + 0.02 * np.log(gain * n))


def arms(curve: Callable[..., Floats], gains: dict[str, float], *, seeds: int = 4,
         noise: float = 0.001, fractions: tuple[int, ...] = tuple(LABELS)
         ) -> dict[tuple[str, int], Arm]:
    """Arms on a curve along which their labels count ``gains`` times."""
    rng = np.random.default_rng(3)
    hard = rng.normal(0, noise, 20)
    found: dict[tuple[str, int], Arm] = {}
    for task, gain in gains.items():
        for fraction in fractions:
            level = float(curve(LABELS[fraction], gain))
            found[task, fraction] = {seed: {0: {
                f"c{case}": {"dice": level + hard[case] + rng.normal(0, noise)}
                for case in range(20)}} for seed in range(seeds)}
    return found


def known(curve: Callable[..., Floats] = line, target: float | None = None, **how: object
          ) -> Exchange:
    found = exchange(DICE, arms(curve, {"baseline": 1.0, "rpl": 2.0}, **how),  # type: ignore
                     "baseline", LABELS, target=target)
    assert found is not None
    return found


def alone(scores: Floats, n: Floats, spread: Floats | None, bound: float) -> Fit:
    """The curve of one arm that has no other beside it."""
    return fit({"baseline": scores}, n, spread, bound)["baseline"]


def test_a_known_power_law_and_a_known_line_are_found() -> None:
    one = alone(law(N)[None], N, SPREAD, 1.0)
    assert one.power
    assert (one.a[0], one.b[0], one.c[0]) == pytest.approx((0.86, 0.25, EXPONENTS[24]))
    assert one.at(50)[0] == pytest.approx(float(law(50)))
    assert one.reach(float(law(70)))[0] == pytest.approx(70)
    assert one.doubling(50)[0] == pytest.approx(float(law(50.5) - law(49.5)) * 50 * np.log(2),
                                                rel=1e-3)
    other = alone(line(N)[None], N, SPREAD, 1.0)
    assert not other.power and (other.a[0], other.b[0]) == pytest.approx((0.7, 0.02))
    assert other.reach(float(line(70)))[0] == pytest.approx(70)
    assert other.doubling(50)[0] == pytest.approx(0.02 * np.log(2))


@pytest.mark.parametrize(("scores", "n", "spread", "bound"), [
    (law(N[:4]), N[:4], SPREAD[:4], 1.0),           # four fractions
    (law(N), N, SPREAD, 0.85),                      # would rise above what the measure can be
    (law(N), N, None, 1.0),                         # no spread
    (law(N), N, 100 * SPREAD, 1.0),                 # not better than a line
    (1 - 0.5 * N**-0.05, N, SPREAD / 1e4, 1.0),     # c at its lower bound
    (0.86 - 9 * N**-3.0, N, SPREAD, 1.0),           # c at its upper bound
    (0.7 + 0.01 * N**0.3, N, SPREAD, 1.0)], ids=str)  # ever steeper
def test_what_is_no_power_law_by_the_rules_is_a_line(scores: Floats, n: Floats,
                                                     spread: Floats | None, bound: float) -> None:
    assert not alone(scores[None], n, spread, bound).power


def test_all_arms_have_one_bend_and_few_fractions_take_it() -> None:
    rows = [law(N), line(N)]  # the means are of a law, their first draw of a line
    few = np.array([np.nan, 1, np.nan, np.nan, 1]) * np.array([law(N, 2.0), line(N, 2.0)])
    noisy = np.array(rows) + np.array([0.004, -0.004, 0.004, -0.004, 0.004])
    found = fit({"baseline": np.array(rows), "few": few, "noisy": noisy}, N, SPREAD, 1.0)
    for one in found.values():
        assert one.c[0] == pytest.approx(EXPONENTS[24], rel=0.3) and one.c[1] == 0
        assert one.c.tolist() == found["baseline"].c.tolist()
    assert found["few"].at(91)[0] == pytest.approx(float(law(91, 2.0)), abs=0.002)
    assert (found["few"].least, found["few"].most) == (18, 182)
    assert not np.allclose(found["baseline"].a, found["noisy"].a)
    # The bend is taken for all or for none: with arms that are far from it, for none.
    far = {name: np.stack([line(N)] * 2) for name in "abcdef"}
    assert not fit({"baseline": np.array(rows), **far}, N, SPREAD, 1.0)["baseline"].power


def test_a_fraction_with_a_smaller_spread_weighs_more() -> None:
    y = line(N) + np.array([0.02, 0, 0, 0, 0])
    even, less = (alone(y[None], N, spread, 1.0).b[0] for spread in
                  (SPREAD, SPREAD * np.array([100, 1, 1, 1, 1])))
    assert even < less and less == pytest.approx(0.02, rel=1e-3)


def test_nothing_is_looked_up_below_the_least_or_beyond_twice_the_most() -> None:
    one = alone(line(N)[None], N, SPREAD, 1.0)
    assert one.reach(float(line(3)))[0] == 9 and one.reach(float(line(360)))[0] < 364
    assert one.reach(float(line(370)))[0] == np.inf
    falling = alone(line(N)[None, ::-1], N, SPREAD, 1.0)
    assert falling.reach(0.7)[0] == 9 and falling.reach(0.9)[0] == np.inf


def test_labels_to_a_score_saved_doubled_and_worth_are_those_of_known_arms() -> None:
    found = known(target=0.78)
    base, arm = found.rates.values()
    need = float(np.exp(0.08 / 0.02))
    assert base.reach.value == pytest.approx(need, rel=0.03) and base.saved is None
    assert arm.reach.value == pytest.approx(need / 2, rel=0.03) and arm.saved is not None
    assert arm.saved.value == pytest.approx(base.reach.value - arm.reach.value)
    assert arm.twice.value == pytest.approx(0.02 * np.log(2), rel=0.03)
    assert list(found.worth) == ["rpl"]
    assert found.worth["rpl"][10].value == pytest.approx(36, rel=0.05)
    for score, value in arm.along:
        assert value.value == pytest.approx(np.exp((score - 0.7) / 0.02) / 2, rel=0.05)
        assert value.low is not None and value.high is not None and value.low < value.high
    low, high = arm.along[0][0], arm.along[-1][0]
    assert low == pytest.approx(line(18.0), abs=0.002)     # the arm's least
    assert high == pytest.approx(line(182.0), abs=0.002)   # the baseline's most
    assert arm.fewer and not base.fewer
    assert arm.saved.low and 0 < arm.saved.low < need / 2 < (arm.saved.high or 0)
    assert known().target == pytest.approx(line(182.0), abs=0.002)
    own = known(law).rates["baseline"].reach  # of its own curve's best it needs all, in any draw
    assert (own.value, own.low, own.high) == pytest.approx((182, 182, 182))


def test_under_three_seeds_there_is_no_interval_and_a_line() -> None:
    for seeds in (1, 2):
        found = known(law, seeds=seeds)
        for rate in found.rates.values():
            assert rate.reach.low is rate.twice.high is None and not rate.fit.power
        assert not found.bounded
    found = known(law, seeds=3)
    assert found.bounded and all(rate.fit.power for rate in found.rates.values())


def test_labels_worth_need_a_dense_baseline_and_arms_all_its_seeds() -> None:
    assert not known(fractions=(5, 10, 25, 100)).worth
    runs = arms(line, {"baseline": 1.0, "rpl": 2.0, "cpc": 1.0, "oracle": 3.0})
    for fraction in (10, 25, 50, 100):
        runs["cpc", fraction] = {0: runs["cpc", fraction][0]}
    runs["rpl", 5] = {0: runs["rpl", 5][0]}
    found = exchange(DICE, runs, "baseline", LABELS, controls=["oracle"])
    assert found is not None and list(found.rates) == ["baseline", "rpl"]
    assert list(found.rates["rpl"].points) == [10, 25, 50, 100]
    assert {arm: list(worth) for arm, worth in found.worth.items()} == {
        "cpc": [5], "rpl": [10, 25, 50, 100]}  # one fraction is enough
    assert found.worth["cpc"][5].value == pytest.approx(9, rel=0.05)
    assert exchange(DICE, {key: arm for key, arm in runs.items() if key[1] == 5}, "baseline",
                    LABELS) is None


def test_worth_is_read_between_the_baselines_means_and_not_off_its_curve() -> None:
    own = np.array([0.2, 0.33, 0.47, 0.51, 0.58])  # the second is under any smooth curve
    def of(score: float, fraction: int, base: Floats = own) -> float:
        row = np.full(5, np.nan)
        row[list(LABELS).index(fraction)] = score
        return worth({"baseline": base[None], "rpl": row[None]}, LABELS)["rpl"][fraction].value
    assert of(0.33, 10) == 18
    assert of(0.40, 10) == pytest.approx(18 * (46 / 18) ** 0.5)
    assert of(0.54, 10) == pytest.approx(91 * 2 ** (0.03 / 0.07))
    assert of(0.265, 10) == pytest.approx(9 * 2**0.5)
    assert of(0.1, 10) == 9 and of(0.6, 5) == np.inf  # at most the fewest; over the most
    dips = np.array([0.2, 0.5, 0.3, 0.4, 0.6])  # what lies nearest to the arm's own labels
    assert of(0.35, 25, dips) == pytest.approx(46 * (91 / 46) ** 0.5)
    assert of(0.25, 25, dips) == pytest.approx(9 * 2 ** (1 / 6))
    assert of(0.55, 10, dips) == pytest.approx(91 * 2**0.75)
    falls = np.array([0.2, 0.3, 0.5, 0.4, 0.6])
    assert of(0.45, 10, falls) == pytest.approx(18 * (46 / 18) ** 0.75)


def test_the_draws_of_a_fraction_are_those_of_its_arms_whatever_other_fractions_have() -> None:
    runs = arms(line, {"baseline": 1.0, "rpl": 2.0})
    for task in ("baseline", "rpl"):  # a second labelled subset at 5 % alone, .1 better for both
        for draws in runs[task, 5].values():
            draws[1] = {case: {"dice": one["dice"] + 0.1} for case, one in draws[0].items()}
    found, once = exchange(DICE, runs, "baseline", LABELS), known()
    assert found is not None
    for task, rate in found.rates.items():
        assert rate.points[5][1] == pytest.approx(once.rates[task].points[5][1] + 0.05)
        assert rate.points[10] == once.rates[task].points[10]
    runs["rpl", 5][0].pop(1)  # now the arms of 5 % share the first alone, in that seed
    fewer = exchange(DICE, runs, "baseline", LABELS)
    assert fewer is not None and fewer.rates["baseline"].points[5][1] == pytest.approx(
        once.rates["baseline"].points[5][1] + 0.05 * 3 / 4)


def test_arms_of_one_fraction_tell_nothing_of_a_curves_form_and_few_tell_less() -> None:
    rng = np.random.default_rng(2)
    y = 0.5 + rng.normal(0, 0.01, (1, 5, 5)) + np.zeros((6, 1, 1))
    y[1:] += rng.normal(0, 0.01, (5, 5, 5))
    few = y.copy()
    few[2:, 1:] = np.nan  # four arms at the first fraction alone
    two, six = (points(one, range(5), 1, list(LABELS), cases=None, tested=50) for one in (
        few[:2], few))
    assert two[1] is not None and six[1] is not None
    assert six[1] == pytest.approx(two[1])  # the curves' weights are those of the two curves
    sparse, full = (points(one, range(5), 1, list(LABELS), cases=None, tested=50)[0] for one in (
        few, y))
    tails = [np.abs(drawn[1:, 1, 4] - drawn[1:, 0, 4]) for drawn in (sparse, full)]
    ratio = [np.quantile(one, 0.999) / np.quantile(one, 0.5) for one in tails]
    assert ratio[0] > 1.25 * ratio[1]  # t(4) beside t(20)


def test_that_an_arm_needs_fewer_labels_holds_for_all_arms_at_once() -> None:
    chances = np.linspace(-0.001, 0.019, DRAWS)[:, None]  # a twentieth of the draws saves nothing
    base = np.concatenate([line(N)[None], np.repeat(line(N)[None], DRAWS, 0)])
    for less, arms_, fewer in ((0.0, 1, False), (0.0006, 1, True), (0.0006, 3, False),
                               (0.0009, 3, True)):
        arm = line(N) + np.concatenate([[[0.01]], chances + less])
        drawn = {"baseline": base, **{f"arm{number}": arm for number in range(arms_)}}
        found = rates(drawn, SPREAD, LABELS, target=0.78, bound=1.0)
        assert found["arm0"].fewer == fewer


def test_the_same_records_give_the_same_numbers() -> None:
    one, other = known(law), known(law)
    for rate, same in zip(one.rates.values(), other.rates.values(), strict=True):
        assert (rate.reach, rate.saved, rate.twice, rate.along) == (
            same.reach, same.saved, same.twice, same.along)
    assert one.worth == other.worth


def test_draws_have_the_spread_of_means_of_differences_and_of_a_test_set() -> None:
    rng = np.random.default_rng(1)
    seeds, number = 40, 6
    block, rest = rng.normal(0, 0.03, (1, 1, seeds)), rng.normal(0, 0.01, (number, 5, seeds))
    y = 0.5 + block + rest
    drawn, spread = points(y, range(seeds), 1, list(LABELS), cases=None, tested=50)
    assert drawn.shape == (1 + DRAWS, number, 5) and spread is not None
    assert drawn[0] == pytest.approx(y.mean(axis=-1))
    own = (block[0, 0] + rest.mean(axis=0)).std(axis=-1, ddof=1) / seeds**0.5
    assert drawn[1:].mean(axis=1).std(axis=0) == pytest.approx(own, rel=0.1)
    less = drawn[1:, 1] - drawn[1:, 0]
    assert less.std(axis=0) == pytest.approx(np.full(5, 0.01 * (2 / seeds) ** 0.5), rel=0.15)
    assert np.corrcoef(drawn[1:, 0, 0], drawn[1:, 3, 4])[0, 1] > 0.8  # what a block does to all
    assert spread == pytest.approx(np.full(5, 0.01 / seeds**0.5), rel=0.15)
    two, _ = points(0.5 + rest[:2], range(seeds), 1, list(LABELS), cases=None, tested=50)
    assert two[1:, 0].std(axis=0) == pytest.approx(np.full(5, 0.01 / seeds**0.5), rel=0.15)
    cases = np.repeat(np.repeat(rng.normal(0, 0.05, (1, 1, DRAWS)), number, 0), 5, 1)
    moved, _ = points(y, range(seeds), 1, list(LABELS), cases=cases, tested=50)
    assert (moved[1:, 1] - moved[1:, 0]).std(axis=0) == pytest.approx(less.std(axis=0), rel=0.1)
    assert moved[1:, 0].std(axis=0) == pytest.approx(np.full(5, 0.05), rel=0.1)


def test_rotated_folds_add_what_they_share_in_proportion_to_the_labels() -> None:
    y = np.random.default_rng(1).normal(0, 0.01, (40, 1, 5)) + np.zeros((40, 5, 5))
    drawn, _ = points(y, range(5), 5, list(LABELS), cases=None, tested=50)
    less = (drawn[1:, 1] - drawn[1:, 0]).std(axis=0)
    assert (less / less[0]) ** 2 == pytest.approx(
        (0.2 + np.array(list(LABELS)) / 400) / (0.2 + 5 / 400))


@pytest.mark.parametrize(("form", "folds"), [
    ("power law", 1), ("line", 5), pytest.param("power law", 5, marks=pytest.mark.slow),
    pytest.param("line", 1, marks=pytest.mark.slow)])
def test_intervals_hold_the_truth_as_often_as_they_say(form: str, folds: int) -> None:
    held = count_exchange(form, folds, 5, 40)
    assert all(0.86 < share <= 1 for share in held.values()), held
    assert exchange_table([(form, folds, 5, held)]).splitlines()[2].startswith(
        f"| {form} | {'fixed' if folds == 1 else 'rotated'} | 5 | {held['reach']:.3f} | ")


def shares(slope: float, *, seeds: int = 5, base: Fit | None = None) -> Pool:
    """An arm that gains ``slope`` a doubling of a pool of 400, on 25, 50 and 100 %."""
    runs = arms(line, {"baseline": 1.0, "rpl": 1.0, "cpc": 1.0}, seeds=seeds)
    whole = {name: arm for (name, at), arm in runs.items() if at == 10}

    def moved(arm: Arm, gain: float) -> Arm:
        return {seed: {0: {case: {"dice": one["dice"] + gain} for case, one in draws[0].items()}}
                for seed, draws in arm.items()}
    parts = {share: moved(arms(line, {"x": 1.0}, seeds=seeds)["x", 10], gain)
             for share, gain in ((50, 0.1 - slope), (25, 0.1 - 2 * slope))}
    found = pool(DICE, "rpl", whole | {"rpl": moved(whole["rpl"], 0.1)}, parts,
                 Design(1, 10), images={25: 100.0, 50: 200.0, 100: 400.0}, baseline="baseline",
                 base=base, labelled=18)
    assert found is not None
    return found


def test_shares_of_the_pool_have_a_slope_and_a_label_its_worth_in_images() -> None:
    base = known().rates["baseline"].fit
    found = shares(0.01, base=base)
    assert list(found.gains) == [25, 50, 100] and found.doubling and found.labels and found.worth
    assert found.gains[25].mean == pytest.approx(0.08, abs=0.002)
    assert found.doubling.value == pytest.approx(0.01, abs=0.001)
    assert 0 < (found.doubling.low or 0) < 0.01 < (found.doubling.high or 0)
    assert found.labels.value == pytest.approx(0.02 * np.log(2), rel=0.05)
    assert found.worth.value == pytest.approx(
        found.labels.value / 18 * 400 / found.doubling.value)
    assert (found.worth.low or 0) < found.worth.value < (found.worth.high or 0)


@pytest.mark.parametrize("found", [
    lambda base: shares(-0.01, base=base), lambda base: shares(0.0, base=base),
    lambda base: shares(0.01), lambda base: shares(0.01, seeds=2, base=base)],
    ids=["falling", "none", "no curve", "two seeds"])
def test_without_both_slopes_shown_a_label_has_no_worth(found: Callable[[Fit], Pool]) -> None:
    assert found(known().rates["baseline"].fit).worth is None


def test_curves_that_never_meet_save_nothing_that_can_be_named() -> None:
    high, low = (alone((line(N) + more)[None], N, SPREAD, 1.0) for more in (0.5, 0.0))
    assert along(low, high) == []
    drawn = {"baseline": np.stack([line(N)] * 3), "rpl": np.stack([line(N)] * 3)}
    found = rates(drawn, SPREAD, LABELS, target=0.9, bound=1.0)["rpl"].saved
    assert found is not None and np.isnan(found.value)
    assert (found.low, found.high) == (-np.inf, np.inf)
