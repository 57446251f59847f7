"""All arms of one labelled fraction against the baseline, their spread pooled.

A score is its arm's mean, plus what its block does to all arms alike, plus a rest:

    y[a, b] = arm[a] + block[b] + rest[a, b],    a = 0 (baseline) to A.

The rest's variance s^2, pooled over the arms, has A (blocks - 1) degrees of freedom instead of the
blocks - 1 of one arm's paired differences. An arm less the baseline varies by 2 s^2 / blocks, and
half the interval that holds for all A at once takes Dunnett's quantile instead of Student's (over
test cases too, where these are a second spread: estimates.py). Controls belong to no family: each
keeps its own spread and its own interval.

The guard. Where arms vary unequally a pooled spread is too narrow for some. An arm's own variance
is had from its rests, whose mean square expects v[a] (1 - 2 / m) + sum(v) / m^2 with m = A + 1 arms
(Grubbs 1948, On Estimating Precision). If the largest one's share of their sum is above that of
nine in ten studies with equal ones (simulated, same A and blocks), each is moderated towards the
others, w = (d v0 + n v) / (d + n), with n its degrees of freedom, v0 and d as fitted to all (Smyth
2004, Linear Models and Empirical Bayes Methods, sections 3 and 6.2). An arm less the baseline then
varies by (w[a] + w[0]) / blocks, with Satterthwaite's degrees of freedom, where that is more than
the pooled spread gives. (Narrowing others, too, missed in up to 12 % of families instead of 8.)

Coverage and family-wise error of all this: code/bench/coverage.py.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.special import digamma, polygamma

from common.stats.estimates import (
    MIN_BLOCKS,
    Aligned,
    Design,
    Estimate,
    Spread,
    mean_square,
    of_single,
    own,
    residuals,
)
from common.stats.measures import Arm, Floats, Measure

SIMULATED = 20_000  # studies with equal spreads, for the guard's limit
UNUSUAL = 0.9       # quantile of the largest one's share
LEAST = 0.05        # of their mean, that an arm's variance is taken to be


@dataclass(frozen=True)
class Pooled:
    """The spread of a family: of a block's and of a single run's rest."""

    block: float           # variance
    single: float
    df: float
    own: tuple[tuple[float, float], ...] | None = None
    """Of unequal arms, half the variance of each less the baseline, and its df."""

    def spread(self, arm: int, blocks: int, design: Design) -> tuple[float, float]:
        """The standard error of arm number ``arm`` (from 0) less the baseline, and its df."""
        block, df = (self.block, self.df) if self.own is None else self.own[arm]
        single = self.single * block / self.block if self.block else self.single
        return float((2 * (block / blocks + design.overlap * single)) ** 0.5), df


@dataclass(frozen=True)
class Family:
    """The arms of one labelled fraction, each less the baseline."""

    design: Design
    differences: dict[str, Estimate]
    pooled: Pooled | None         # None under MIN_BLOCKS
    over_cases: dict[str, float]  # standard errors over test cases, with rotated folds too
    tested: float                 # test cases of a seed, on average
    test_sets: int                # different ones
    notes: tuple[str, ...] = ()   # what was left out

    @property
    def arms(self) -> int:
        """How many arms there are to adjust for."""
        return max((one.arms for one in self.differences.values()), default=0)

    @property
    def moderated(self) -> bool:
        """Whether the arms' spreads were too unequal to be pooled."""
        return self.pooled is not None and self.pooled.own is not None


