"""Steps and memory of every task of both trees at full size, and hours of both default grids.

    python code/bench/gpu/card_steps.py --out FOLDER --work SCRATCH --seconds 200

A part of gpu.sh. Each row is appended to FOLDER/steps.jsonl as it is measured, the most telling
first: the defaults of all tasks of both trees, then the other layouts and precisions. steps.md and
grids.md are made anew after each row. Ends by itself when the seconds are over.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from bench import trees
from bench.rows import options
from bench.rows.options import Option, Taken
from bench.rows.step_rows import plans
from bench.speed import SIZES
from bench.trees import Tree
from common.arms import BASELINE
from common.errors import exit_status
from common.files import Json, write_text
from common.runs.study import Study
from common.schedule import workers

ROUNDS = 2            # bursts of steps timed for a row, after one that is not counted; 1 if small
STEPS = 6             # from the same start, before anything is timed: their loss is compared
LEAST = 4.0           # seconds a further row takes at least; the longest so far counts if longer
SMOKE_ROWS = 18       # rows that --smoke measures: all defaults and a few others
# Volumes as in speed.py; photographs large enough for the patch tasks.
SMOKE = replace(SIZES["smoke"], photographs=(
    "--resolution", "96", "--blocks", "1", "1", "1", "1", "--growth", "4", "--batch-size", "4",
    "--pretext-batch-size", "4"))


class Wanted(NamedTuple):
    """One row to measure."""

    tree: str
    arm: str
    option: Option


class Timing(NamedTuple):
    """Seconds of an arm's step, and of a case in its validation."""

    step: float
    validation: float


class Cost(NamedTuple):
    """What a grid takes, one run at a time, and the arms whose steps are not known."""

    steps: int
    seconds: float
    missing: list[str]


def main() -> int:
    """Measure row after row while there is time; write what is known after each."""
    asked, began = _arguments(), time.monotonic()
    device = torch.device("cuda:0" if asked.device == "cuda" else asked.device)
    sizes = SMOKE if asked.smoke else SIZES["cuda"]
    opened = {"3d": trees.open_3d(asked.work / "3d", device, sizes),
              "2d": trees.open_2d(asked.work / "2d", device, sizes)}
    workers._set_up(opened["3d"].study, device)  # threads, kernels, no TF32: as every run has it
    wanted = order(opened)[:SMOKE_ROWS if asked.smoke else None]
    rows: list[Json] = []
    with suppress(KeyboardInterrupt):  # gpu.sh's word that the time is over
        for found in _while_time(wanted, opened, began + asked.seconds,
                                 rounds=1 if asked.smoke else ROUNDS):
            rows.append(found)
            _write(asked.out, rows, opened)
            print(_line(found), flush=True)
    print(f"{len(rows)} of {len(wanted)} rows; {'; '.join(said(rows, opened))}")
    return 0


