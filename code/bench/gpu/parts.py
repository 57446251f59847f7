"""Parts of gpu.sh: a demo on the card, and a study of real data in the seconds given.

    python code/bench/gpu/parts.py demo 3d --out FOLDER --work SCRATCH --seconds 60
    python code/bench/gpu/parts.py study 2d --data FOLDER --out FOLDER --work SCRATCH --seconds 120

Text records go to FOLDER, whatever is large to SCRATCH. The last line printed sums the part up.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from bench import trees
from bench.gpu import card_steps
from bench.gpu.card_steps import Timing
from common.errors import InputError, exit_status
from common.files import ROOT, Json, read_json
from common.runs.study import Study
from common.settings import Settings, from_flags

CUT = 124              # exit status of what was stopped for time, as timeout has it
GRACE = 6              # seconds to end after being asked to
GRAPH = 20             # seconds kept for graph.py; a fifth of the part where that is less
DATASETS = {"3d": "Task00_CTPhantom", "2d": "fundusphantom"}  # names of the demos' generated sets
KEPT = ("config.json", "log.jsonl", "time.jsonl", "scores.json", "splits.json", "failed.json")

# The study: the question of the default grid with the fewest runs, at full resolution.
ARMS, FRACTIONS, SEEDS = ["baseline", "rotation"], [10, 100], [0, 1, 2]
VALIDATIONS = 4        # instead of 20: a short run shall not spend its time on them
STARTUP = 30           # seconds of exp.py beside training: imports, checks, pictures
SAFETY = 0.75          # of the seconds left that a plan may take
SHRINK = 0.85          # from one try to the next, of both numbers of epochs
ENOUGH = 0.05          # share of the default epochs below which one seed is better than three
UNKNOWN = {"3d": Timing(1.0, 0.3), "2d": Timing(0.5, 0.02)}  # seconds where none was measured

SMOKE = {"3d": ["--resolution", "16", "--levels", "1", "--filters", "2"],
         "2d": ["--resolution", "32", "--blocks", "1", "1", "1", "1", "--growth", "4",
                "--batch-size", "4"]}
SHORT = ["--pretext-epochs", "1", "--finetune-epochs", "2", "--warmup-epochs", "1",
         "--validations", "1", "--fractions", "100", "--seeds", "0", "--tasks", "baseline",
         "rotation"]


def main() -> int:
    """Do the part that is asked for."""
    asked = _arguments()
    return {"demo": demo, "study": study}[asked.part](asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("demo", "study"))
    parser.add_argument("tree", choices=("3d", "2d"))
    parser.add_argument("--data", type=Path, help="of a study: as --data of exp.py")
    parser.add_argument("--out", type=Path, required=True, help="where the records go")
    parser.add_argument("--work", type=Path, required=True, help="where the rest goes")
    parser.add_argument("--seconds", type=float, required=True, help="until the part has to end")
    parser.add_argument("--device", default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    asked = parser.parse_args()
    asked.ends = time.monotonic() + asked.seconds
    asked.trained = asked.ends - min(GRAPH, asked.seconds / 5)
    return asked


def demo(asked: argparse.Namespace) -> int:
    """The demo of a tree as a user runs it, then its figure."""
    results, data = asked.work / "results", asked.work / "data"
    flags = ["--demo", "--results", results, "--data", data / DATASETS[asked.tree],
             "--cache", data, *_device(asked)]
    if asked.smoke:
        flags += [*SMOKE[asked.tree], *SHORT]
    began = time.monotonic()
    status = _call(asked, "exp.py", flags, asked.trained)
    taken = time.monotonic() - began
    _keep(results, asked.out)
    drawn = _call(asked, "graph.py", ["--results", results], asked.ends)
    runs = _keep(results, asked.out)
    print(f"{runs} runs in {taken:.0f} s, {runs / taken:.2f} runs/s; exp.py {_ended(status)}, "
          f"graph.py {_ended(drawn)}")
    return status or drawn


def study(asked: argparse.Namespace) -> int:
    """A study of real data that fits into the seconds left; then its figure."""
    results, cache = asked.work / "results", asked.work / "cache"
    exp = trees.script(asked.tree)
    given = ["--data", asked.data, "--results", results, "--cache", cache, *_device(asked),
             "--tasks", *ARMS, "--fractions", *FRACTIONS]
    if asked.smoke:
        given += SMOKE[asked.tree]
    settings = from_flags(vars(exp), [str(flag) for flag in given])
    began = time.monotonic()
    device = torch.device("cuda:0" if asked.device == "cuda" else asked.device)
    made = trees.study_of(exp, settings, device)
    print(f"preprocessed {len(made.cache.facts)} cases in {time.monotonic() - began:.0f} s")
    known = card_steps.timings(card_steps.read(asked.out.parent), asked.tree)
    if not set(ARMS) <= set(known):
        print("warning: no measured steps to plan with; assumed ones instead")
    room = SAFETY * (asked.trained - time.monotonic() - (0 if asked.smoke else STARTUP))
    chosen = fitting(made, {**dict.fromkeys(ARMS, UNKNOWN[asked.tree]), **known}, room)
    flags = _flags(chosen)
    print("settings  " + " ".join(flags), flush=True)
    status = _call(asked, "exp.py", [*given, *flags], asked.trained)
    _keep(results, asked.out)  # before anything else can go wrong
    drawn = _call(asked, "graph.py", ["--results", results], asked.ends)
    runs = _keep(results, asked.out)
    print(f"{runs} of {_count(chosen)} runs, {chosen['FINETUNE_EPOCHS']} and "
          f"{chosen['PRETEXT_EPOCHS']} epochs, {len(chosen['SEEDS'])} seeds; "
          f"{_scores(asked.out)}; exp.py {_ended(status)}, graph.py {_ended(drawn)}")
    return status or drawn


def fitting(made: Study, known: Mapping[str, Timing], seconds: float) -> Json:
    """The largest settings whose runs take at most ``seconds``; InputError if none do.

    Three seeds where each run then still has a twentieth of its epochs, else one.
    """
    least = float("inf")
    for seeds in (SEEDS, SEEDS[:1]):
        share = 1.0
        while share > 1e-4 and not (seeds is SEEDS and share < ENOUGH):
            chosen = shrunk(made.settings, share, seeds)
            changed = replace(made, settings=Settings(**{**vars(made.settings), **chosen}))
            least = card_steps.cost(changed, known, stopped=False).seconds
            if least <= seconds:
                return chosen
            share *= SHRINK
    raise InputError(f"no study fits into the {max(0, seconds):.0f} seconds that are left; the "
                     f"smallest takes {least:.0f}; give more --minutes")


def shrunk(settings: Settings, share: float, seeds: Sequence[int]) -> Json:
    """What changes of the default settings if epochs are scaled to ``share``."""
    return {"SEEDS": list(seeds), "VALIDATIONS": VALIDATIONS,
            "PRETEXT_EPOCHS": max(1, round(share * settings.PRETEXT_EPOCHS)),
            "FINETUNE_EPOCHS": max(1, round(share * settings.FINETUNE_EPOCHS))}


def _flags(chosen: Json) -> list[str]:
    """Constants as flags of exp.py."""
    found = []
    for name, value in chosen.items():
        values = value if isinstance(value, list) else [value]
        found += [f"--{name.lower().replace('_', '-')}", *map(str, values)]
    return found


def _count(chosen: Json) -> int:
    """Runs of the study: the encoders of every arm but the baseline, and all finetuning."""
    return len(chosen["SEEDS"]) * (len(ARMS) - 1 + len(ARMS) * len(FRACTIONS))


def _scores(folder: Path) -> str:
    """Mean test score of each arm and fraction."""
    found: dict[tuple[str, int], list[float]] = {}
    for path in sorted(folder.rglob("finetune/**/scores.json")):
        run = read_json(path)
        found.setdefault((run["task"], run["fraction"]), []).append(
            run["test"][run["metric"]] or 0.0)
    return ", ".join(f"{task} {fraction} % {sum(values) / len(values):.3f}"
                     for (task, fraction), values in found.items()) or "no scores"


def _device(asked: argparse.Namespace) -> list[str]:
    """The device as exp.py takes it: on a card by itself, as most users have it."""
    return [] if asked.device == "cuda" else ["--device", asked.device]


def _call(asked: argparse.Namespace, script: str, flags: Sequence[Any], ends: float) -> int:
    """Run a script of the tree until ``ends`` (monotonic); CUT if it had to be stopped.

    In the same process group: what stops this part stops the script too.
    """
    command = [sys.executable, str(ROOT / "code" / asked.tree / script), *map(str, flags)]
    process = subprocess.Popen(command, stderr=subprocess.STDOUT)
    try:
        return process.wait(max(1.0, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return CUT


def _ended(status: int) -> str:
    return {0: "ok", CUT: "out of time"}.get(status, f"failed ({status})")


def _keep(results: Path, folder: Path) -> int:
    """Copy text records, tables and the curve, no weights; the number of finished runs."""
    every = [file for name in KEPT for file in results.rglob(name)]
    every += [file for kind in ("md", "csv", "png") for file in results.glob(f"train_*.{kind}")]
    for file in every:
        target = folder / file.relative_to(results)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return sum(file.name == "scores.json" for file in every)


if __name__ == "__main__":
    sys.exit(exit_status(main))
