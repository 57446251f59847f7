"""Which arm for my data? The published studies as one table, by the number of labelled cases.

    python code/bench/guide.py        writes it into results/published/README.md, below its heading

Studies under today's recipe count: rotated folds, no generated data, not the paper's protocol. A
row an arm and a fraction; nothing in it is worded by hand. A test compares both.
"""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.spreads import measures
from common.arms import BASELINE, ORACLE, SHUFFLED, is_control, pretraining
from common.errors import InputError, exit_status
from common.files import ROOT, write_text
from common.report import curves, published
from common.report.claims import apart, side, verdict
from common.report.curves import Curves, Point
from common.report.reading import LEARNT
from common.runs.records import PAPER

README = ROOT / "results/published/README.md"
HEADING = "## Which arm for my data?"
END = "\n## "       # where the next part begins
COLUMNS = ["labelled cases", "data", "pretrained on", "arm", "pretext task", "baseline",
           "on all labels", "gain", "its shuffled start's", "the oracle's", "seeds", "read as"]
NOT_RUN = "not run"


@cache
def studies() -> list[Curves]:
    """Every published study that counts, by the names of their folders."""
    found = map(published.read, published.below(README.parent))
    drawn = [curves.of(one, measures(one.finetune[0])[:1]) for one in found
             if not one.dataset.endswith(PAPER)]
    return [one for one in drawn if one.folds > 1 and not one.generated]


def pretext(study: Curves, arm: str) -> str:
    """How well an arm's pretext task was solved, in words and in the mean of its scores."""
    said = []
    for task, name, value, chance in study.learnt:
        if task != pretraining(arm):
            continue
        solved = all(found.get(name) for run, found in zip(
            study.pretraining, study.solved, strict=True) if run["task"] == task)
        word = ("solved" if solved else "learnt" if value >= chance + LEARNT * (1 - chance)
                else "not learnt")
        said.append(f"{word} ({name} {value:.2f}, chance {chance:.2f})")
    return ", ".join(said) or "-"


def pool(study: Curves, arm: str) -> str:
    """How many images it was pretrained on, labelled training cases among them."""
    sizes = sorted({run["pool"] for run in study.pretraining if run["task"] == pretraining(arm)})
    return " to ".join(f"{size:,}" for size in dict.fromkeys([sizes[0], sizes[-1]])) if sizes \
        else "-"


def gain(point: Point | None) -> str:
    """A difference with the interval that a claim rests on."""
    if point is None or point.difference is None:
        return NOT_RUN
    said = f"{point.difference.mean:+.3f}"
    low, high = point.interval or (0, 0)
    return f"{said} ({low:+.3f} to {high:+.3f})" if point.interval else said


def read_as(study: Curves, point: Point, undone: Point | None) -> str:
    """What the interval says, and where nothing is shown how small a gain could have been."""
    said, doubt = verdict(point), ""
    if said == "above" and undone is not None:
        between = apart(study, point, undone)
        if verdict(undone) == "above":
            doubt = ", but its shuffled start gains too"
        elif between.interval:
            over = side(between.interval) == "above"
            doubt = ", over the shuffled start too" if over else ", but not over the shuffled start"
            final = apart(study, point, undone, last=True).interval
            if final and (side(final) == "above") != over:
                doubt += f" (with the last weights {'not' if over else 'it is'})"
    could = f" (80 % power needs {point.could_show[1]:.3f})" if point.could_show else ""
    last = study.lasts[point.fraction].differences.get(point.task)
    other = verdict(replace(point, difference=last)) if last else said
    more = "" if other == said else "; not with the last weights"
    return {"above": f"**gain shown**{doubt}{more}", "below": f"**loss shown**{more}",
            "": "no interval yet"}.get(said, f"not shown{could}")


def rows(study: Curves) -> list[tuple[int, list[str]]]:
    """The rows of a study, each with its number of labelled cases."""
    at = {(point.task, point.fraction): point for point in study.points}
    found = []
    for point in study.points:
        if point.difference is None or is_control(point.task):
            continue
        base, undone = (at.get((arm, point.fraction)) for arm in (
            BASELINE, f"{point.task}@{SHUFFLED}"))
        decoder = "@decoder" * point.task.endswith("@decoder")  # what is handed on, as the arm
        oracle = at.get((ORACLE + decoder, point.fraction))
        name, whole = study.measures[0].name, at.get((BASELINE, 100))
        found.append((point.labelled[0], [
            study.labelled(point.fraction), f"{study.dataset} ({study.runs[0]['metric']})",
            pool(study, point.task), point.task + " (primary)" * point.primary,
            pretext(study, point.task), *(f"{one.means[name].mean:.3f}" if one else NOT_RUN
                                          for one in (base, whole)),
            gain(point), gain(undone), gain(oracle), str(len(point.difference.seeds)),
            read_as(study, point, undone)]))
    return found


def table() -> str:
    """All rows, fewest labelled cases first."""
    found = [row for study in studies() for row in rows(study)]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(row for _, row in sorted(
        found, key=lambda one: (one[0], one[1][1], one[1][3])))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    """Write the table where the README has one; InputError if it has no such heading."""
    text = README.read_text(encoding="utf-8")
    before, heading, after = text.partition(HEADING)
    part, end, rest = after.partition(END)
    words, bar, _ = part.partition("\n| ")
    if not (heading and end and bar):
        raise InputError(f"{README}: no table below '{HEADING}', or nothing behind it")
    write_text(README, f"{before}{heading}{words}\n{table()}{end}{rest}")
    print(table(), end="")


if __name__ == "__main__":
    sys.exit(exit_status(main))
