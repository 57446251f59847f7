"""The figures of all rounds: medians, least and most, ratios in pairs; and their Markdown table."""

from collections.abc import Mapping, Sequence
from statistics import mean, median, stdev
from typing import Any, NamedTuple

from bench.peers_rows.fresh import OURS, WAYS, Figures
from bench.peers_rows.plan import Plan

Rounds = Mapping[str, Sequence[float]]  # a way's values, one a round, by the names of ROWS


class Row(NamedTuple):
    """A figure of a way."""

    name: str
    text: str
    unit: str


ROWS = [
    Row("prepare", "from the files to the network's grid, every case", "s"),
    Row("prepare memory", "its memory at the most", "MiB"),
    Row("epoch", "an epoch: its batches, changed, and its steps", "s"),
    Row("validation", "all validations of the run", "s"),
    Row("run", "the run: epochs, validations, test", "s"),
    Row("memory", "the most memory of the command that runs it", "MiB"),
    Row("own", "that less what importing torch takes", "MiB"),
    Row("first", "a first command: from start to score, with preparing", "s"),
    Row("again", "a further command: from start to score", "s"),
    Row("cpu", "processor time of that, all cores", "s"),
]
SCORES = {"3d": "Dice", "2d": "quadratic-weighted kappa"}


def values(plan: Plan, prepared: Figures | None, run: Figures, torch: float) -> Figures:
    """The figures of one round, by the names of ROWS, and the score.

    ``torch``: MiB that importing it takes.
    """
    found = {"epoch": (run["loop"] - run["validation"]) / plan.epochs,
             "validation": run["validation"], "run": run["loop"] + run["test"],
             "memory": run["memory"], "own": run["memory"] - torch, "again": run["command"],
             "cpu": run["cpu"], "score": run["score"],
             # What a way reads or makes anew in a further command is made once in the first.
             "first": run["command"] - run["data"] + (prepared["seconds"] if prepared else 0.0)}
    if prepared is not None:
        found |= {"prepare": prepared["seconds"], "prepare memory": prepared["memory"]}
    return found


def summary(ways: Mapping[str, Rounds]) -> dict[str, Any]:
    """Of every row and way the median, least and most, and the same of its ratio to ours.

    Ratios are those of a round, in pairs. Of the score mean, SD, and of its difference to ours.
    """
    found: dict[str, Any] = {}
    for row in ROWS:
        for way, rounds in ways.items():
            if row.name in rounds:
                one = {"value": spread(rounds[row.name])}
                if way != OURS.name and row.name in ways[OURS.name]:
                    one["ratio"] = spread([theirs / ours for theirs, ours in zip(
                        rounds[row.name], ways[OURS.name][row.name], strict=True)])
                found.setdefault(row.name, {})[way] = one
    found["score"] = {way: {"mean": mean(rounds["score"]), "sd": deviation(rounds["score"]),
                            **_beside(rounds["score"], ways[OURS.name]["score"])}
                      for way, rounds in ways.items()}
    return found


def spread(numbers: Sequence[float]) -> list[float]:
    """Median, least and most."""
    return [median(numbers), min(numbers), max(numbers)]


def deviation(numbers: Sequence[float]) -> float | None:
    """Standard deviation; none of a single number."""
    return stdev(numbers) if len(numbers) > 1 else None


def _beside(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float | None]:
    less = [one - other for one, other in zip(theirs, ours, strict=True)]
    return {"difference": mean(less), "difference sd": deviation(less)}


def markdown(part: Mapping[str, Any]) -> str:
    """The table of one data set and number of cores, as peers.json has them."""
    ways = [way for way in WAYS[part["tree"]] if way.name in part["rounds"]]
    head = ["", *(title for way in ways for title in (
        [way.heading] if way.name == OURS.name else [way.heading, "ratio"]))]
    lines = [head, ["---"] * len(head)]
    for row in ROWS:
        if row.name in part["table"]:
            lines.append([f"{row.text}, {row.unit}", *_cells(part["table"][row.name], ways)])
    name = SCORES[part["tree"]]
    score = part["table"]["score"]
    lines.append([f"test {name}, mean (SD)", *(cell for way in ways for cell in (
        [_number(score[way.name], "mean", "sd")] if way.name == OURS.name else
        [_number(score[way.name], "mean", "sd"),
         f"{_number(score[way.name], 'difference', 'difference sd', sign='+')} less ours"]))])
    cores = f"{part['cores']} core{'s' if part['cores'] > 1 else ''} for each"
    return "\n".join([f"### {part['dataset']}, {cores}", "", part["what"], "",
                      *(f"| {' | '.join(cells)} |" for cells in lines), ""])


def _cells(row: Mapping[str, Any], ways: Sequence[Any]) -> list[str]:
    """A row's cells: value, and ratio of all ways but ours; empty where there is none."""
    cells = []
    for way in ways:
        one = row.get(way.name, {})
        cells.append(_range(one.get("value")))
        if way.name != OURS.name:
            cells.append(_range(one.get("ratio")))
    return cells


def _range(numbers: Sequence[float] | None) -> str:
    if numbers is None:
        return ""
    middle, least, most = (f"{number:.3g}" if number < 1000 else f"{number:.0f}"
                           for number in numbers)
    return f"{middle} ({least} to {most})"


def _number(one: Mapping[str, float | None], key: str, spread: str, *, sign: str = "") -> str:
    text = f"{one[key]:{sign}.3f}"
    return text if one[spread] is None else f"{text} ({one[spread]:.3f})"
