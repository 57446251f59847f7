"""Where does a study's time go? From the clocks in its runs' time.jsonl; nothing is trained.

    python code/bench/grid/where.py results/3d/<dataset> ...

A row a kind of run. Steps: forward, backward, the optimiser, augmentation. Start: the network and
what it starts from, the log of a run that goes on. Finish: tests with the chosen and the last
weights, native scores, writing what is kept. Waiting: from the first run's start to the last one's
end as many workers as ever were busy at once could have worked; what they did not is it. Pauses of
over PAUSE seconds in which nothing ran are left out: the study was stopped. Runs of NUMBERS 8 from
before these clocks are counted on screen and left out.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.errors import InputError, exit_status
from common.files import Json, read_json
from common.runs.records import read_log

PAUSE = 120.0  # seconds; the longest that a worker takes to read a data set, with room
APART = 1.0    # seconds between two lines of a run; more, and it was stopped
ROUNDED = 0.01  # seconds by which a start may be reckoned too early: lines are rounded
PARTS = ("steps", "validating", "saving", "starting", "finishing")
KINDS = {"pretrain": "pretraining", "finetune": "finetuning", "tune": "trials of --tune"}


@dataclass
class Spent:
    """Seconds of one kind of run, by what they went into."""

    runs: int = 0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))


@dataclass(frozen=True)
class Busy:
    """A stretch of time, on the clock, in which one worker was at one run."""

    start: float
    end: float


def main() -> int:
    """Print a table for each folder."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    for folder in parser.parse_args().folders:
        print(f"{folder}\n\n{table(*measured(folder))}")
    return 0


def measured(folder: Path) -> tuple[dict[str, Spent], list[Busy], int]:
    """What each kind of run took, when which were busy, and how many runs have no clock."""
    found = {kind: Spent() for kind in KINDS}
    busy: list[Busy] = []
    silent = 0
    for path in sorted(folder.glob("*/**/scores.json")):
        if any(".old-" in part for part in path.relative_to(folder).parts):
            continue
        lines = read_log(path.parent, "time") if path.with_name("time.jsonl").exists() else []
        if not lines or any("ended" not in line for line in lines):
            silent += 1
            continue
        kind = found[read_json(path)["stage"]]
        kind.runs += 1
        busy += stretches(lines)
        for line in lines:
            for name, seconds in parts_of(line).items():
                kind.parts[name] += seconds
    if not busy:
        raise InputError(f"{folder}: no finished run whose time.jsonl has clocks; give a folder as "
                         "results/3d/<dataset>, made by this version")
    return found, busy, silent


def stretches(lines: Sequence[Json]) -> list[Busy]:
    """When a run was worked on: one stretch, or several if it was stopped and went on."""
    found: list[Busy] = []
    for line in lines:
        start, end = line["ended"] - sum(parts_of(line).values()), line["ended"]
        if found and start - found[-1].end < APART:
            found[-1] = Busy(found[-1].start, end)
        else:
            found.append(Busy(start + ROUNDED, end))
    return found


def parts_of(line: Json) -> dict[str, float]:
    """Seconds of a line of time.jsonl, by what they went into: an epoch's hold its validations."""
    beside = {name: float(line.get(name, 0.0)) for name in PARTS[1:]}
    return {"steps": max(0.0, line["seconds"] - beside["validating"]), **beside}


def waiting(busy: Sequence[Busy]) -> tuple[float, float, int]:
    """Seconds that workers waited, those there were (of all workers), and how many they were."""
    edges = sorted([(one.start, 1) for one in busy] + [(one.end, -1) for one in busy])
    level = most = 0
    idle: list[tuple[float, int]] = []  # seconds, workers busy in them
    for (now, change), (then, _) in zip(edges, [*edges[1:], edges[-1]], strict=True):
        level += change
        most = max(most, level)
        idle.append((then - now, level))
    counted = [(seconds, there) for seconds, there in idle if there or seconds <= PAUSE]
    return (sum(seconds * (most - there) for seconds, there in counted),
            most * sum(seconds for seconds, _ in counted), most)


def table(found: dict[str, Spent], busy: Sequence[Busy], silent: int) -> str:
    """In Markdown: shares of all the time that the workers had."""
    idle, there, workers = waiting(busy)
    lines = [f"| | runs | hours | {' | '.join(PARTS)} |", "|---|---|---|" + "---|" * len(PARTS)]
    kept = [(KINDS[kind], spent) for kind, spent in found.items() if spent.runs]
    for name, spent in kept:
        lines.append(_row(name, str(spent.runs), spent.parts, there))
    both = {part: sum(spent.parts[part] for _, spent in kept) for part in PARTS}
    lines.append(_row("**all**", str(sum(spent.runs for _, spent in kept)), both, there))
    steps = both["steps"] / there
    lines.append(f"\n{there / 3600:.2f} hours of {workers} worker{'s' * (workers != 1)}: "
                 f"{steps:.1%} in steps, {idle / there:.1%} waiting, {1 - steps:.1%} not training."
                 + (f" Left out, without clocks: {silent}." if silent else ""))
    return "\n".join(lines)


def _row(name: str, runs: str, parts: dict[str, float], there: float) -> str:
    shares: Iterable[str] = (f"{parts[part] / there:.1%}" for part in PARTS)
    return f"| {name} | {runs} | {sum(parts.values()) / 3600:.2f} | {' | '.join(shares)} |"


if __name__ == "__main__":
    sys.exit(exit_status(main))
