"""Exchange rates: what pretraining is worth in labelled cases, from a curve through each arm.

The curve of n labelled cases is an inverse power law a - b n^-c, or a line in log n. Its bend c is
one for all arms: a and b are an arm's own, and few scores tell no bend apart. A law is taken where
the baseline has POWER_FRACTIONS fractions, c lies within EXPONENTS, the baseline rises to at most
the measure's upper bound, and all arms together are nearer to it by AIC (two units of squared
standard errors for c). By weighted least squares. A shift of a whole curve says nothing of its
form, so a fraction's weight is had from the spread of a block's scores about the block's own level,
all arms together, and from a line through its logarithm over that of n.

Intervals. A score is y[a, f, b] = m[a, f] + block[f, b] + rest[a, f, b] (family.py), at all
fractions at once. All means are drawn DRAWS times together, every curve is fitted anew, its form
chosen anew, and the 2.5 to 97.5 percentiles are the interval. A draw adds to the means

    block   the mean over the arms less its own mean, times normal weights of the blocks: the
            covariance of all fractions as it was seen, scaled to t(blocks - 1);
    rest    for each arm apart, the rests of all arms with normal weights, less the mean over the
            arms: pooled covariance of fractions (shared encoders, nested subsets), scaled to
            t((arms - 1)(blocks - 1)), arms the fewest of a fraction that has any beside the
            baseline, 1 and 2 by 1 / blocks + overlap (estimates.py);
    cases   with one test set, one bootstrap draw of the test cases, the same for all arms and
            fractions: a hard test set moves all curves.

So a difference of an arm and the baseline keeps what is theirs alone. Intervals are of one arm;
that an arm needs fewer labels is said where it holds for all at once (Bonferroni). Arms are taken
to vary alike; controls are left out. Draws of labelled subsets are those that all arms of a
fraction have. The score that labels are counted to is a number that was asked for, or where the
baseline's curve ends: then it is drawn with it, for what moves all curves moves it too. Under
MIN_BLOCKS no interval is given, and the curve is a line. Nothing is looked up beyond BEYOND times
the largest measured n, and what lies above that n is extrapolated. What labels are worth takes no
curve: worth.py. Coverage: code/bench/coverage.py.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.stats.estimates import MIN_BLOCKS, Aligned, Design, of_single
from common.stats.measures import RESAMPLES, Arm, Floats, Measure
from common.stats.savings import ALL, Key
from common.stats.worth import POWER_FRACTIONS, TAIL, Value, interval, worth

DRAWS = RESAMPLES        # one a bootstrap draw of the test cases
EXPONENTS = np.geomspace(0.1, 2, 40)  # of the power law; an end is a bound that was hit
BETTER = 2.0             # of squared standard errors: AIC's price of one more number
BEYOND = 2               # times the largest measured number of labels; nothing beyond is looked up
SCORES = 25              # at which labels saved are given
TINY = 1e-6              # least standard error, where nothing varies


@dataclass(frozen=True)
class Fit:
    """Curves of one arm: that of its means, then one a draw; c = 0: a + b log n."""

    a: Floats
    b: Floats
    c: Floats
    least: float  # labelled cases measured
    most: float
    bound: float  # of the score

    @property
    def power(self) -> bool:
        """Whether the curve of the means is a power law."""
        return bool(self.c[0] > 0)

    def at(self, n: Floats | float) -> Floats:
        """Scores of n labelled cases."""
        n = np.asarray(n, float)
        return np.asarray(np.minimum(self.bound, np.where(
            self.c > 0, self.a - self.b * n**-self.c, self.a + self.b * np.log(n))))

    def best(self) -> Floats:
        """The highest scores between the labels that were measured."""
        return np.maximum(self.at(self.least), self.at(self.most))

    def doubling(self, n: float) -> Floats:
        """The slopes at n: score per doubling of the labels."""
        return np.asarray(np.log(2) * np.where(self.c > 0, self.b * self.c * n**-self.c, self.b))

    def reach(self, score: Floats | float) -> Floats:
        """Labelled cases of a score; ``least`` also for fewer, inf beyond BEYOND times ``most``."""
        with np.errstate(all="ignore"):
            line = np.exp((score - self.a) / self.b)
            law = np.where(score < self.a, (self.b / (self.a - score)) ** (1 / self.c), np.inf)
            found = np.where(self.c > 0, law, line)
        flat = np.where(self.at(self.least) >= score, self.least, np.inf)
        found = np.maximum(self.least, np.where(self.b > 0, found, flat))
        return np.asarray(np.where(found > BEYOND * self.most, np.inf, found))


@dataclass(frozen=True)
class Rate:
    """One arm's exchange rates."""

    fit: Fit
    points: dict[int, tuple[float, float]]  # fraction -> labelled cases, mean score
    reach: Value                            # labels to reach the target
    saved: Value | None                     # there; None for the baseline
    fewer: bool                             # whether that is shown, for all arms at once
    twice: Value                            # what twice the labels bring; extrapolated
    along: list[tuple[float, Value]]        # score -> labels saved


