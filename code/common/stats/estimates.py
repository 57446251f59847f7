"""Means over seeds with their intervals; arms aligned on the same seeds, draws and test cases.

A *block* is what the spread is taken over. With one fixed test set it is a seed, and the test cases
are a second spread, had by bootstrap: half an interval is

    sqrt((q(runs) * SE over seeds)^2 + (q(cases) * SE over test cases)^2),

each with the quantile of its own degrees of freedom. With rotated folds a block is a fold, whose
seeds are averaged first: folds share no test case, so that the spread over them holds that over the
cases already, and half the interval is q(runs) * SE alone.

Seeds of different folds share training cases, so their scores are correlated and the mean varies by
more than SD / sqrt(blocks). Nadeau and Bengio 2003, Inference for the Generalization Error, put the
correlation of two runs that train on n_train and test on n_test other cases at
n_test / (n_test + n_train), which makes the variance of the mean

    SD_block^2 / blocks + overlap * SD_run^2,    overlap = n_test / n_train = 1 / (FOLDS - 1).

They train on all of n_train. Of labelled subsets of a share f, a case of the one is in the other
with f times that probability, and what a case adds to a score is, to first order, its own: so the
correlation, and here the overlap, is f times theirs (derived here; code/bench/coverage.py tries
it). SD_run is that of single seeds, SD_block that of blocks: a mean of several seeds of one fold
averages out what differs between them, but not what they have learnt from the same cases.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np

from common.errors import InputError
from common.stats import dunnett
from common.stats.measures import Arm, Cases, Floats, Measure, resamples

LEVEL = 0.95   # coverage of every interval
MIN_BLOCKS = 3  # seeds, or folds; fewer get no interval: t(1) is 12.7, and one has no spread

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item", int, str)


@dataclass(frozen=True)
class Design:
    """How the runs of a study share cases."""

    folds: int = 1           # seed k is tested on fold k mod this; 1: one fixed test set
    fraction: float = 100.0  # percent of the training cases labelled

    @property
    def rotated(self) -> bool:
        """Whether seeds are tested on different cases."""
        return self.folds > 1

    @property
    def overlap(self) -> float:
        """Times the variance of one run: what shared training cases add to that of a mean."""
        return self.fraction / 100 / (self.folds - 1) if self.rotated else 0.0

    def block(self, seed: int) -> int:
        """The number of the block that a seed belongs to."""
        return seed % self.folds if self.rotated else seed

    def averaged(self, scores: Floats, seeds: Sequence[int]) -> Floats:
        """Average scores (..., seeds) within blocks -> (..., blocks), nan where all are.

        Over the seeds that all rows have, if there are any in the block: what a seed does to all
        arms alike has to cancel.
        """
        numbers = [self.block(seed) for seed in seeds]
        if len(set(numbers)) == len(numbers):
            return scores
        blocks = []
        for block in sorted(set(numbers)):
            part = scores[..., [number == block for number in numbers]]
            whole = ~np.isnan(part).reshape(-1, part.shape[-1]).any(axis=0)
            blocks.append(_mean(part[..., whole] if whole.any() else part))
        return np.stack(blocks, axis=-1)


@dataclass(frozen=True)
class Spread:
    """Standard errors of an estimate, each with its degrees of freedom."""

    runs: float         # over blocks
    runs_df: float
    cases: float = 0.0  # over test cases; 0 where the blocks hold it
    cases_df: float = 1

    def half(self, arms: int = 1, alpha: float = 1 - LEVEL) -> float:
        """Half the interval of ``arms`` that miss together with probability ``alpha``."""
        runs, cases = (error * dunnett.quantile(arms, df, alpha) if error else 0.0 for error, df in
                       ((self.runs, self.runs_df), (self.cases, self.cases_df)))
        return float(np.hypot(runs, cases))

    @property
    def error(self) -> float:
        """The standard error of the estimate."""
        return float(np.hypot(self.runs, self.cases))

    def p(self, estimate: float, arms: int = 1) -> float:
        """The ``alpha`` at which the interval ends at zero: the two-sided p."""
        if self.error == 0:
            return 1.0 if estimate == 0 else 0.0
        if self.cases == 0:
            return dunnett.outside(abs(estimate) / self.runs, arms, self.runs_df)
        low, high = 1e-6, 1.0 - 1e-9  # below a millionth nobody asks
        for _ in range(24):
            middle = (low * high) ** 0.5
            low, high = (low, middle) if self.half(arms, middle) < abs(estimate) else (middle, high)
        return high


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or a mean paired difference, with its interval."""

    mean: float
    spread: Spread | None       # None under MIN_BLOCKS
    seeds: tuple[int, ...]
    scores: tuple[float, ...]   # one a seed
    counted: tuple[int, ...]    # test cases that count, one number a seed
    arms: int = 1               # that the adjusted interval holds for at once
    bounds: tuple[float, float] = (-np.inf, np.inf)  # what it can be

    @property
    def half(self) -> float | None:
        """Half the width of the interval; None under MIN_BLOCKS."""
        return self.spread.half() if self.spread else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the interval of this estimate alone, None under MIN_BLOCKS."""
        return self._ends(1)

    @property
    def adjusted(self) -> tuple[float, float] | None:
        """The ends of an interval that holds for all ``arms`` at once."""
        return self._ends(self.arms)

    @property
    def p(self) -> float | None:
        """Two-sided, against zero, of this estimate alone; None under MIN_BLOCKS."""
        return self.spread.p(self.mean) if self.spread else None

    @property
    def adjusted_p(self) -> float | None:
        """The same for all ``arms`` at once: Dunnett's single step."""
        return self.spread.p(self.mean, self.arms) if self.spread else None

    def _ends(self, arms: int) -> tuple[float, float] | None:
        if self.spread is None:
            return None
        half = self.spread.half(arms)
        low, high = self.bounds
        return max(low, self.mean - half), min(high, self.mean + half)


