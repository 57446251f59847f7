"""One data set under two protocols of finetuning: how much of a gain is the protocol's?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.report.curves import Curves, Point, order
from common.report.section import table
from common.report.tables import cell, marked, shown, steps
from common.runs.records import PAPER
from common.stats.estimates import Design, Estimate, own_spread


@dataclass(frozen=True)
class Pair:
    """An arm at a fraction under both protocols."""

    task: str
    fraction: int
    ours: Point
    papers: Point
    more: Estimate | None  # the gain under the paper's less that under ours; None: the baseline


def found(drawn: Sequence[Curves]) -> list[tuple[Curves, Curves]]:
    """The data sets among ``drawn`` that are there under both protocols, with the same splits.

    Of published studies several may be of one data set.
    """
    named = {(curves.dataset, _splits(curves)): curves for curves in drawn}
    return [(curves, named[name + PAPER, splits]) for (name, splits), curves
            in sorted(named.items(), key=lambda one: one[0][0]) if (name + PAPER, splits) in named]


def _splits(curves: Curves) -> str:
    """The digest of a study's splits."""
    return str(curves.runs[0]["identity"].get("splits")) if curves.runs else ""


def pairs(ours: Curves, papers: Curves) -> list[Pair]:
    """What both have, baseline first, then arm by arm; gains are paired by seed."""
    theirs = {(point.task, point.fraction): point for point in papers.points}
    both = [(point, theirs[point.task, point.fraction]) for point in ours.points
            if (point.task, point.fraction) in theirs]
    return [Pair(mine.task, mine.fraction, mine, other, _more(mine, other, ours.folds))
            for mine, other in sorted(both, key=lambda pair: (order(pair[0].task),
                                                              pair[0].fraction))]


def _more(mine: Point, other: Point, folds: int) -> Estimate | None:
    """The difference of two gains, by its spread over the seeds of both."""
    if mine.difference is None or other.difference is None:
        return None
    one, two = (dict(zip(gain.seeds, gain.scores, strict=True))
                for gain in (mine.difference, other.difference))
    seeds = sorted(one.keys() & two.keys())
    scores = np.array([two[seed] - one[seed] for seed in seeds])
    design = Design(folds, mine.fraction)
    mean = float(design.averaged(scores, seeds).mean()) if seeds else np.nan
    return Estimate(mean, own_spread(scores, seeds, design, 0.0, 1), tuple(seeds),
                    tuple(map(float, scores)), ())


def markdown(ours: Curves, papers: Curves) -> str:
    """A table: scores of the baseline and gains of the arms under both, and what differs."""
    words = [f"# {ours.dataset} under two protocols",
             f"{ours.measures[0].label}. The same splits, labelled subsets and pretext encoders "
             f"(an oracle is trained under each), finetuned twice: here, {steps(ours)} steps a run"
             f"{', at rates chosen by --tune' if ours.rates else ''}; and under "
             f"{papers.protocol or 'another protocol'}, {steps(papers)} steps a run. Of the "
             "baseline the score, of an arm its "
             "difference to the baseline of the same protocol, with the interval that a claim "
             "rests on. Last the paper's difference less ours, paired by seed, 95 %, not adjusted"
             + ("." if ours.folds > 1 else ", over seeds alone (one test set).")]
    rows = [[marked(pair.task), f"{pair.fraction} %", cell(pair.ours, ours),
             cell(pair.papers, papers), "" if pair.more is None else shown(pair.more, sign=True)]
            for pair in pairs(ours, papers)]
    return "\n\n".join([*words, table(["task", "labels", "ours", "the paper's",
                                       "the paper's less ours"], rows)]) + "\n"
