"""How fast, beside the plain way of doing the same, measured in one run.

    python code/bench/speed.py                      about twenty minutes on two idle CPU cores
    python code/bench/speed.py --device cuda        full sizes on a GPU, and its options
    python code/bench/speed.py --skip growth steps  without some of the groups

Prints a table as its rows come, and saves results/published/speed/speed-<device>.json and .md.
The plain way is in plain.py; sizes and targets stand beside each row. Everything is generated.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench import trees
from bench.measure import Row, Sizes, machine
from bench.rows import data_rows, options, step_rows, task_rows
from common.errors import InputError, exit_status
from common.files import ROOT, write_text
from common.machine import devices, limits

THREADS = 1                               # of a run, as in both exp.py
ROUNDS = 5                                # medians over this many; the first is never counted
RESULTS = ROOT / "results/published/speed"
FULL = Sizes(scan=(512, 512, 95), side=128, pool=(8, 24), pictures=48, growth=(10, 100, 1000),
             volumes=(), photographs=(), few_voxels=("--resolution", "32", "--levels", "2"),
             few_pixels=("--resolution", "96"))
SIZES = {
    "cuda": FULL,
    # A step at 128^3 takes tens of seconds here; 64 with 3 levels is the README's next size.
    "cpu": Sizes(**{**vars(FULL), "volumes": ("--resolution", "64", "--levels", "3")}),
    "smoke": Sizes(scan=(48, 48, 24), side=32, pool=(1, 2), pictures=4, growth=(6, 8),
                   volumes=("--resolution", "32", "--levels", "2", "--filters", "2",
                            "--batch-size", "2", "--pretext-batch-size", "2"),
                   photographs=("--resolution", "32", "--blocks", "1", "1", "1", "1", "--growth",
                                "4", "--batch-size", "4", "--tasks", "baseline"),
                   few_voxels=("--resolution", "32", "--levels", "2", "--filters", "2",
                               "--batch-size", "2", "--pretext-batch-size", "2"),
                   few_pixels=("--resolution", "96", "--blocks", "1", "1", "1", "1", "--growth",
                               "4", "--batch-size", "4", "--pretext-batch-size", "4")),
}
GROUPS = ("preprocessing", "views", "batch", "storage", "decoding", "commands", "steps", "growth",
          "tasks", "options")
COLUMNS = ("what", "ours", "plain", "ratio", "target", "met", "note")
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "nibabel", "isal")


def main() -> int:
    """Measure every group in turn, print its rows, and save them."""
    asked = _arguments()
    device = devices.choose(asked.device, ranks=1)[0]
    sizes = SIZES["smoke" if asked.smoke else device.type]
    torch.backends.cudnn.benchmark = True  # as grid.py has it
    torch.set_num_threads(THREADS)
    limits.keep_memory()  # as runs have it; serves the plain way alike
    rows: list[Row] = []

    def told(row: Row) -> None:
        rows.append(row)
        print("  ".join(f"{part:<{width}}" for part, width
                        in zip(_cells(row)[:-1], (62, 10, 10, 6, 14, 4), strict=True)), flush=True)
    print(_machine(device, asked.rounds))
    with tempfile.TemporaryDirectory() as folder:
        jobs = _jobs(Path(folder), device, asked.rounds, sizes, told)
        for group in GROUPS:
            if group not in asked.skip:
                for row in jobs[group]() or []:
                    told(row)
                _save(asked.results, device, asked.rounds, rows)  # what is measured stays
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--skip", nargs="+", default=[], choices=GROUPS)
    parser.add_argument("--skip-growth", dest="skip", action="append_const", const="growth")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    asked = parser.parse_args()
    if asked.rounds < 1:
        raise InputError(f"--rounds {asked.rounds}: must be at least 1")
    return asked


def _jobs(folder: Path, device: torch.device, rounds: int, sizes: Sizes,
          told: Callable[[Row], None]) -> dict[str, Callable[[], list[Row] | None]]:
    """What each group does; those that tell their rows themselves return none."""
    return {
        "preprocessing": partial(data_rows.preprocessing, folder, rounds, sizes),
        "views": partial(data_rows.views, rounds, device, sizes),
        "batch": partial(data_rows.finetune_batch, rounds, device, sizes),
        "storage": data_rows.storage,
        "decoding": partial(data_rows.decoding, folder, sizes.pictures),
        "commands": partial(data_rows.commands, folder),
        "steps": partial(_steps, folder, device, rounds, sizes, told),
        "growth": partial(data_rows.growth, folder, sizes.growth),
        "tasks": partial(_tasks, folder, device, rounds, sizes, told),
        "options": partial(_options, folder, device, rounds, sizes, told),
    }


def _steps(folder: Path, device: torch.device, rounds: int, sizes: Sizes,
           told: Callable[[Row], None]) -> None:
    """Training steps of both trees, then what the grid would take."""
    volumes = trees.open_3d(folder, device, sizes)
    timed = step_rows.steps(volumes, rounds, told)
    step_rows.projections(volumes, timed, told)
    step_rows.steps(trees.open_2d(folder, device, sizes), rounds, told)


def _tasks(folder: Path, device: torch.device, rounds: int, sizes: Sizes,
           told: Callable[[Row], None]) -> None:
    """A step of every arm of both trees, at a small size."""
    for opened in (partial(trees.open_3d, scans=task_rows.SCANS), trees.open_2d):
        task_rows.every(opened(folder / "tasks", device, replace(
            sizes, volumes=sizes.few_voxels, photographs=sizes.few_pixels)), rounds, told)


def _options(folder: Path, device: torch.device, rounds: int, sizes: Sizes,
             told: Callable[[Row], None]) -> None:
    """Memory formats, precisions and compilation; on a GPU only."""
    if device.type == "cuda":
        options.rows(trees.open_3d(folder, device, sizes), rounds, told)


def _machine(device: torch.device, rounds: int) -> str:
    card = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return f"{card}{machine(PACKAGES)}; medians of {rounds} rounds"


def _cells(row: Row) -> list[str]:
    """A row as text, by COLUMNS."""
    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.3g} {row.unit}" if value < 1000 else (
            f"{value:.0f} {row.unit}")
    met = {True: "yes", False: "no", None: ""}[row.met]
    return [row.what, shown(row.ours), shown(row.plain),
            "" if row.ratio is None else f"{row.ratio:.1f}x", row.target, met, row.note]


def _save(folder: Path, device: torch.device, rounds: int, rows: list[Row]) -> None:
    """Write the JSON and the Markdown table."""
    where = _machine(device, rounds)
    table = [COLUMNS, ("---",) * len(COLUMNS), *map(_cells, rows)]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"speed-{device.type}.md", f"{where}.\n\n{text}\n\nMade by "
               "code/bench/speed.py; *ratio*: plain over ours; *target*: for two idle CPU cores.\n")
    content = {"machine": where, "device": device.type, "rounds": rounds,
               "rows": [{**asdict(row), "ratio": row.ratio} for row in rows]}
    write_text(folder / f"speed-{device.type}.json", json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(exit_status(main))
