"""Labels saved: the labelled fraction at which an arm reaches the baseline's score on all labels.

Between measured fractions a score is taken as linear in the logarithm of the fraction, the width of
its interval as the larger of the two neighbours'. The interval goes from the first fraction at
which the arm may be as good as the baseline on all labels to the first from which on it is: where
the interval of the difference, paired by seed and case, has reached zero, and where it has left it
for good. It is not adjusted for the number of arms. An arm saves labels where its interval ends
before the baseline's own begins: a baseline as good on fewer labels saves the same.

The spread is that of the family (family.py). With m[b] the mean over the arms of a fraction,
baseline included, and t[b] the baseline's score on all labels,

    y[a, b] - t[b]  =  (y[a, b] - m[b])  +  (m[b] - t[b]).

The first part varies by s^2 (1 - 1 / arms) / blocks, s^2 pooled over the arms. The second is the
same for every arm, and its spread is its own. Within a block a contrast of arms and their mean are
independent, so half the interval is the root of the two squared, each with its own quantile.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.stats.estimates import (
    MIN_BLOCKS,
    Aligned,
    Design,
    Spread,
    of_single,
    own,
    own_spread,
)
from common.stats.family import pool
from common.stats.measures import Arm, Floats, Measure

POINTS = 401  # fractions looked at, evenly over their logarithm: 0.75 % apart from 5 to 100 %
ALL = 100     # percent

Key = tuple[str, int]  # arm and fraction


@dataclass(frozen=True)
class Reached:
    """Fractions in percent; None where not reached up to the largest that was measured."""

    fraction: float | None      # of the estimate
    low: float | None           # from here on it may be as good
    high: float | None          # from here on it is; None also without an interval
    fractions: tuple[int, ...]  # measured with every one of
    seeds: tuple[int, ...]      # which are those of the baseline on all labels
    bounded: bool               # whether there are seeds enough for an interval

    @property
    def estimate(self) -> str:
        """The fraction of the estimate."""
        return self._shown(self.fraction)

    @property
    def interval(self) -> str:
        """Both ends; none, and no claim, under MIN_BLOCKS."""
        return (f"{self._shown(self.low)} to {self._shown(self.high)}" if self.bounded
                else f"none under {MIN_BLOCKS} seeds")

    def _shown(self, value: float | None) -> str:
        """A fraction as in "12 %", "at most 5 %" or "not reached"."""
        if value is None:
            most = self.fractions[-1]
            return "not reached" + (f" up to {most} %" if most < ALL else "")
        if value <= self.fractions[0]:
            return f"at most {self.fractions[0]} %"
        return f"{value:.1f} %" if value < 10 else f"{value:.0f} %"


@dataclass(frozen=True)
class Gain:
    """An arm at a fraction less the baseline on all labels."""

    mean: float
    half: float | None  # None without an interval


def reached(measure: Measure, arms: Mapping[Key, Arm], baseline: str, folds: int = 1,
            controls: Collection[str] = ()) -> dict[str, Reached]:
    """Where each arm's curve reaches the score of the baseline on all labels.

    Fractions without all of that baseline's seeds are left out. Empty without it; an arm is left
    out with fewer than two fractions, if a score cannot be had, or if nothing ever differs.
    """
    target = (baseline, ALL)
    if target not in arms:
        return {}
    seeds = set(arms[target])
    whole = {key: {seed: arm[seed] for seed in seeds} for key, arm in arms.items()
             if seeds <= set(arm)}
    gains: dict[str, dict[int, Gain]] = {}
    for fraction in sorted({fraction for _, fraction in whole}):
        here = {key: arm for key, arm in whole.items() if key[1] == fraction or key == target}
        aligned = Aligned(measure, here, Design(folds, ALL), together=lambda key: key[1])
        for name, gain in _gains(aligned, target, Design(folds, fraction), controls).items():
            gains.setdefault(name, {})[fraction] = gain
    blocks = {Design(folds).block(seed) for seed in seeds}
    return {name: _crossed(found, tuple(sorted(seeds)), len(blocks) >= MIN_BLOCKS)
            for name, found in gains.items() if len(found) > 1
            and np.isfinite([gain.mean for gain in found.values()]).all()
            and any(gain.mean != 0 for gain in found.values())}


def _gains(aligned: Aligned[Key], target: Key, design: Design,
           controls: Collection[str]) -> dict[str, Gain]:
    """The gains at one fraction over the baseline on all labels."""
    keys, fraction, seeds = aligned.keys, round(design.fraction), aligned.seeds
    goal = aligned.scores[keys.index(target)]
    scores = {key[0]: aligned.scores[keys.index(key)] for key in keys if key[1] == fraction}
    members = sorted((name for name in scores if name not in controls),
                     key=lambda name: name != target[0])  # the baseline first
    found = {}
    for name, of_arm in scores.items():
        key = (name, fraction)
        over_cases = 0.0 if design.rotated or key == target else aligned.over_cases(key, target)
        one = own(aligned, of_arm - goal, over_cases)
        if one.spread is None or key == target:
            found[name] = Gain(one.mean, None if one.spread is None else 0.0)
        elif name in members and len(members) > 1:
            family = np.stack([scores[member] for member in members])
            half = (within(family, members.index(name), seeds, design, over_cases=over_cases,
                           cases=round(aligned.tested)) if fraction == ALL else
                    across(family, goal, seeds, design, over_cases=over_cases,
                           cases=round(aligned.tested)))
            found[name] = Gain(one.mean, half)
        else:
            found[name] = Gain(one.mean, one.half)
    return found


def within(family: Floats, arm: int, seeds: Sequence[int], design: Design, *, over_cases: float,
           cases: int) -> float | None:
    """Return half the interval of an arm (from 1) less the baseline, scores (1 + arms, seeds)."""
    if (pooled := pool(family, seeds, design)) is None:
        return None
    blocks = design.averaged(family, seeds).shape[1]
    return Spread(*pooled.spread(arm - 1, blocks, design), over_cases, max(1, cases - 1)).half()


def across(family: Floats, goal: Floats, seeds: Sequence[int], design: Design, *,
           over_cases: float, cases: int) -> float | None:
    """Return half the interval of an arm of a family (arms, seeds) less a score on all labels.

    ``goal`` (seeds) is that of the baseline on all labels; ``design`` is of the family.
    """
    shared = _shared(family.mean(axis=0), goal, seeds, design)
    pooled = pool(family, seeds, design)
    if shared is None or pooled is None:
        return None
    both = replace(shared, cases=over_cases, cases_df=max(1, cases - 1))
    blocks = design.averaged(goal, seeds).shape[-1]
    apart = (1 - 1 / len(family)) * (pooled.block / blocks + design.overlap * pooled.single)
    return float(np.hypot(both.half(), Spread(apart**0.5, pooled.df).half()))


def _shared(family: Floats, goal: Floats, seeds: Sequence[int], design: Design) -> Spread | None:
    """The spread of a family's mean (seeds) less the goal.

    What seeds share by their training cases is in proportion to the fraction for the family; the
    goal, on all labels, brings at most its own variance.
    """
    spread = own_spread(family - goal, seeds, Design(design.folds, 0.0), 0.0, 0)
    if spread is None:
        return None
    singles = [of_single(float(design.averaged(one, seeds).var(ddof=1)), one[None], seeds, design,
                         shared=False) for one in (family - goal, goal)]
    all_labels = Design(design.folds, ALL).overlap
    added = design.overlap * singles[0] + (all_labels - design.overlap) * min(singles)
    return replace(spread, runs=(spread.runs**2 + added) ** 0.5)


def _crossed(gains: Mapping[int, Gain], seeds: tuple[int, ...], bounded: bool) -> Reached:
    """Where gains by fraction, and the ends of their intervals, reach zero."""
    fractions = tuple(gains)
    widths = np.array([gain.half or 0.0 for gain in gains.values()])
    knots = np.log(fractions)
    points = np.unique(np.concatenate([np.linspace(knots[0], knots[-1], POINTS), knots]))
    mean = np.interp(points, knots, [gain.mean for gain in gains.values()])
    right = np.searchsorted(knots, points)                      # of each point; itself at a knot
    left = np.where(np.isin(points, knots), right, np.maximum(right - 1, 0))
    half = np.maximum(widths[left], widths[right])
    ends = [_exact(points, index, fractions) for index in (
        _first(mean >= 0), _first(mean + half >= 0), _for_good(mean - half >= 0))]
    low, high = ends[1:] if bounded else (None, None)
    return Reached(ends[0], low, high, fractions, seeds, bounded)


def _first(reaches: NDArray[np.bool_]) -> int | None:
    """The first point that reaches; None if none does."""
    return int(reaches.argmax()) if reaches.any() else None


def _for_good(reaches: NDArray[np.bool_]) -> int | None:
    """The first point from which on all reach; None if the last does not."""
    if not reaches[-1]:
        return None
    return int(np.flatnonzero(~reaches)[-1]) + 1 if not reaches.all() else 0


def _exact(points: Floats, index: int | None, fractions: tuple[int, ...]) -> float | None:
    """The fraction of a point, without the rounding of a logarithm at the ends."""
    if index is None or index in (0, len(points) - 1):
        return None if index is None else float(fractions[-1 if index else 0])
    return float(np.exp(points[index]))