@dataclass(frozen=True)
class Exchange:
    """All arms' exchange rates."""

    target: float
    rates: dict[str, Rate]    # by arm that has two fractions, baseline first
    worth: dict[str, dict[int, Value]]  # arm -> fraction -> labels that the baseline needs for it
    labelled: dict[int, float]  # fraction -> labelled cases
    bounded: bool             # whether there are blocks enough for intervals


def exchange(measure: Measure, arms: Mapping[Key, Arm], baseline: str,
             labelled: Mapping[int, float], *, folds: int = 1, controls: Collection[str] = (),
             target: float | None = None) -> Exchange | None:
    """Exchange rates of all arms; None if the baseline has no two fractions.

    Fractions of arms without all seeds of the baseline's are left out.
    """
    own = [set(arm) for (name, _), arm in arms.items() if name == baseline]
    seeds = max(own, key=len, default=set())
    whole = {key: {seed: arm[seed] for seed in seeds} for key, arm in arms.items()
             if seeds <= set(arm) and key[0] not in controls}
    fractions = sorted({at for name, at in whole if name == baseline})
    whole = {key: arm for key, arm in whole.items() if key[1] in fractions}
    names = [baseline, *sorted({name for name, _ in whole} - {baseline})]
    if len(fractions) < 2:
        return None
    aligned = Aligned(measure, whole, Design(folds, ALL), together=lambda key: key[1])
    y = np.full((len(names), len(fractions), len(aligned.seeds)), np.nan)
    cases = np.zeros((*y.shape[:2], DRAWS))
    for key, scores in zip(aligned.keys, aligned.scores, strict=True):
        place = names.index(key[0]), fractions.index(key[1])
        y[place] = scores
        if folds == 1:
            cases[place] = aligned.drawn(key)
    if not np.isfinite(y[0]).all():
        return None
    drawn, spread = points(y, aligned.seeds, folds, fractions, tested=aligned.tested,
                           cases=cases if folds == 1 else None)
    of_arm = dict(zip(names, drawn.swapaxes(0, 1), strict=True))
    cases_of = {fraction: float(labelled[fraction]) for fraction in fractions}
    found = rates(of_arm, spread, cases_of, target=target, bound=measure.bounds[1])
    return Exchange(float(found[baseline].fit.best()[0]) if target is None else target, found,
                    worth(of_arm, cases_of), cases_of, len(drawn) > 1)


