"""Exemplar: views of one case lie nearer to each other than to another. Taleb et al. 2020, 3.5."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from common.machine.devices import send
from common.tasks.contract import Batch, Pretext
from common.tasks.heads import Float32, dense


class Exemplar(Pretext):
    """Is the view closer to its own original than to another case? Dosovitskiy 2014; 3.5.

    Anchor = augmented view, positive = the original, negative = another case's original, taken
    from the batch: each case is encoded once per view, and a case is never its own negative. A
    tree adds ``augment``; a variant may choose its negatives by their codes.
    """

    name = "exemplar"
    chance = {"accuracy": 0.5}
    width = 1024  # of the code; official code
    margin = 1.0  # official code
    guess = margin

    def augment(self, images: Tensor, rng: Generator) -> Tensor:
        """Change images (B, C, *space) in ways that keep what they show."""
        raise NotImplementedError

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """Anchor and positive, and for each case the place in the batch of a random other case."""
        count = len(batch.cases)
        if count < 2:
            raise ValueError("exemplar needs 2 different cases in a batch: the negative is another")
        assert len(set(batch.cases)) == count, "a case would be its own negative"
        shift = torch.randint(1, count, (count,), generator=rng)
        other = (torch.arange(count) + shift) % count
        views = torch.stack([self.augment(batch.images, rng), batch.images], dim=1)
        return views, send(other, batch.device)

    def head(self, widths: Sequence[int]) -> nn.Module:
        """One dense layer shared by all views: (B, 2, F) -> (B, 2, 1024) in 0..1."""
        return Float32(dense(sum(widths), self.width), nn.Sigmoid())

    def caption(self, targets: Tensor, case: int) -> str:
        """What the two views are."""
        return "changed, and the original"

    def distances(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared difference of each anchor's code to its own original, (B,), and to all.

        (B, B), its diagonal infinite: nobody is its own negative. The mean, not the norm: over
        1024 sigmoids a norm passes margin 1 at once.
        """
        anchor, positive = outputs.float().unbind(1)
        between = ((anchor[:, None] - positive) ** 2).mean(2)  # (B, B)
        far = between.masked_fill(torch.eye(len(between), dtype=torch.bool,
                                            device=between.device), float("inf"))
        return between.diagonal(), far

    def negatives(self, near: Tensor, far: Tensor, other: Tensor) -> Tensor:
        """Distance of each anchor to its negative, (B,): here the case drawn at random."""
        return far.gather(1, other[:, None]).squeeze(1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Triplet loss: mean over the batch of max(0, d(a, p) - d(a, n) + 1)."""
        near, far = self.distances(outputs)
        return (near - self.negatives(near, far, targets) + self.margin).clamp(min=0).mean()

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Whether the original is nearer than a random other case, in every variant."""
        near, far = self.distances(outputs)
        return {"accuracy": (near < Exemplar.negatives(self, near, far, targets)).double()}


class HardestNegative:
    """Put before Exemplar: the negative is the nearest other case; Hermans et al. 2017."""

    name = "exemplar_hard"

    def negatives(self, near: Tensor, far: Tensor, other: Tensor) -> Tensor:
        """Distance of each anchor to the nearest other original of the batch: (B,)."""
        return far.min(1).values


class SemihardNegative:
    """Put before Exemplar: the nearest other case beyond the original; Schroff et al. 2015."""

    name = "exemplar_semihard"

    def negatives(self, near: Tensor, far: Tensor, other: Tensor) -> Tensor:
        """Distance to the nearest that is farther than the original, else to the farthest: (B,)."""
        beyond = far.masked_fill(far <= near[:, None], float("inf")).min(1).values
        farthest = far.masked_fill(far.isinf(), 0.0).max(1).values
        return torch.where(beyond.isinf(), farthest, beyond)