def compare(measure: Measure, arms: Mapping[str, Arm], baseline: str, design: Design, *,
            controls: Collection[str] = (), scores: Mapping[str, Mapping[int, float]] | None = None
            ) -> Family:
    """Compare every arm with the baseline, paired by seed and test case.

    ``scores`` (arm -> seed -> score) replace those of the cases, whose own spread then stands in
    for theirs. Arms without a seed of the baseline's are left out.
    """
    aligned = Aligned(measure, arms, design)
    y = aligned.scores if scores is None else np.array(
        [[scores[key].get(seed, np.nan) for seed in aligned.seeds] for key in aligned.keys])
    base = y[aligned.keys.index(baseline)]
    others = [key for key in aligned.keys if key != baseline
              and not np.isnan(y[aligned.keys.index(key)] - base).all()]
    members = [key for key in others if key not in controls]
    rows = np.stack([base, *(y[aligned.keys.index(key)] for key in members)])
    pooled = pool(rows, aligned.seeds, design)
    cases = {key: aligned.over_cases(key, baseline) for key in others}
    found = {}
    for key in others:
        one = own(aligned, y[aligned.keys.index(key)] - base,
                  0.0 if design.rotated else cases[key])
        if key in members and one.spread is not None and pooled is not None:
            blocks = len(design.averaged(np.array(one.scores), one.seeds))
            error, df = pooled.spread(members.index(key), blocks, design)
            one = replace(one, arms=len(members), spread=Spread(
                error, df, one.spread.cases, one.spread.cases_df))
        found[key] = one
    return Family(design, found, pooled, cases, aligned.tested, aligned.test_sets,
                  tuple(aligned.notes))


def pool(scores: Floats, seeds: Sequence[int], design: Design) -> Pooled | None:
    """Pool the spread of scores (1 + arms, seeds), the baseline's first; nan where there is none.

    None without an arm, or under MIN_BLOCKS.
    """
    blocks = design.averaged(scores, seeds)
    if len(scores) < 2 or blocks.shape[1] < MIN_BLOCKS:
        return None
    square, df = mean_square(blocks, shared=True)
    if df == 0:
        return None
    single = of_single(square, scores, seeds, design, shared=True)
    whole = blocks[:, ~np.isnan(blocks).any(axis=0)]
    if whole.shape[1] < MIN_BLOCKS or not unequal(whole):
        return Pooled(square, single, df)
    return Pooled(square, single, df, moderated(whole, square, df))


def unequal(scores: Floats) -> bool:
    """Whether one of the arms (arms, blocks) varies more than the others, UNUSUALLY so."""
    if len(scores) < 3:  # with one arm beside the baseline their rests mirror each other
        return False
    each = variances(scores)
    return bool(each.max() > _limit(*scores.shape) * each.sum())


def variances(scores: Floats) -> Floats:
    """Return the variance of each of three arms or more, scores (..., arms, blocks); at least 0."""
    arms, blocks = scores.shape[-2:]
    squares = (residuals(scores) ** 2).sum(axis=-1) / (blocks - 1)
    shared = squares.sum(axis=-1, keepdims=True) / (arms * (arms - 1))
    return np.asarray(np.maximum(0.0, (squares - shared) * arms / (arms - 2)))


def moderated(scores: Floats, square: float, df: float) -> tuple[tuple[float, float], ...]:
    """Return half the variance of each arm less the baseline (the first), and its df.

    Where it is below the pooled ``square``, that, with its ``df``: the guard only widens.
    """
    own_df = scores.shape[1] - 1
    each = variances(scores)
    each = np.maximum(each, LEAST * each.mean())
    logs = np.log(each) - digamma(own_df / 2) + np.log(own_df / 2)
    beyond = float(logs.var(ddof=1) - polygamma(1, own_df / 2))
    prior, middle = df, float(each.mean())
    if beyond > 0:
        prior = min(df, 2 * _inverse_trigamma(beyond))
        middle = float(np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2)))
    found = (prior * middle + own_df * each) / (prior + own_df)
    one_df = min(df, prior + own_df)
    halves = (found[1:] + found[0]) / 2
    dfs = (found[1:] + found[0]) ** 2 / ((found[1:] ** 2 + found[0] ** 2) / one_df)
    return tuple((square, df) if half < square else (float(half), round(min(df, float(one)), 1))
                 for half, one in zip(halves, dfs, strict=True))


@lru_cache(maxsize=64)
def _limit(arms: int, blocks: int) -> float:
    """The share of the largest variance that one in ten studies with equal spreads exceeds."""
    each = variances(np.random.default_rng(0).normal(size=(SIMULATED, arms, blocks)))
    return float(np.quantile(each.max(axis=-1) / each.sum(axis=-1), UNUSUAL))


def _inverse_trigamma(value: float) -> float:
    """Solve trigamma(x) = value by Newton's method (Smyth 2004, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        now = float(polygamma(1, x))
        step = now * (1 - now / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-9 * x:
            break
    return x