def points(y: Floats, seeds: Sequence[int], folds: int, fractions: Sequence[int], *,
           cases: Floats | None, tested: float) -> tuple[Floats, Floats | None]:
    """Means of scores (arms, fractions, seeds), then DRAWS of them: (1 + DRAWS, arms, fractions).

    And the standard error of a mean at each fraction about its curve's level. Without draws, and
    None, under MIN_BLOCKS. ``cases`` (arms, fractions, DRAWS) are bootstrap draws of ``tested``
    test cases; None where blocks hold their spread. nan where an arm has no such fraction.
    """
    blocks = Design(folds).averaged(y, seeds)
    number = blocks.shape[-1]
    means = blocks.mean(axis=-1)
    if number < MIN_BLOCKS:
        return means[None], None
    rng = np.random.default_rng(0)
    from_mean = blocks - means[..., None]
    shared = np.nanmean(from_mean, axis=0)  # (fractions, blocks)
    rest = np.nan_to_num(from_mean - shared)
    noise = _t(rng, number - 1) * (rng.normal(size=(DRAWS, number)) @ shared.T)[:, None]
    noise = noise * _factors(np.nanmean(y, axis=0, keepdims=True), shared[None], seeds, folds,
                             fractions)
    arms = np.isfinite(means).sum(axis=0)
    if len(y) > 1:
        each = rng.normal(size=(DRAWS, len(y), len(y) * number)) @ (
            rest.swapaxes(1, 2).reshape(-1, len(fractions))) * _factors(
                y, rest, seeds, folds, fractions) / np.maximum(1, arms - 1) ** 0.5
        each = np.where(np.isfinite(means), each, np.nan)
        fewest = int(min(arms[arms > 1], default=2))  # of a fraction that compares any
        noise = noise + _t(rng, (fewest - 1) * (number - 1)) * (
            each - np.nanmean(each, axis=1, keepdims=True))
    if cases is not None:
        moved = np.nan_to_num(cases - np.nanmean(cases, axis=-1, keepdims=True))
        noise = noise + _t(rng, max(1, round(tested) - 1)) * moved.transpose(2, 0, 1) * (
            tested / max(1, tested - 1)) ** 0.5
    curved = np.isfinite(means).sum(axis=1) >= 2  # one score says nothing of a form
    return np.concatenate([means[None], means + noise]), _about_level(from_mean[curved])


def _t(rng: np.random.Generator, df: int) -> Floats:
    """What makes normal draws those of Student's t: (DRAWS, 1, 1)."""
    return np.asarray((df / rng.chisquare(df, DRAWS)) ** 0.5)[:, None, None]


def _factors(y: Floats, rest: Floats, seeds: Sequence[int], folds: int,
             fractions: Sequence[int]) -> Floats:
    """What turns sums over blocks of rests (arms, fractions, blocks) into errors of a mean.

    The root of (1 / blocks + overlap * single / block) / (blocks - 1), a fraction each.
    """
    number, found = rest.shape[-1], []
    for place, fraction in enumerate(fractions):
        design = Design(folds, fraction)
        there = np.isfinite(y[:, place]).all(axis=-1)
        block = float((rest[:, place] ** 2).sum()) / (number - 1) / max(1, there.sum() - 1)
        single = of_single(block, y[there, place], seeds, design, shared=len(y) > 1)
        found.append((1 / number + design.overlap * (single / block if block else 1.0))
                     / (number - 1))
    return np.sqrt(found)


def _about_level(from_mean: Floats) -> Floats:
    """The standard error of a mean at each fraction, a block's own level left out; smoothed."""
    arms = np.isfinite(from_mean).all(axis=-1).sum(axis=0)
    number, fractions = from_mean.shape[-1], from_mean.shape[1]
    rest = from_mean - np.nanmean(from_mean, axis=1, keepdims=True)
    square = np.nansum(rest**2, axis=(0, 2)) / (arms * (number - 1) * number)
    return np.maximum(TINY, np.sqrt(square * fractions / max(1, fractions - 1)))