class Aligned(Generic[Key]):
    """Arms on the test cases and draws that all of their runs have: what estimates are made of.

    A case that does not count in one arm counts in none: the difference of two means is then the
    mean of per-case differences. Draws have to be had by all arms for which ``together`` (of a key)
    is alike: arms of one fraction are compared on the same labels, and one fraction may have more
    draws than another. ``notes`` say what was left out.
    """

    def __init__(self, measure: Measure, arms: Mapping[Key, Arm], design: Design,
                 together: Callable[[Key], Hashable] = lambda key: None) -> None:
        self.measure, self.design = measure, design
        self.keys = list(arms)
        self.seeds = sorted({seed for arm in arms.values() for seed in arm})
        self.notes: list[str] = []
        draws = {(key, seed): _common([set(other[seed]) for name, other in arms.items()
                                       if seed in other and together(name) == together(key)])
                 for key, arm in arms.items() for seed in arm}
        self.seeds = [seed for seed in self.seeds
                      if all(draws[key, seed] for key, arm in arms.items() if seed in arm)]
        if lost := sorted({draw for key, arm in arms.items() for seed in arm
                           for draw in set(arm[seed]) - set(draws[key, seed])}):
            self.notes.append(f"{_listed('draw', lost)} not of every arm, left out")
        self.rows: dict[Key, dict[int, Floats]] = {key: {} for key in arms}  # (draws, cases, k)
        for fold in sorted({seed % design.folds for seed in self.seeds}):
            self._take(arms, [s for s in self.seeds if s % design.folds == fold], draws)

    def _take(self, arms: Mapping[Key, Arm], seeds: Sequence[int],
              draws: Mapping[tuple[Key, int], list[int]]) -> None:
        """Take the rows of the seeds that are tested on the same cases."""
        def runs(seed: int) -> list[tuple[Key, list[Cases]]]:
            return [(key, [arm[seed][draw] for draw in draws[key, seed]])
                    for key, arm in arms.items() if seed in arm]
        tested = [set(cases) for seed in seeds for _, each in runs(seed) for cases in each]
        shared = _common(tested)
        if not shared:
            raise InputError(f"seed {seeds[0]}: no test case is in all of its runs ({len(tested)} "
                             "runs); the records are of different studies, or damaged")
        if lost := sorted(set().union(*tested) - set(shared)):
            self.notes.append(f"{_listed('case', lost)} not in every run, left out")
        for seed in seeds:
            rows = {key: np.stack([self.measure.contributions([cases[case] for case in shared])
                                   for cases in each]) for key, each in runs(seed)}
            counts = np.logical_and.reduce([one.any(axis=(2)).all(axis=0) for one in rows.values()])
            for key, one in rows.items():
                self.rows[key][seed] = one * counts[:, None]

    @cached_property
    def scores(self) -> Floats:
        """(arms, seeds): the mean over draws; nan where an arm lacks a seed."""
        return np.array([[self._score(self.rows[key][seed].sum(axis=1)) if seed in self.rows[key]
                          else np.nan for seed in self.seeds] for key in self.keys])

    def counted(self, seed: int) -> int:
        """How many test cases of a seed count."""
        rows = next(one[seed] for one in self.rows.values() if seed in one)
        return int(rows[0].any(axis=1).sum())

    @property
    def tested(self) -> float:
        """How many test cases of a seed count, on average."""
        return float(np.mean([self.counted(seed) for seed in self.seeds]))

    @property
    def test_sets(self) -> int:
        """How many different test sets there are."""
        return len({seed % self.design.folds for seed in self.seeds})

    def over_cases(self, key: Key, other: Key | None = None) -> float:
        """The standard error over test cases of an arm's mean, or of its mean less the other's.

        By bootstrap within each fold; predictions of different networks are never pooled.
        """
        seeds = [seed for seed in self.seeds if seed in self.rows[key]
                 and (other is None or seed in self.rows[other])]
        variances = []
        for fold in sorted({seed % self.design.folds for seed in seeds}):
            drawn = np.stack([self._drawn(key, seed) - (0 if other is None
                              else self._drawn(other, seed))
                              for seed in seeds if seed % self.design.folds == fold])
            number = max(self.counted(seed) for seed in seeds if seed % self.design.folds == fold)
            # a draw without any case that counts has no score, and says nothing about the spread;
            # the variance of a bootstrap is (n - 1) / n of it
            variances.append(float(np.nanvar(drawn.mean(axis=0), ddof=1))
                             * number / max(1, number - 1))
        return float(np.sqrt(np.sum(variances))) / max(1, len(variances))

    def drawn(self, key: Key) -> Floats:
        """Bootstrap draws of an arm's mean over seeds, the same test cases for all arms."""
        return np.asarray(np.mean([self._drawn(key, seed) for seed in self.rows[key]], axis=0))

    def _drawn(self, key: Key, seed: int) -> Floats:
        """Scores of a seed's bootstrap draws of test cases, the mean over draws of labels."""
        if (key, seed) not in self._known:
            rows = self.rows[key][seed]  # of all draws side by side: one product is the fastest
            sums = resamples(rows.shape[1]) @ np.concatenate(rows, axis=1)
            self._known[key, seed] = self.measure.combine(
                sums.reshape(len(sums), len(rows), -1)).mean(axis=1)
        return self._known[key, seed]

    @cached_property
    def _known(self) -> dict[tuple[Key, int], Floats]:
        return {}

    def _score(self, sums: Floats) -> float:
        return float(self.measure.combine(sums).mean())


