"""Time and memory to an equal score, beside what users would take instead; in one run.

    python code/bench/peers.py --data3d MSD_FOLDER --data2d FOLDER --out FOLDER

Each way trains the same run: the project's network from the same weights, on the same cases, with
as many steps, batches as large, the same rates (Adam, cosine), losses and validations, and is
tested with the weights best on validation.

    3D: this project; MONAI, as its tutorials write it; the way of the earlier PyTorch code
    2D: this project; torchvision, reading the images at every epoch; the earlier way

What each does, and what was chosen for it, stands in peers_rows/, at the top of its file. All take
float32 on the CPU: once with all cores for each, once with one core for each (threads 1, no
workers). Each part runs in a fresh process; the ways take turns, ROUNDS times, each round beginning
with another. A round is a seed with its own test fold, weights and order, the same for every way.
Files have been read before, so that no way waits for the disk.

Prints a line for each part, and the tables; writes peers.md and peers.json into --out after every
round. Two sets, five rounds: some hours on two idle cores; --steps shortens the runs. MONAI is no
part of the environment: without it a line says how to get it, and its columns are left out.
"""

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import machine
from bench.peers_rows import fresh, table
from bench.peers_rows.alike import STEPS, plans
from bench.peers_rows.fresh import WAYS, Way
from bench.peers_rows.plan import Plan
from common.errors import InputError, exit_status
from common.files import write_text
from common.machine import limits

ROUNDS = 5               # each a seed
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "nibabel", "isal", "pillow",
            "scikit-learn")
NO_MONAI = ("MONAI is not installed, so its columns are left out. To have them: `venv/bin/pip "
            "install --no-deps --target FOLDER monai`, then this command with PYTHONPATH=FOLDER")


def main() -> int:
    """Measure every way in turn, print what is found, and save it."""
    asked = _arguments()
    sets = {tree: data for tree, data in (("3d", asked.data3d), ("2d", asked.data2d)) if data}
    if not sets:
        raise InputError("nothing to measure; give --data3d MSD_FOLDER, --data2d FOLDER, or both")
    ways = {tree: [way for way in WAYS[tree] if _there(way)] for tree in sets}
    missing = "" if ways.get("3d", WAYS["3d"]) == WAYS["3d"] else NO_MONAI
    found: dict[str, Any] = {"machine": _machine(ways), "left out": missing,
                             "torch": fresh.torch_alone(), "parts": []}
    print("\n".join([found["machine"], *([missing] if missing else [])]), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = {tree: plans(tree, data, folder / tree, seeds=range(asked.rounds),
                            steps=asked.steps or STEPS[tree]) for tree, data in sets.items()}
        found["parts"] = [_part(runs[tree][0], cores) for tree in sets
                          for cores in dict.fromkeys((limits.cores(), 1))]
        for number in range(asked.rounds):
            for part in found["parts"]:
                plan = replace(runs[part["tree"]][number], cores=part["cores"])
                first = number % len(ways[part["tree"]])  # who begins finds the machine coolest
                turned = ways[part["tree"]][first:] + ways[part["tree"]][:first]
                _round(part, turned, plan, folder, found["torch"])
            _save(asked.out, found)
    print(f"\n{_text(found)}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data3d", type=Path, help="labelled scans in the layout of the MSD")
    parser.add_argument("--data2d", type=Path, help="images and a CSV of grades")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, help="of each run, rounded to whole epochs")
    parser.add_argument("--out", type=Path, help="folder for peers.md and peers.json")
    asked = parser.parse_args()
    for name in ("rounds", "steps"):
        value = getattr(asked, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: must be at least 1")
    return asked


def _there(way: Way) -> bool:
    """Whether what a way needs is installed."""
    return not way.needs or importlib.util.find_spec(way.needs) is not None


def _machine(ways: Mapping[str, list[Way]]) -> str:
    """Processor and versions: what the numbers hold for."""
    needed = dict.fromkeys(way.needs for some in ways.values() for way in some if way.needs)
    return machine([*PACKAGES, *needed])


def _part(plan: Plan, cores: int) -> dict[str, Any]:
    """A data set under a number of cores, before anything is measured."""
    counts = ", ".join(f"{len(cases)} {part}" for part, cases in plan.cases.items())
    what = (f"{plan.side}{'³' if plan.tree == '3d' else ' px'}, batches of {plan.batch}, "
            f"{plan.steps} steps in {plan.epochs} epochs, {min(plan.validations, plan.steps)} "
            f"validations; cases: {counts}. Network: Encoder{tuple(plan.encoder)}.")
    return {"tree": plan.tree, "dataset": plan.dataset, "cores": cores, "steps": plan.steps,
            "epochs": plan.epochs, "what": what, "rounds": {}, "table": {}}


def _round(part: dict[str, Any], ways: list[Way], plan: Plan, folder: Path,
           torch: float) -> None:
    """Add a round of every way to a part, and sum it up; ``torch``: MiB of importing it."""
    for way in ways:
        own = folder / "way"
        own.mkdir()
        one = replace(plan, folder=str(own))
        prepared = fresh.measured(way, "prepare", one) if way.prepares else None
        figures = table.values(plan, prepared, fresh.measured(way, "run", one), torch)
        shutil.rmtree(own)
        print(f"{plan.dataset}, cores {plan.cores}, seed {plan.seed}: {way.heading:<16} "
              + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)
        rounds = part["rounds"].setdefault(way.name, {})
        for name, value in figures.items():
            rounds.setdefault(name, []).append(value)
    part["table"] = table.summary(part["rounds"])


def _text(found: Mapping[str, Any]) -> str:
    """The Markdown of everything."""
    rounds = len(next(iter(found["parts"][0]["rounds"].values()))["score"])
    tables = [table.markdown(part) for part in found["parts"] if part["rounds"]]
    end = ("Made by code/bench/peers.py. Medians (least to most) of the rounds; ratios are those "
           "of a round, over this project's. Memory: of a process and its children, a page that "
           f"several share once; importing torch alone takes {found['torch']:.0f} MiB.")
    left = [f"{found['left out']}.\n"] if found["left out"] else []
    return "\n".join([f"{found['machine']}; rounds: {rounds}.\n", *left, *tables, f"{end}\n"])


def _save(folder: Path | None, found: Mapping[str, Any]) -> None:
    if folder is not None:
        write_text(folder / "peers.md", _text(found))
        write_text(folder / "peers.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(exit_status(main))
