"""What a data set's curves say, for who has just run graph.py: a line an arm, then in words."""

import textwrap

from common.arms import BASELINE
from common.report import reading
from common.report.curves import Curves, Point

WIDTH = 100  # characters


def text(curves: Curves) -> str:
    """The baseline's scores; every other arm's pretext scores and first difference; the reading."""
    head = curves.measures[0]
    base = ", ".join(f"{point.means[head.name].mean:.3f} at {point.fraction} %"
                     for point in curves.of_task(BASELINE))
    lines = [f"{BASELINE}: {head.label} {base} of the labels"] if base else []
    for task in curves.tasks:
        if task == BASELINE:
            continue
        parts = [_pretext(curves, task), _gain(curves.of_task(task)[0])]
        lines.append(f"{task}: {'; '.join(part for part in parts if part)}")
    words = [textwrap.fill(one, WIDTH, initial_indent="  - ", subsequent_indent="    ")
             for one in reading.paragraphs(curves)]
    return "\n".join([*(f"{curves.dataset}: {line}" for line in lines),
                      f"{curves.dataset}: in words:", *words])


def _pretext(curves: Curves, task: str) -> str:
    """Mean over seeds of each score of the pretext task that a guess is known for."""
    runs = [run for run in curves.pretraining if run["task"] == task]
    return ", ".join(
        f"pretext {name} {sum(run['score'][name] for run in runs) / len(runs):.3f} "
        f"(chance {chance:.3f})" for name, chance in (runs[0]["chance"] if runs else {}).items())


def _gain(point: Point) -> str:
    """The difference to the baseline at the arm's smallest fraction, with its interval."""
    if point.difference is None:
        return f"no baseline to compare with at {point.fraction} %"
    low_high = point.interval
    ends = f" ({low_high[0]:+.3f} to {low_high[1]:+.3f})" if low_high else ""
    return f"{point.difference.mean:+.3f}{ends} to the baseline at {point.fraction} %"
