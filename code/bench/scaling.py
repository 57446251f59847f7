"""Hours of a grid against the number of GPUs, simulated: no run is trained.

    python code/bench/scaling.py                      the default 3D grid, modelled step times
    python code/bench/scaling.py --records results/3d/pancreas   measured times of finished runs

The order is that of schedule/plan.py, the rule that of schedule/workers.py: whoever is free claims
the first run whose encoder exists. Modelled times: operations of a finetuning step, counted, at an
assumed rate; pretraining by the voxels of its views, as exp.py's own estimate has it. They are
upper bounds, all epochs of pretraining counted. Claims, start-up and shared disks cost nothing.
"""

import argparse
import importlib
import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench import measure
from common.data.cache import Cache
from common.data.splits import hold_out
from common.downstream.segmentation import Segmentation
from common.files import Json, read_json
from common.runs.records import Run, read_log
from common.runs.study import Networks, Study
from common.schedule.plan import Job, in_order, plan
from common.settings import from_flags
from common.stats.measures import mean_of

CODE = Path(__file__).resolve().parents[1]
GPUS = [1, 2, 4, 8, 16, 32]
RATE = 20e12        # operations a second in training: assumed, 2 % of an H100's peak in bfloat16
CLASSES = ["background", "pancreas", "tumour"]
LABELLED, UNLABELLED = 281, 139  # cases of MSD Task07_Pancreas


@dataclass(frozen=True)
class Timed:
    """A run as the simulation knows it."""

    name: str
    needs: str | None   # the pretraining run it starts from
    seconds: float


def hours(runs: Sequence[Timed], places: int) -> float:
    """Hours until all runs, given in the order of claims, are done in ``places`` processes."""
    waiting, done, now = list(runs), set(), 0.0
    running: list[tuple[float, str]] = []
    while waiting or running:
        for run in list(waiting):
            if len(running) < places and (run.needs is None or run.needs in done):
                heappush(running, (now + run.seconds, run.name))
                waiting.remove(run)
        now, name = heappop(running)
        done.add(name)
    return now / 3600


def table(runs: Sequence[Timed], gpus: Sequence[int]) -> str:
    """Hours, speed-up and the share of time in which GPUs train, for each number of GPUs."""
    total = sum(run.seconds for run in runs) / 3600
    lines = ["| GPUs | hours | times as fast | busy |", "|---|---|---|---|"]
    for count in gpus:
        taken = hours(runs, count)
        lines.append(f"| {count} | {taken:.1f} | {total / taken:.1f} | "
                     f"{total / taken / count:.0%} |")
    return "\n".join(lines)


def measured(folder: Path) -> list[Timed]:
    """The finished runs below a folder of records, with the seconds that their epochs took."""
    jobs, runs = [], {}
    for path in sorted(folder.glob("*/**/scores.json")):
        if ".old-" not in str(path):
            run = Run(path.parent, read_json(path.with_name("config.json"))["identity"])
            seconds = sum(line["seconds"] for line in read_log(path.parent, "time"))
            jobs.append(Job(partial(_same, run), None, 1, seconds,
                            finetunes=run.identity["stage"] == "finetune"))
            runs[run.name] = run
    if not jobs:
        sys.exit(f"{folder}: no finished runs; give a folder as results/3d/<dataset>")
    return [Timed(run.name, _encoder(run.identity, runs), job.work)
            for job in in_order(jobs) for run in [job.make()]]


def _same(run: Run) -> Run:
    return run


def _encoder(identity: Json, runs: dict[str, Run]) -> str | None:
    """The pretraining run that a finetuning run starts from, if it is among ``runs``."""
    if identity.get("encoder") is None:
        return None
    name = f"pretrain/{identity['task']}/seed{identity['seed']}"
    return name if name in runs else None


def modelled(arguments: Sequence[str]) -> list[Timed]:
    """The runs of the 3D grid on the pancreas set, each at most, in the order of exp.py's plan."""
    sys.path.insert(0, str(CODE / "3d"))  # exp.py imports its siblings by their bare names
    script = runpy.run_path(str(CODE / "3d" / "exp.py"))
    study = pancreas(from_flags(script, arguments))
    s = study.settings
    second = RATE / step_operations(s)  # finetuning steps in a second
    voxel = 1 / (second * s.BATCH_SIZE * s.RESOLUTION**3)
    return [Timed(job.make().name, job.needs().name if job.needs else None, job.work * voxel)
            for job in plan(study)]


def pancreas(settings: Any) -> Study:
    """A study of as many cases as the pancreas set has, without their images."""
    names = [f"case_{i:03d}" for i in range(LABELLED + UNLABELLED)]
    strata = dict.fromkeys(names[:LABELLED], 0)
    cache = Cache(Path(), {case: {"contains": [0, 1, 2]} for case in names},
                  dict.fromkeys(names, ""), LABELLED, dict.fromkeys(names, ["", ""]))
    parts = hold_out(strata, seed=settings.SPLIT_SEED, folds=settings.FOLDS)
    model = importlib.import_module("3d.model")
    networks = Networks(
        encoder=partial(model.Encoder, 1, settings.FILTERS, settings.LEVELS),
        decoder=model.Decoder.of, downstream=partial(model.UNet, classes=len(CLASSES)),
        channels_last=torch.channels_last_3d, step_bytes=0.0, probe=32,
        smaller="", encoder_share=0.3)
    return Study(
        settings, "3d", "pancreas", False, cache, parts, strata, names[LABELLED:],
        pretexts=importlib.import_module("3d.pretext").PRETEXTS, external={},
        downstream=partial(Segmentation, CLASSES), measure=partial(mean_of, "dice", "Dice"),
        networks=networks, classes=CLASSES[1:],
        channels=["CT"], dimensions=3, axes="", precision="bfloat16", rule="")


def step_operations(settings: Any) -> float:
    """Floating-point operations of a finetuning step, counted without computing anything."""
    model = importlib.import_module("3d.model")
    side = settings.RESOLUTION
    with torch.device("meta"):
        unet = model.UNet(model.Encoder(1, settings.FILTERS, settings.LEVELS), len(CLASSES))
        images = torch.zeros(settings.BATCH_SIZE, 1, side, side, side)
        return measure.flops(lambda: unet(images).sum().backward())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, help="a data set's folder of finished runs")
    parser.add_argument("--gpus", type=int, nargs="+", default=GPUS)
    given, rest = parser.parse_known_args()  # the rest are constants of code/3d/exp.py
    runs = measured(given.records) if given.records else modelled(rest)
    longest = max(runs, key=lambda run: run.seconds)
    source = f"times of {given.records}" if given.records else (
        f"modelled at {RATE / 1e12:.0f} TFLOP/s")
    print(f"simulated, {len(runs)} runs, {source}; the longest, {longest.name}, "
          f"{longest.seconds / 3600:.1f} hours\n\n{table(runs, given.gpus)}")


if __name__ == "__main__":
    main()
