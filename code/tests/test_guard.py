"""The guard: arms that vary unequally do not get the spread of the steady ones."""

import numpy as np
import pytest
from test_family import TABLE, of, rest_by_loops

from common.stats import dunnett, family
from common.stats.family import unequal
from common.stats.measures import resamples


def unsteady() -> list[list[float]]:
    """A baseline and six arms that vary alike, and one that varies ten times as much."""
    rows = np.random.default_rng(7).normal(0.5, 0.004, (8, 10))
    rows[7] = 0.5 + 10 * (rows[7] - rows[7].mean())
    return rows.tolist()


def test_the_guard_widens_the_unsteady_arm_and_leaves_the_others_pooled() -> None:
    rows = unsteady()
    found = of(rows)
    assert found.moderated and found.pooled is not None and found.pooled.own is not None
    square, df = rest_by_loops(rows)
    assert found.pooled.block == pytest.approx(square) and df == 63
    own = float(np.var(np.subtract(rows[7], rows[0]), ddof=1)) / 2
    for row, (value, its_df), one in zip(rows[1:], found.pooled.own, found.differences.values(),
                                         strict=True):
        assert one.spread is not None and one.spread.runs_df == its_df
        assert one.spread.runs == pytest.approx((2 * value / 10) ** 0.5)
        if row is rows[7]:
            assert 3 * square < value < 1.3 * own and 5 < its_df < 20
        else:
            assert (value, its_df) == (pytest.approx(square), 63)


def test_with_an_unsteady_baseline_every_arm_is_widened() -> None:
    rows = unsteady()
    rows = [rows[7], *rows[:7]]
    found = of(rows)
    assert found.pooled is not None and found.pooled.own is not None
    true = float(np.var(rows[0], ddof=1)) / 2
    for value, df in found.pooled.own:
        assert value == pytest.approx(true, rel=0.3) and value > 3 * found.pooled.block and df < 20


def test_arms_own_variances_are_recovered_from_their_rests() -> None:
    rng = np.random.default_rng(3)
    scale = np.array([1.0, 2, 1, 3, 0.5])[:, None]
    shared = rng.normal(0, 5, (400, 1, 20))  # what a block does to all cancels
    found = family.variances(shared + scale * rng.normal(size=(400, 5, 20)))
    assert found.shape == (400, 5) and (found >= 0).all()
    assert found.mean(axis=0) == pytest.approx(scale[:, 0] ** 2, rel=0.1, abs=0.1)


def test_moderation_shrinks_less_the_more_arms_differ() -> None:
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(8, 200, 10)).transpose(1, 0, 2)
    scale = np.array([1.0, 1, 2, 1, 2, 1, 2, 1])[:, None]
    kept = []
    for power in (0, 1, 2):
        rows = scale**power * noise
        widest = [max(value for value, _ in family.moderated(one, 0.0, 63.0)) for one in rows]
        own = [float(np.max(family.variances(one)[1:] + family.variances(one)[0])) / 2
               for one in rows]
        kept.append(float(np.mean(np.array(widest) / own)))
    assert kept[0] < kept[1] < kept[2] < 1.02  # of the largest arm's own variance


def test_the_guard_trips_in_one_of_ten_studies_with_equal_arms() -> None:
    assert not of([TABLE[0], TABLE[1]]).moderated
    rng = np.random.default_rng(8)
    for arms, seeds in ((3, 3), (4, 5), (8, 5), (8, 10)):
        tripped = np.mean([unequal(rng.normal(size=(arms, seeds))) for _ in range(1000)])
        assert 0.07 < tripped < 0.13, (arms, seeds, tripped)
    scale = np.array([[1.0]] * 7 + [[10.0]])
    assert np.mean([unequal(scale * rng.normal(size=(8, 10))) for _ in range(200)]) > 0.9
    assert not unequal(rng.normal(size=(2, 5)) * [[1], [30]])  # their rests mirror each other


def test_the_guard_trips_on_one_unsteady_arm_of_three() -> None:
    rng = np.random.default_rng(8)
    scale = np.array([[1.0], [1], [1], [30]])
    assert np.mean([unequal(scale * rng.normal(size=(4, 5))) for _ in range(200)]) > 0.5


def test_an_arm_that_does_not_vary_is_no_division_by_zero() -> None:
    rows = np.random.default_rng(9).normal(0.5, 0.01, (4, 5))
    rows[1] = rows[0] + 0.1  # always the same gain
    found = of(rows.tolist())
    assert all(one.interval is not None and np.isfinite(one.interval).all()
               for one in found.differences.values())
    still = of([[0.5] * 5, [0.6] * 5, [0.4] * 5])
    assert still.pooled is not None and still.pooled.block == pytest.approx(0, abs=1e-30)
    assert still.differences["cpc"].interval == pytest.approx((0.1, 0.1))


def test_the_same_to_the_last_digit_in_every_call() -> None:
    first, second = of(unsteady()), of(TABLE)
    for cache in (resamples, family._limit, dunnett.quantile):
        cache.cache_clear()
    assert of(unsteady()) == first and of(TABLE) == second