def rates(drawn: Mapping[str, Floats], spread: Floats | None, labelled: Mapping[int, float], *,
          target: float | None, bound: float) -> dict[str, Rate]:
    """Exchange rates from means and their draws (1 + DRAWS, fractions), the baseline's first.

    ``target``: the score that labels are counted to; None: the best of the baseline's curve.
    """
    n = np.array(list(labelled.values()))
    if spread is not None and len(set(n)) > 2:  # a line through its logarithm
        spread = np.exp(np.polyval(np.polyfit(np.log(n), np.log(spread), 1), np.log(n)))
    found: dict[str, Rate] = {}
    curves = fit({name: y for name, y in drawn.items() if np.isfinite(y[0]).sum() >= 2}, n, spread,
                 bound)
    base = next(iter(curves.values()))
    goal = base.best() if target is None else np.full(len(base.c), target)
    for name, curve in curves.items():
        y, there = drawn[name], np.isfinite(drawn[name][0])
        reach = curve.reach(goal)
        found[name] = Rate(
            curve, {fraction: (n[place], float(y[0, place])) for place, fraction in
                    enumerate(labelled) if there[place]}, interval(reach),
            _saved(base.reach(goal), reach) if found else None,
            bool(found) and ((_saved(base.reach(goal), reach, TAIL / (len(drawn) - 1)).low or 0)
                             > 0),
            interval(curve.at(BEYOND * curve.most) - curve.at(curve.most)),
            along(base, curve) if found else [])
    return found


def fit(drawn: Mapping[str, Floats], n: Floats, spread: Floats | None,
        bound: float) -> dict[str, Fit]:
    """Fit a curve to each row of each arm's scores (rows, fractions) at n, the baseline's first.

    One bend for all arms in a row. ``spread``: the scores' standard errors; without it a line.
    nan where an arm has no such fraction.
    """
    weights = 1 / spread if spread is not None else np.ones(len(n))
    there = {name: np.isfinite(y[0]) for name, y in drawn.items()}

    def all_of(x: Floats) -> tuple[dict[str, Floats], Floats]:
        tried = {name: _least_squares(y[:, there[name]], x[there[name]], weights[there[name]])
                 for name, y in drawn.items()}
        return ({name: numbers for name, (numbers, _) in tried.items()},
                np.sum([misses for _, misses in tried.values()], axis=0))
    numbers, misses = all_of(np.log(n))
    first = next(iter(drawn))
    bend = np.zeros(len(drawn[first]))
    if spread is not None and there[first].sum() >= POWER_FRACTIONS:
        laws = [all_of(-n**-exponent) for exponent in EXPONENTS]
        left = np.stack([squares for _, squares in laws])
        best, rows = left.argmin(axis=0), np.arange(len(bend))
        power = {name: np.stack([law[name] for law, _ in laws])[best, :, rows].T for name in drawn}
        taken = ((best > 0) & (best < len(EXPONENTS) - 1) & (power[first][0] <= bound)
                 & (power[first][1] > 0) & (left.min(axis=0) + BETTER < misses))
        bend = np.where(taken, EXPONENTS[best], bend)
        numbers = {name: np.where(taken, power[name], line) for name, line in numbers.items()}
    return {name: Fit(a, b, bend, float(n[there[name]].min()), float(n[there[name]].max()), bound)
            for name, (a, b) in numbers.items()}


def _least_squares(y: Floats, x: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted a + b x of each row of y -> (2, rows), and the squares that are left."""
    terms = np.stack([np.ones(len(x)), x], axis=1) * weights[:, None]
    numbers = np.linalg.pinv(terms) @ (y * weights).T
    return numbers, ((terms @ numbers - (y * weights).T) ** 2).sum(axis=0)


def along(base: Fit, curve: Fit) -> list[tuple[float, Value]]:
    """Labels saved at scores that both curves reach between their fractions."""
    low = max(float(one.at(one.least)[0]) for one in (base, curve))
    high = min(float(one.at(one.most)[0]) for one in (base, curve))
    if not low < high:
        return []
    return [(float(score), _saved(base.reach(score), curve.reach(score)))
            for score in np.linspace(low, high, SCORES)]


def _saved(base: Floats, arm: Floats, tail: float = TAIL) -> Value:
    """Labels of the baseline less those of the arm; what neither reaches may be anything."""
    neither = np.isinf(base) & np.isinf(arm)
    less = np.subtract(base, arm, out=np.zeros_like(base), where=~neither)
    low, high = (interval(np.where(neither, end, less), tail) for end in (-np.inf, np.inf))
    return Value(np.nan if neither[0] else float(less[0]), low.low, high.high)