def _while_time(wanted: Sequence[Wanted], opened: Mapping[str, Tree], ends: float, *,
                rounds: int) -> Iterator[Json]:
    """Measure rows as long as another like the longest would end in time."""
    longest = LEAST
    for one in wanted:
        started = time.monotonic()
        if started + longest > ends:
            return
        yield row(opened[one.tree], one, rounds=rounds)
        longest = max(longest, time.monotonic() - started)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where the records go")
    parser.add_argument("--work", type=Path, required=True, help="where generated data go")
    parser.add_argument("--seconds", type=float, required=True, help="no row is begun after these")
    parser.add_argument("--device", default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    return parser.parse_args()


def order(opened: Mapping[str, Tree]) -> list[Wanted]:
    """All rows, the most telling first: defaults, then the options, then variants of tasks."""
    usual = {name: [BASELINE, *(arm for arm in tree.defaults.TASKS if arm in tree.study.pretexts)]
             for name, tree in opened.items()}
    first = [Wanted(name, arm, default(tree)) for name, tree in opened.items()
             for arm in usual[name]]
    others = [Wanted(name, arm, option) for few in (True, False) for name, tree in opened.items()
              for arm in usual[name] if (arm in options.ARMS) == few
              for option in options.PLAIN if option != default(tree) and _sound(tree, option)]
    variants = [Wanted(name, arm, default(tree)) for name, tree in opened.items()
                for arm in tree.study.pretexts if arm not in usual[name]]
    return [*first, *others, *variants]


def default(tree: Tree) -> Option:
    """The layout and precision that exp.py takes by itself on this device."""
    last = tree.defaults.LAYOUT == "channels_last"
    return next(option for option in options.PLAIN
                if option.precision == tree.study.precision and option.channels_last == last)


def _sound(tree: Tree, option: Option) -> bool:
    """Whether exp.py would take this precision on this device."""
    return (tree.cases.device.type == "cuda" or option.precision == "float32"
            or tree.sound_on_cpu)


def row(tree: Tree, wanted: Wanted, *, rounds: int) -> Json:
    """Measure one row; what does not fit or fails is a row that says so."""
    _, arm, option = wanted
    about: Json = {"tree": wanted.tree, "arm": arm, "precision": option.precision,
                   "layout": "channels_last" if option.channels_last else "contiguous",
                   "default": option == default(tree), "side": tree.study.settings.RESOLUTION}
    try:
        taken = options.timed(tree, arm, option, rounds=rounds, steps=STEPS)
        return {**about, "status": "ok", **_figures(taken)}
    except torch.OutOfMemoryError:
        return {**about, "status": "out of memory"}
    except Exception as error:  # whatever a kernel raises is the finding
        return {**about, "status": f"failed: {options.reason(error)}"}
    finally:
        options.freed(tree.cases.device)


def _figures(taken: Taken) -> Json:
    """What is recorded of a measured row."""
    return {"batch": taken.batch, "step_s": taken.step, "cases_per_s": taken.batch / taken.step,
            "validation_s_per_case": taken.validation, "peak_mib": taken.peak, "loss": taken.loss}


def _line(found: Json) -> str:
    """A row as one line of text."""
    what = (f"{found['tree']} {found['arm']:<18} {found['precision']:<8} {found['layout']:<13}")
    if found["status"] != "ok":
        return f"{what} {found['status']}"
    memory_taken = "" if found["peak_mib"] is None else f"  peak {found['peak_mib']:.0f} MiB"
    return (f"{what} {1e3 * found['step_s']:8.1f} ms a step of {found['batch']}  "
            f"{found['cases_per_s']:7.1f} cases/s  {1e3 * found['validation_s_per_case']:6.1f} ms "
            f"a validation case  loss {found['loss']:.4f}{memory_taken}")


def _write(folder: Path, rows: Sequence[Json], opened: Mapping[str, Tree]) -> None:
    """Append the newest row; make both tables anew."""
    with (folder / "steps.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(rows[-1]) + "\n")
    write_text(folder / "steps.md", "".join(f"    {_line(found)}\n" for found in rows))
    if rows[-1]["default"]:
        write_text(folder / "grids.md", grids(rows, opened))


def read(folder: Path) -> list[Json]:
    """The rows measured so far; none if there is no file."""
    path = folder / "steps.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def timings(rows: Sequence[Json], tree: str) -> dict[str, Timing]:
    """What each arm of a tree takes by default."""
    return {found["arm"]: Timing(found["step_s"], found["validation_s_per_case"]) for found in rows
            if found["tree"] == tree and found["default"] and found["status"] == "ok"}


def cost(study: Study, known: Mapping[str, Timing], *, stopped: bool) -> Cost:
    """Steps and seconds of all runs of a study; ``stopped``: patience ends pretraining early.

    Every finetuning step is counted as one with a trained encoder; start-up, reading and saving
    are not counted.
    """
    s = study.settings
    starts = [BASELINE if study.task(name).labelled else name for name in study.pretrainings()]
    runs = [plans(study, name, stopped=stopped) for name in starts]
    runs += [plans(study, BASELINE, stopped=stopped)] * (len(s.TASKS) * len(s.FRACTIONS))
    missing = [plan.name for plan in dict.fromkeys(runs) if plan.name not in known]
    seconds = sum(plan.steps * known[plan.name].step + plan.cases * known[plan.name].validation
                  for plan in runs if plan.name in known)
    return Cost(len(s.SEEDS) * sum(plan.steps for plan in runs), len(s.SEEDS) * seconds, missing)


def projected(rows: Sequence[Json], tree: Tree, *, stopped: bool) -> Cost:
    """The default grid of a tree, from the rows; extrapolated by voxels if they are smaller."""
    known = {}
    for arm, timing in timings(rows, tree.study.tree).items():
        larger = trees.scale(tree, arm)
        known[arm] = Timing(larger * timing.step, larger * timing.validation)
    return cost(trees.full(tree), known, stopped=stopped)


def said(rows: Sequence[Json], opened: Mapping[str, Tree]) -> Iterator[str]:
    """Both grids in a few words each."""
    for name, tree in opened.items():
        early, late = (projected(rows, tree, stopped=stopped) for stopped in (True, False))
        partly = f" without {' '.join(late.missing)}" if late.missing else ""
        yield (f"{trees.GRIDS[name].name}{partly} {early.seconds / 3600:.1f} to "
               f"{late.seconds / 3600:.1f} h")


def grids(rows: Sequence[Json], opened: Mapping[str, Tree]) -> str:
    """The projected hours of both default grids as a page."""
    lines = ["# Projected hours of the default grids", "",
             "One run at a time on this card, in the default precision and layout, from the steps "
             "and validations of steps.jsonl. Start-up, reading and saving are not counted; "
             "steps with a frozen encoder are counted as full ones.", "",
             "| grid | cases | each pretraining | optimiser steps | hours, all seeds "
             "| hours, one seed | not measured |", "|---|---|---|---|---|---|---|"]
    for name, tree in opened.items():
        whole, seeds = trees.GRIDS[name], len(tree.defaults.SEEDS)
        for stopped, words in ((False, "to all epochs"),
                               (True, "stopped by patience as soon as allowed")):
            found = projected(rows, tree, stopped=stopped)
            hours = found.seconds / 3600
            lines.append(f"| {whole.name} | {whole.labelled} + {whole.unlabelled} | {words} | "
                         f"{found.steps} | {hours:.2f} ({seeds} seeds) | {hours / seeds:.2f} | "
                         f"{' '.join(found.missing)} |")
    smaller = [name for name, tree in opened.items()
               if tree.study.settings.RESOLUTION != tree.defaults.RESOLUTION]
    if smaller:
        lines += ["", f"Measured at a smaller size ({', '.join(smaller)}) and extrapolated: these "
                  "hours only show that the arithmetic runs."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(exit_status(main))
