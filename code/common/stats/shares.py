"""Shares of the pretraining pool: what more unlabelled images bring, and how many a label is worth.

Each share of an arm's pool is compared with the baseline at one labelled fraction, paired by seed
and test case, as an arm of its own. The spread is pooled over the arms and all shares of that
fraction (family.py); the interval is that of one comparison, not adjusted.

The gain per doubling is the slope of a straight line through the shares' gains over log2 of the
number of images (of the share, where the number is not on record). It is a contrast of rows that
adds to zero: what a block, the baseline or the choice of test cases does to all alike is not in it.
With x the doublings about their mean it varies by

    s^2 / sum(x^2) * (1 / blocks + overlap * single / block),

and over test cases by their bootstrap. A label is worth as many images as bring the same at the
margin, (labels' slope / labels) / (pool's slope / images), where both slopes are shown to be
positive; both are drawn DRAWS times, apart, and the 2.5 to 97.5 percentiles are the interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from common.stats.estimates import Aligned, Design, Estimate, Spread
from common.stats.exchange import DRAWS, Fit
from common.stats.family import Family, compare
from common.stats.measures import Arm, Floats, Measure
from common.stats.worth import Value, interval

WHOLE = 100  # percent of the pool


@dataclass(frozen=True)
class Pool:
    """An arm whose pretraining was repeated on shares of its pool."""

    task: str
    fraction: int
    gains: dict[int, Estimate]      # share in percent -> difference to the baseline
    images: dict[int, float]        # share -> images; empty if not on record of all
    doubling: Value | None          # gain per doubling of the pool; None with one share
    labels: Value | None            # the baseline's gain per doubling of the labels there
    worth: Value | None             # images that a label is worth; None: not shown


def pool(measure: Measure, task: str, whole: Mapping[str, Arm], shares: Mapping[int, Arm],
         design: Design, *, images: Mapping[int, float], baseline: str, base: Fit | None,
         labelled: float) -> Pool | None:
    """Compare shares of a task's pool; ``whole``: the fraction's arms, the baseline among them.

    ``base`` is the baseline's curve; ``labelled`` the cases of the fraction. None without baseline.
    """
    if baseline not in whole:
        return None
    names = {share: f"{task} from {share} %" for share in sorted(shares)}
    rows = {**whole, **{names[share]: arm for share, arm in shares.items()}}
    family = compare(measure, rows, baseline, design)
    if task in whole:
        names[WHOLE] = task
    gains = {share: family.differences[name] for share, name in names.items()
             if name in family.differences}
    known = dict(images) if set(gains) <= set(images) else {}
    doubling = worth = spread = None
    if len(gains) > 1:
        x = np.log2([known.get(share, share) for share in gains])
        weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        slope = float(weights @ [gain.mean for gain in gains.values()])
        over_cases = 0.0 if design.rotated else _over_cases(
            Aligned(measure, {names[one]: rows[names[one]] for one in gains}, design), weights)
        spread = _spread(family, gains, weights, over_cases)
        doubling = Value(slope) if spread is None else Value(
            slope, slope - spread.half(), slope + spread.half())
    labels = None if base is None else interval(base.doubling(labelled))
    if base and spread and doubling and labels and WHOLE in known and all(
            (one.low or 0) > 0 for one in (doubling, labels)):
        worth = _worth(base.doubling(labelled) / labelled, known[WHOLE], doubling.value, spread)
    return Pool(task, round(design.fraction), gains, known, doubling, labels, worth)


def _spread(family: Family, gains: Mapping[int, Estimate], weights: Floats, over_cases: float
            ) -> Spread | None:
    """The spread of a contrast of gains; None under MIN_BLOCKS."""
    if family.pooled is None or not all(gain.spread for gain in gains.values()):
        return None
    seeds = {seed for gain in gains.values() for seed in gain.seeds}
    blocks = len({family.design.block(seed) for seed in seeds})
    one = replace(family.pooled, own=None).spread(0, blocks, family.design)[0] / 2**0.5
    return Spread(float((weights @ weights) ** 0.5 * one), family.pooled.df, over_cases,
                  max(1, round(family.tested) - 1))


def _over_cases(aligned: Aligned[str], weights: Floats) -> float:
    """The standard error of a contrast over test cases."""
    drawn = weights @ np.stack([aligned.drawn(name) for name in aligned.keys])
    return float(np.nanstd(drawn, ddof=1) * (aligned.tested / max(1, aligned.tested - 1)) ** 0.5)


def _worth(of_label: Floats, images: float, slope: float, spread: Spread) -> Value:
    """Images that bring what one label brings, ``of_label`` (1 + DRAWS)."""
    df = min(spread.runs_df, spread.cases_df) if spread.cases else spread.runs_df
    drawn = slope + spread.error * np.random.default_rng(1).standard_t(df, DRAWS)
    of_image = np.concatenate([[slope], drawn]) / images
    return interval(np.divide(of_label, of_image, out=np.full_like(of_image, np.inf),
                              where=of_image > 0))
