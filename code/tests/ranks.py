"""What test_parallel.py does in each of a number of ranks."""

import importlib
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from commands import fit
from torch import nn

from common.downstream.grading import Grading
from common.downstream.segmentation import Segmentation
from common.errors import RunFailed
from common.machine import launcher, parallel
from common.runs import checkpoint, training
from common.runs.records import Run, SilentRun, read_log
from common.runs.training import Recipe
from common.tasks import joint
from common.tasks.batches import Cases, generator
from common.tasks.siamese import Siamese

IDS = [f"case_{i}" for i in range(12)]
# Five training cases in batches of five: ranks get parts of unequal length.
RECIPE = Recipe(seed=3, epochs=4, steps=2, batch_size=5, lr=1e-3, clip=1.0, warmup=1,
                validations=3)


def volumes(side: int) -> Cases:
    images = torch.rand(12, 1, side, side, side, generator=generator(0, "i"))
    return Cases(images, (images[:, 0] > 0.6).byte() + (images[:, 0] > 0.9).byte(), IDS,
                 torch.device("cpu"))


def photographs() -> Cases:
    images = torch.rand(12, 3, 64, 64, generator=generator(0, "p"))
    return Cases(images, torch.arange(12) % 5, IDS, torch.device("cpu"))


def model_and_task(name: str) -> tuple[nn.Module, Any, Cases]:
    tree, what = name.split("/")
    model: Any = importlib.import_module(f"{tree}.model")
    cases = volumes(32 if what == "cpc" else 16) if tree == "3d" else photographs()
    encoder = (model.Encoder(1, 4, 2, checkpointing=what == "checkpointing") if tree == "3d" else
               model.Encoder((1, 1, 1, 1), 8))
    if what in ("segmentation", "checkpointing"):
        return model.UNet(encoder, 3), Segmentation(["background", "a", "b"]), cases
    if what == "grading":
        return model.Grader(encoder, 5), Grading(5, lambda images, rng: images), cases
    task = joint.make(what, importlib.import_module(f"{tree}.pretext").PRETEXTS,
                      cases.images.shape[-1])
    views, _ = task.prepare(cases.batch([0, 1], labelled=False), generator(0, "v"), training=False)
    return Siamese(encoder, task.head, views, stages=task.stages), task, cases


def train(name: str, folder: Path, *, dropout: float = 0.0,
          report: launcher.Report = lambda steps: None) -> dict[str, Any]:
    """Losses, figures and weights of a run."""
    torch.set_num_threads(1)
    training.ADAM_EPS = 1e-2  # at 1e-7 Adam makes whole steps of the rounding of tiny gradients
    torch.manual_seed(0)
    model, task, cases = model_and_task(name)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = dropout
    run = (Run if parallel.leads() else SilentRun)(
        folder / "finetune" / name.replace("/", "-") / "fraction100" / "seed0",
        {"stage": "finetune"})
    if parallel.leads():
        run.start({})
    state = fit(model, task, cases, train=[0, 1, 2, 3, 4], val=[5, 6, 7], run=run, recipe=RECIPE,
                report=report)
    return {"log": read_log(run.folder) if parallel.leads() else [], "history": state.history,
            "weights": checkpoint.weights(model)}


def train_all(names: list[str], out: Path, device: torch.device, report: launcher.Report) -> str:
    """Every named run; the first rank keeps what all must have in common."""
    with tempfile.TemporaryDirectory() as folder:
        made = {name: train(name, Path(folder)) for name in names}
    torch.save(made, f"{out}.{parallel.rank()}")
    report(len(names))
    return "trained"


def go_on(out: Path, device: torch.device, report: launcher.Report) -> str:
    """A run beside one that is broken off in its third epoch, if it has not been before."""
    training.CHECKPOINT_EVERY = 0
    name, begun = "3d/segmentation", (out / "parts").exists()
    saved = out / "parts" / "finetune" / "3d-segmentation" / "fraction100" / "seed0" / "last.pt"

    def stop(steps: int) -> None:
        if not begun and saved.exists():
            raise RunFailed("broken off")
    parts = train(name, out / "parts", dropout=0.5, report=stop)
    if not parallel.leads():
        train(name, out / "whole", dropout=0.5)
        return ""
    torch.save({"parts": parts, "whole": train(name, out / "whole", dropout=0.5)}, out / "both.pt")
    return "gone on"


def fail(how: str, device: torch.device, report: launcher.Report) -> str:
    """The second rank fails in one of several ways while the first waits for it."""
    if parallel.rank() == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise {"failed": RunFailed("run: not finite"), "broken": KeyError("a defect")}[how]
    parallel.total(torch.ones(1))
    return "never"


def over(count: int, job: Callable[[torch.device, launcher.Report], str]) -> None:
    """Do it in ``count`` new processes, or in this one, and print what the first returns."""
    cpu = torch.device("cpu")
    print(job(cpu, print) if count == 1 else launcher.launch([cpu] * count, job, print))
