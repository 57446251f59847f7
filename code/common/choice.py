"""Which test cases the pictures show, and beside the baseline which arm: the best on validation.

Predictions are shown of runs whose records are those that they were made of, and of no others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.arms import BASELINE
from common.curves import Curves
from common.records import Json, digest

Array = NDArray[Any]


@dataclass(frozen=True)
class Choice:
    """What is shown of the saved examples."""

    best: str | None                  # arm beside the baseline, None if there is none
    index: dict[str, int]             # arm -> its predictions' number
    words: str                        # how they were chosen, a sentence
    cases: dict[str, Json] = field(default_factory=dict)             # arm -> case id -> scores
    rows: dict[str, int] = field(default_factory=dict)               # name -> saved case
    grids: dict[str, list[int | None]] = field(default_factory=dict)  # name -> saved case a grade


def segmentations(saved: Mapping[str, Array], curves: Curves) -> Choice:
    """The baseline's worst, median and best case by Dice."""
    best, index, runs, words = _arms(saved, curves)
    cases = {arm: run["cases"] for arm, run in runs.items()}
    scored = [(case["dice"], row) for row, name in enumerate(saved["ids"])
              if (case := cases[BASELINE].get(str(name))) and case["dice"] is not None]
    ordered = [row for _, row in sorted(scored)]
    if not ordered:
        return Choice(best, index, words, cases=cases)
    rows = {"worst": ordered[0], "median": ordered[len(ordered) // 2], "best": ordered[-1]}
    return Choice(best, index, words, cases=cases, rows=rows)


def grades(saved: Mapping[str, Array], curves: Curves) -> Choice:
    """Of every grade the first case that the arm has right, and its worst mistake."""
    best, index, _, words = _arms(saved, curves)
    truth = saved["truth"].astype(int)
    arm = saved["predicted"][index[best or BASELINE]].astype(int)
    right: list[int | None] = []
    wrong: list[int | None] = []
    for grade in range(len(curves.runs[0]["classes"])):
        rows = np.flatnonzero(truth == grade).tolist()
        hits = [row for row in rows if arm[row] == grade]
        misses = sorted((-abs(arm[row] - grade), row) for row in rows if arm[row] != grade)
        right.append(hits[0] if hits else None)
        wrong.append(misses[0][1] if misses else None)
    return Choice(best, index, words, grids={"graded right": right, "worst mistake": wrong})


def kept(saved: Mapping[str, Array], curves: Curves) -> list[int]:
    """Rows of the saved cases that a picture shows; none if there is nothing to show."""
    if saved["truth"].ndim > 1:
        return sorted(set(segmentations(saved, curves).rows.values()))
    grids = grades(saved, curves).grids.values()
    return sorted({row for rows in grids for row in rows if row is not None})


def shown(saved: Mapping[str, Array], curves: Curves) -> dict[str, Json]:
    """The runs whose predictions are saved, by arm; without those made of other records."""
    place = (int(saved["fraction"]), int(saved["seed"]))
    if "runs" not in saved:  # of an earlier version
        return {}
    made = {str(task): str(run) for task, run in zip(saved["tasks"], saved["runs"], strict=True)}
    return {run["task"]: run for run in curves.runs
            if (run["fraction"], run["seed"]) == place and made.get(run["task"]) == digest(
                {key: value for key, value in run.items() if key != "identity"})}


def _arms(saved: Mapping[str, Array],
          curves: Curves) -> tuple[str | None, dict[str, int], dict[str, Json], str]:
    """The best arm on validation, the place of each arm's predictions, the runs they come from."""
    runs = shown(saved, curves)
    index = {str(task): number for number, task in enumerate(saved["tasks"]) if task in runs}
    fraction, seed = int(saved["fraction"]), int(saved["seed"])
    here = [run for run in curves.runs if run["fraction"] == fraction and run["task"] in index]
    metric = curves.measures[0].name
    means: dict[str, list[float]] = {}
    for run in here:
        means.setdefault(run["task"], []).append(run["val"][metric] or 0.0)
    ranked = sorted((-float(np.mean(values)), task) for task, values in means.items()
                    if task != BASELINE)
    best = ranked[0][1] if ranked else None
    words = f"{fraction} % of the labels, seed {seed}" + (
        f"; {best}: the best arm there on validation, mean over seeds." if best else ".")
    return best, index, runs, words
