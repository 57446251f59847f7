"""Dunnett's quantiles against the printed tables, Monte Carlo, and what is known of their order."""

import numpy as np
import pytest
from scipy.stats import t as student

from common.stats import dunnett

TABLE = {  # two-sided, 5 %; Dunnett 1964, New Tables for Multiple Comparisons, table III
    (1, 5): 2.571, (2, 5): 3.03, (3, 5): 3.29, (2, 10): 2.57, (3, 10): 2.76, (4, 10): 2.89,
    (7, 14): 2.97, (2, 1e6): 2.21, (3, 1e6): 2.35, (5, 1e6): 2.51, (9, 1e6): 2.69}
DRAWS = 2_000_000


@pytest.mark.parametrize(("arms", "df"), TABLE)
def test_quantiles_are_those_of_the_printed_table(arms: int, df: float) -> None:
    assert dunnett.quantile(arms, df) == pytest.approx(TABLE[arms, df], abs=6e-3)


@pytest.mark.parametrize(("arms", "df"), [(3, 2), (3, 5), (7, 14)])
def test_quantiles_are_those_of_arms_that_share_a_baseline(arms: int, df: int) -> None:
    rng = np.random.default_rng(arms)
    base, u = rng.normal(size=DRAWS), np.sqrt(rng.chisquare(df, DRAWS) / df)
    largest = np.zeros(DRAWS)
    for _ in range(arms):
        np.maximum(largest, np.abs(rng.normal(size=DRAWS) - base), out=largest)
    largest /= 2**0.5 * u
    for alpha in (0.05, 0.2):
        x = dunnett.quantile(arms, df, alpha)
        assert np.mean(largest > x) == pytest.approx(alpha, abs=4 * (alpha / DRAWS) ** 0.5)
        if df >= 5:
            assert np.quantile(largest, 1 - alpha) == pytest.approx(x, abs=1e-2)


@pytest.mark.parametrize("df", [2, 4, 9, 30, 500])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.3])
def test_between_students_and_bonferronis_and_more_for_more_arms(df: float, alpha: float) -> None:
    assert dunnett.quantile(1, df, alpha) == pytest.approx(student.isf(alpha / 2, df))
    found = [dunnett.quantile(arms, df, alpha) for arms in range(1, 10)]
    assert all(one < other for one, other in zip(found, found[1:], strict=False))
    for arms, x in enumerate(found[1:], 2):
        assert found[0] < x < student.isf(alpha / 2 / arms, df)
        assert dunnett.quantile(arms, 2 * df, alpha) < x < dunnett.quantile(arms, df, alpha / 2)


@pytest.mark.parametrize("arms", [1, 2, 7])
@pytest.mark.parametrize("df", [2, 6.5, 14, 200])
def test_outside_is_the_inverse_of_quantile(arms: int, df: float) -> None:
    for alpha in (0.001, 0.05, 0.5):
        x = dunnett.quantile(arms, df, alpha)
        assert dunnett.outside(x, arms, df) == pytest.approx(alpha, abs=1e-7)
        assert dunnett.outside(-x, arms, df) == dunnett.outside(x, arms, df)  # two-sided
    assert dunnett.outside(0.0, arms, df) == pytest.approx(1.0)


def test_the_same_to_the_last_digit_in_every_call() -> None:
    first = [dunnett.quantile(arms, 12) for arms in (2, 7)], dunnett.outside(2.5, 7, 12)
    for cache in (dunnett.quantile, dunnett._nodes):
        cache.cache_clear()
    assert ([dunnett.quantile(arms, 12) for arms in (2, 7)], dunnett.outside(2.5, 7, 12)) == first