def mean(measure: Measure, arm: Arm, design: Design) -> Estimate:
    """Estimate an arm's mean over its seeds; of several of one fold, the mean of folds."""
    aligned = Aligned(measure, {"": arm}, design)
    return own(aligned, aligned.scores[0], aligned.over_cases("") if not design.rotated else 0.0,
               measure.bounds)


def own(aligned: Aligned[Key], scores: Floats, over_cases: float,
        bounds: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
    """Estimate the mean of ``scores`` (seeds), nan where there is none, by their own spread."""
    there = ~np.isnan(scores)
    seeds = [seed for seed, one in zip(aligned.seeds, there, strict=True) if one]
    counted = tuple(aligned.counted(seed) for seed in seeds)
    blocks = aligned.design.averaged(scores[there], seeds)
    spread = own_spread(scores[there], seeds, aligned.design, over_cases, max(counted, default=0))
    return Estimate(float(blocks.mean()) if len(blocks) else np.nan, spread, tuple(seeds),
                    tuple(map(float, scores[there])), counted, bounds=bounds)


def own_spread(scores: Floats, seeds: Sequence[int], design: Design, over_cases: float,
               cases: int) -> Spread | None:
    """Return the spread of the mean of scores (seeds) by these alone; None under MIN_BLOCKS."""
    blocks = design.averaged(scores, seeds)
    if len(blocks) < MIN_BLOCKS or not np.isfinite(blocks).all():
        return None
    between = float(blocks.var(ddof=1))
    single = of_single(between, scores[None], seeds, design, shared=False)
    return Spread((between / len(blocks) + design.overlap * single) ** 0.5, len(blocks) - 1,
                  over_cases, max(1, cases - 1))


def of_single(between: float, scores: Floats, seeds: Sequence[int], design: Design, *,
              shared: bool) -> float:
    """Return the variance of single seeds, from that of blocks and scores (arms, seeds)."""
    numbers = np.array([design.block(seed) for seed in seeds])
    parts = [scores[:, numbers == block] for block in np.unique(numbers)]
    within = [mean_square(part, shared=shared) for part in parts if part.shape[1] > 1]
    df = sum(one for _, one in within)
    square = sum(value * one for value, one in within) / df if df else 0.0
    return between + (1 - float(np.mean([1 / part.shape[1] for part in parts]))) * square


def mean_square(scores: Floats, *, shared: bool) -> tuple[float, float]:
    """Return the variance that means leave of scores (arms, blocks), and its degrees of freedom.

    Means of arms, and with ``shared`` of blocks too: what a block does to all arms alike.
    """
    arms, blocks = scores.shape
    there = ~np.isnan(scores)
    if there.all():
        rest = residuals(scores) if shared else scores - scores.mean(axis=1, keepdims=True)
        df = float((arms - shared) * (blocks - 1))
        return (float((rest**2).sum() / df) if df else 0.0), df
    rows, columns = np.nonzero(there)
    terms = np.concatenate([np.eye(arms)[rows], np.eye(blocks)[columns][:, :shared * blocks]], 1)
    found, _, rank, _ = np.linalg.lstsq(terms, scores[there], rcond=None)
    df = float(len(rows) - rank)
    return (float(((scores[there] - terms @ found) ** 2).sum() / df) if df else 0.0), df


def residuals(scores: Floats) -> Floats:
    """Scores (..., arms, blocks) less the mean of their arm and that of their block."""
    return (scores - scores.mean(axis=-1, keepdims=True) - scores.mean(axis=-2, keepdims=True)
            + scores.mean(axis=(-2, -1), keepdims=True))


def _mean(scores: Floats) -> Floats:
    """The mean over the last axis of what is there; nan where nothing is."""
    there = ~np.isnan(scores)
    number = there.sum(axis=-1)
    total = np.where(there, scores, 0.0).sum(axis=-1)
    return np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0)


def _common(sets: Sequence[set[Item]]) -> list[Item]:
    """What all sets have, sorted."""
    return sorted(set.intersection(*sets)) if sets else []


def _listed(word: str, items: Sequence[object], limit: int = 5) -> str:
    """Write "seed 1", "seeds 1, 2" or "cases a, b, c, d, e and 4 more"."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return f"{word}{'s' * (len(items) > 1)} {', '.join(map(str, items[:limit]))}{more}"
