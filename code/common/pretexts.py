"""The pretext tasks that read the same in any number of dimensions; a tree adds its numbers.

Source of the tasks: Taleb et al. 2020, section 3, and their official code.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from common import patches
from common.devices import send
from common.task import Batch, Float32, Scores, big_head, dense, means

PERMUTATIONS = 100  # jigsaw classes; official code


class Classification:
    """A pretext task whose target is one of ``classes``: big head, cross-entropy, accuracy."""

    labelled = False
    monitor = "-loss"
    stages = False
    views = 1  # views a case, concatenated before the head

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.chance = {"accuracy": 1 / classes}
        self.guess = math.log(classes)

    def head(self, widths: Sequence[int]) -> nn.Module:
        """The big head over the concatenated codes of all views."""
        return big_head(self.views * sum(widths), self.classes)

    def caption(self, targets: Tensor, case: int) -> str:
        """The class of the case."""
        return f"class {int(targets[case]) + 1} of {self.classes}"

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

    def __init__(self, size: int, dimensions: int) -> None:
        self.side = size
        self.dimensions = dimensions
        self.turns = patches.quarter_turns(dimensions)
        super().__init__(len(self.turns))

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """One turned view of each case, and the number of its turn."""
        targets = torch.randint(self.classes, (len(batch.cases),), generator=rng)
        views = batch.joined([patches.turn(image, self.turns[target]) for image, target
                              in zip(batch.stored, targets.tolist(), strict=True)])
        return views[:, None], send(targets, batch.device)


    def caption(self, targets: Tensor, case: int) -> str:
        """Angle and plane of the turn."""
        quarters, plane = self.turns[int(targets[case])]
        if not quarters:
            return "not turned"
        several = len(self.turns) > 4  # planes to choose from
        axes = [axis + self.dimensions for axis in plane]
        return f"turned by {90 * quarters}°" + (
            f" in the plane of axes {axes[0]} and {axes[1]}" if several else "")


class RelativePatch(Classification):
    """Where does the second patch lie, seen from the centre? Source: Doersch et al. 2015; 3.2."""

    name = "rpl"
    views = 2  # the centre patch and one other

    def __init__(self, size: int, jitter: int, dimensions: int) -> None:
        self.grid = patches.Grid(size, 3, jitter, dimensions)
        self.side = self.grid.patch
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


    def caption(self, targets: Tensor, case: int) -> str:
        """Where the second patch lies, in cells along each axis."""
        target = int(targets[case])
        offset = (self.grid.cells[target + (target >= self.centre)] - 1).tolist()
        return f"the second lies at ({', '.join(f'{step:+d}' if step else '0' for step in offset)})"


class Jigsaw(Classification):
    """Which permutation shuffled the patches? Source: Noroozi and Favaro 2016; 3.4."""

    name = "jigsaw"

    def __init__(self, size: int, jitter: int, dimensions: int) -> None:
        self.grid = patches.Grid(size, 3, jitter, dimensions)
        self.side = self.grid.patch
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


    def caption(self, targets: Tensor, case: int) -> str:
        """The number of the permutation."""
        return f"permutation {int(targets[case]) + 1} of {self.classes}"


class Exemplar:
    """Is the view closer to its own original than to another case? Dosovitskiy 2014; 3.5.

    Anchor = augmented view, positive = the original, negative = another case's original, taken
    from the batch: each case is encoded once per view, and a case is never its own negative. A
    tree adds ``augment``; a variant may choose its negatives by their codes.
    """

    name = "exemplar"
    labelled = False
    monitor = "-loss"
    stages = False
    chance = {"accuracy": 0.5}
    width = 1024  # of the code; official code
    margin = 1.0  # official code
    guess = margin

    def __init__(self, size: int) -> None:
        self.side = size

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

    def summarise(self, scores: Scores) -> dict[str, float]:
        """Share of triplets in the right order."""
        return means(scores)


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
