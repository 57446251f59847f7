"""Two crops of one case have like codes: SimCLR, told from other cases; VICReg, without them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from common.machine.devices import send
from common.tasks.contract import Batch, Pretext, Scores
from common.tasks.heads import Float32, dense, full_precision

WIDTH = 512       # of the projector and of the code it makes
LEAST = 0.3       # of the area or volume that a crop shows
CONSTANT = 0.01   # spread under which the codes are one, and
RANK = 2.0        # effective rank under which they lie on a line: nothing is learnt any more
ENOUGH = 24       # codes whose rank says something: six cases, four views each


class TwoCrops(Pretext):
    """Which two crops are of the same case? A base class; a tree adds its ``changed``.

    Crops of at least .3 of the area or volume, resized to the whole; colours stay, for they are the
    disease. ``accuracy`` is the share of crops whose nearest other crop of the batch, by cosine, is
    the one of the same case: a guess finds it once in 2 B - 1 times.
    """

    batch_size, lr, steps, schedule = 32, 1e-3, 5000, "cosine"
    joins = False
    hidden = 1     # layers of the projector before its last

    def __init__(self, size: int, batch_size: int = 0) -> None:
        super().__init__(size, batch_size)
        self.chance = {"accuracy": 1 / (2 * self.batch_size - 1)}

    def changed(self, images: Tensor, rng: Generator) -> Tensor:
        """Crop, mirror and light images (B, C, *space) anew."""
        raise NotImplementedError

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """Two crops of every case, (B, 2, C, *space), and the numbers of the cases."""
        count = len(batch.cases)
        if count < 2:
            raise ValueError(f"{self.name} needs 2 different cases in a batch")
        assert len(set(batch.cases)) == count, "a case would be told from itself"
        views = torch.stack([self.changed(batch.images, rng) for _ in range(2)], dim=1)
        return views, send(torch.arange(count), batch.device)

    def head(self, widths: Sequence[int]) -> nn.Module:
        """The projector, shared by both crops: (B, 2, F) -> (B, 2, 512)."""
        return Projector(sum(widths), self.hidden)

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Of every case the share of its crops that find the other, a guess's, and its code."""
        near = similar(outputs)
        found = near.argmax(1) == partners(len(outputs), near.device)
        return {"accuracy": found.view(2, -1).double().mean(0),
                "guess": found.new_full((len(outputs),), 1 / (len(near) - 1), dtype=torch.float64),
                "code": F.normalize(outputs[:, 0].float(), dim=1)}

    def summarise(self, scores: Scores) -> dict[str, Any]:
        """Means, and how far the codes spread: 1 in all directions, 0 where all are one."""
        codes = scores["code"].astype(np.float64)
        return {"accuracy": float(np.mean(scores["accuracy"])),
                "guess": float(np.mean(scores["guess"])),
                "spread": float(codes.std(0).mean() * np.sqrt(codes.shape[1])),
                "rank": effective_rank(codes), "codes": len(codes)}

    def chance_of(self, figures: Mapping[str, Any]) -> Mapping[str, float]:
        """A guess among the crops that were compared, which need not be as many as trained with."""
        return {"accuracy": figures["guess"]}

    def collapsed(self, figures: Mapping[str, Any]) -> str:
        """Whether all codes are one, or lie on a line."""
        on_a_line = figures["codes"] >= ENOUGH and figures["rank"] < RANK
        if figures["spread"] < CONSTANT or on_a_line:
            return (f"its codes have collapsed (spread {figures['spread']:.3f}, 1 is isotropic; "
                    f"effective rank {figures['rank']:.1f} of {WIDTH})")
        return ""

    def caption(self, targets: Tensor, case: int) -> str:
        """What the two views are."""
        return "two crops of one case"


class Contrast(TwoCrops):
    """SimCLR, Chen et al. 2020: the own other crop is told from all others of the batch."""

    name = "simclr"
    temperature = 0.2

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """NT-Xent: cross-entropy over the 2 B - 1 other crops."""
        near = similar(outputs) / self.temperature
        return F.cross_entropy(near, partners(len(outputs), near.device))


class VarianceCovariance(TwoCrops):
    """VICReg, Bardes et al. 2022: like codes, of a spread of 1 in directions that say other things.

    No case is told from another, so that small batches serve.
    """

    name = "vicreg"
    hidden = 2
    weights = (25.0, 25.0, 1.0)  # invariance, variance, covariance

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The weighted sum of the three parts."""
        one, other = outputs.float().unbind(1)
        variance, covariance = (sum(parts) for parts in zip(
            *(_spread(codes) for codes in (one, other)), strict=True))
        parts = F.mse_loss(one, other), variance / 2, covariance
        total: Tensor = sum((weight * part for weight, part in
                             zip(self.weights, parts, strict=True)), start=one.new_zeros(()))
        return total


class Projector(nn.Module):
    """Dense layers with BatchNorm and ReLU between: (B, V, F) -> (B, V, 512), in float32."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(hidden):
            layers += [dense(inputs, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU()]
            inputs = WIDTH
        self.layers = Float32(*layers, dense(inputs, WIDTH))

    def forward(self, features: Tensor) -> Tensor:
        """Project every view."""
        codes: Tensor = self.layers(features.flatten(0, 1))
        return codes.unflatten(0, features.shape[:2])


def similar(outputs: Tensor) -> Tensor:
    """Cosines of all crops of a batch (B, 2, F): (2 B, 2 B), first crops first; -inf to itself."""
    codes = F.normalize(outputs.float(), dim=2).transpose(0, 1).flatten(0, 1)
    same = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    with full_precision(codes.device):
        return (codes @ codes.T).masked_fill(same, float("-inf"))


def partners(cases: int, device: torch.device) -> Tensor:
    """The place of each crop's partner: (2 B,)."""
    return torch.arange(2 * cases, device=device).roll(cases)


def _spread(codes: Tensor) -> tuple[Tensor, Tensor]:
    """What is missing to a standard deviation of 1, and how much directions say the same."""
    centred = codes - codes.mean(0)
    deviation = (centred.var(0, unbiased=True) + 1e-4).sqrt()
    with full_precision(codes.device):
        between = centred.T @ centred / (len(codes) - 1)
    others = between.pow(2).sum() - between.diagonal().pow(2).sum()
    return F.relu(1 - deviation).mean(), others / codes.shape[1]


def effective_rank(codes: np.ndarray) -> float:
    """exp of the entropy of the shares of the singular values; Roy and Vetterli 2007.

    Of codes (cases, F), less their mean; 1 where all are one.
    """
    if not np.isfinite(codes).all():
        return float("nan")
    values = np.linalg.svd(codes - codes.mean(0), compute_uv=False)
    if values.sum() < 1e-12:
        return 1.0
    shares = values[values > 1e-12 * values[0]] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
