"""The training loop that the ways of others share, as the tutorials of PyTorch and MONAI have it.

Epochs over a loader, plain Adam, a scheduler, the loss fetched at every step, a validation now and
then that saves the best weights, which are loaded and tested in the end.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from bench.peers_rows.plan import Plan, due, network, rate

ADAM_EPS = 1e-7  # as the project's; the library's 1e-8 would be another optimiser
BEST = "best_metric_model.pth"


@dataclass
class Watch:
    """Seconds of the parts of a run, each added up under its name."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the seconds that pass within to ``name``."""
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun


def nothing(outputs: Tensor, targets: Tensor) -> None:
    """Look at no metric of a training batch."""


@dataclass(frozen=True)
class Loop:
    """What a way brings to the loop."""

    batches: Iterable[tuple[Tensor, Tensor]]      # a pass over the training cases, each time anew
    loss: Callable[[Tensor, Tensor], Tensor]      # of outputs and targets
    score: Callable[[nn.Module, str], float]      # of a model in evaluation mode, on val or test
    metrics: Callable[[Tensor, Tensor], object] = nothing  # of every training batch


def train(plan: Plan, loop: Loop, watch: Watch) -> float:
    """Train for plan.steps, and return the test score of the weights best on validation."""
    model, best = network(plan), Path(plan.folder) / BEST
    with watch("loop"):
        _fit(plan, loop, model, watch)
    with watch("test"):
        model.load_state_dict(torch.load(best, weights_only=True))
        return _score(loop, model, "test")


def _fit(plan: Plan, loop: Loop, model: nn.Module, watch: Watch) -> None:
    """Train, and save the weights whenever validation is better than before."""
    optimiser = torch.optim.Adam(model.parameters(), lr=plan.lr, eps=ADAM_EPS)
    scheduler = LambdaLR(optimiser, partial(rate, plan))
    best, validate_at = -math.inf, due(plan)
    model.train()
    for step, (images, targets) in enumerate(_endless(loop.batches, plan.steps), start=1):
        optimiser.zero_grad()
        outputs = model(images)
        loss = loop.loss(outputs, targets)
        loss.backward()
        if plan.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        optimiser.step()
        scheduler.step()
        loss.item()
        loop.metrics(outputs.detach(), targets)
        if step in validate_at:
            with watch("validation"):
                score = _score(loop, model, "val")
                if score > best:
                    best = score
                    torch.save(model.state_dict(), Path(plan.folder) / BEST)
                model.train()


def _endless(batches: Iterable[tuple[Tensor, Tensor]], steps: int
             ) -> Iterator[tuple[Tensor, Tensor]]:
    """``steps`` batches, pass after pass."""
    while True:
        for batch in batches:
            yield batch
            steps -= 1
            if not steps:
                return


def _score(loop: Loop, model: nn.Module, part: str) -> float:
    model.eval()
    with torch.no_grad():
        return loop.score(model, part)
