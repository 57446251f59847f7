"""The pretext tasks that read the same in any number of dimensions; a tree adds its numbers.

Source of the tasks: Taleb et al. 2020, section 3, and their official code (science.md 3).
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from common import patches
from common.devices import send
from common.task import Batch, Scores, big_head, dense, means

PERMUTATIONS = 100  # jigsaw classes; official code


class Classification:
    """A pretext task whose target is one of ``classes``: big head, cross-entropy, accuracy."""

    labelled = False
    monitor = "-loss"
    views = 1  # views a case, concatenated before the head

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.chance = {"accuracy": 1 / classes}

    def head(self, widths: Sequence[int]) -> nn.Module:
        """The big head over the concatenated codes of all views."""
        return big_head(self.views * sum(widths), self.classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of (B, classes) against class numbers (B,)."""
        return F.cross_entropy(outputs.float(), targets)

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Whether each case was classified correctly."""
        return {"accuracy": (outputs.argmax(1) == targets).double()}

    def summarise(self, scores: Scores) -> dict[str, float]:
        """Accuracy over all cases."""
        return means(scores)


class Rotation(Classification):
    """Which quarter turn was applied? Source: Gidaris et al. 2018; Taleb et al. 2020, 3.3."""

    name = "rotation"

    def __init__(self, dimensions: int) -> None:
        self.turns = patches.quarter_turns(dimensions)
        super().__init__(len(self.turns))

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """One turned view of each case, and the number of its turn."""
        targets = torch.randint(self.classes, (len(batch.cases),), generator=rng)
        views = torch.stack([patches.turn(image, self.turns[target])
                             for image, target in zip(batch.stored, targets.tolist(), strict=True)])
        return batch.views(views)[:, None], send(targets, batch.device)


class RelativePatch(Classification):
    """Where does the second patch lie, seen from the centre? Source: Doersch et al. 2015; 3.2."""

    name = "rpl"
    views = 2  # the centre patch and one other

    def __init__(self, size: int, jitter: int, dimensions: int) -> None:
        self.grid = patches.Grid(size, 3, jitter, dimensions)
        self.centre = len(self.grid.cells) // 2
        super().__init__(len(self.grid.cells) - 1)

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """The centre patch beside one other, whose place (the centre not counted) is the class."""
        count = len(batch.cases)
        targets = torch.randint(self.classes, (count,), generator=rng)
        other = targets + (targets >= self.centre)  # skips the centre
        corners = self.grid.corners(count, rng, training=training)  # (B, cells, d)
        case = torch.arange(count)
        pairs = torch.stack([corners[case, self.centre], corners[case, other]], dim=1)
        views = batch.views(self.grid.cut(batch.stored, pairs))
        return views, send(targets, batch.device)


class Jigsaw(Classification):
    """Which permutation shuffled the patches? Source: Noroozi and Favaro 2016; 3.4."""

    name = "jigsaw"

    def __init__(self, size: int, jitter: int, dimensions: int) -> None:
        self.grid = patches.Grid(size, 3, jitter, dimensions)
        self.views = len(self.grid.cells)
        # The same puzzle for every seed: the classes are part of the task, not of a run.
        rng = torch.Generator().manual_seed(0)
        self.permutations = patches.permutations(self.views, PERMUTATIONS, rng)
        super().__init__(PERMUTATIONS)

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """All patches in the order of a drawn permutation, whose number is the class."""
        count = len(batch.cases)
        targets = torch.randint(self.classes, (count,), generator=rng)
        corners = self.grid.corners(count, rng, training=training)  # (B, V, d)
        order = self.permutations[targets]  # (B, V)
        shuffled = corners[torch.arange(count)[:, None], order]
        views = batch.views(self.grid.cut(batch.stored, shuffled))
        return views, send(targets, batch.device)


class Exemplar:
    """Is the view closer to its own original than to another case? Dosovitskiy 2014; 3.5.

    Anchor = augmented view, positive = the original, negative = another case's original, taken
    from the batch: each case is encoded once per view. A tree adds ``augment``.
    """

    name = "exemplar"
    labelled = False
    monitor = "-loss"
    chance = {"accuracy": 0.5}
    width = 1024  # of the code; official code
    margin = 1.0  # official code

    def augment(self, images: Tensor, rng: Generator) -> Tensor:
        """Change images (B, C, *space) in ways that keep what they show."""
        raise NotImplementedError

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """Anchor and positive, and for each case the place in the batch of its negative."""
        count = len(batch.cases)
        if count < 2:
            raise ValueError("exemplar needs 2 different cases in a batch: the negative is another")
        assert len(set(batch.cases)) == count, "a case would be its own negative"
        shift = torch.randint(1, count, (count,), generator=rng)
        negative = (torch.arange(count) + shift) % count
        views = torch.stack([self.augment(batch.images, rng), batch.images], dim=1)
        return views, send(negative, batch.device)

    def head(self, widths: Sequence[int]) -> nn.Module:
        """One dense layer shared by all views: (B, 2, F) -> (B, 2, 1024) in 0..1."""
        return nn.Sequential(dense(sum(widths), self.width), nn.Sigmoid())

    def distances(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared difference of the codes, anchor to positive and to negative: (B,), (B,).

        The mean, not the norm: over 1024 sigmoids a norm passes margin 1 at once.
        """
        anchor, positive = outputs.float().unbind(1)
        negative = positive[targets]
        return ((anchor - positive) ** 2).mean(1), ((anchor - negative) ** 2).mean(1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Triplet loss: mean over the batch of max(0, d(a, p) - d(a, n) + 1)."""
        near, far = self.distances(outputs, targets)
        return (near - far + self.margin).clamp(min=0).mean()

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Whether the positive is nearer than the negative."""
        near, far = self.distances(outputs, targets)
        return {"accuracy": (near < far).double()}

    def summarise(self, scores: Scores) -> dict[str, float]:
        """Share of triplets in the right order."""
        return means(scores)
