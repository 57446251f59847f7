"""Cases on their device, and the batches that are made of them; all chance comes from a seed."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from common.errors import InputError
from common.machine.devices import send
from common.tasks.contract import Batch


@dataclass(frozen=True)
class Cases:
    """Preprocessed cases: images (N, C, *space), labels of the first rows or None, ids of rows."""

    images: Tensor
    labels: Tensor | None
    ids: list[str]
    device: torch.device

    def rows(self, ids: Sequence[str]) -> list[int]:
        """Row numbers of case ids, in their order."""
        place = {case: row for row, case in enumerate(self.ids)}
        return [place[case] for case in ids]

    def batch(self, rows: list[int], *, labelled: bool) -> Batch:
        """The images of rows, and their labels gathered on the device."""
        labels = None
        if labelled and self.labels is not None:
            labels = send(torch.stack([self.labels[row] for row in rows]), self.device)
        return Batch([self.images[row] for row in rows], labels, rows, self.device)


def batches(rows: Sequence[int], size: int, rng: Generator) -> Iterator[list[int]]:
    """Yield full batches for ever, pass after pass, each pass in a new random order.

    The last batch of a pass is filled from the start of the same order, so that no case is twice
    in a batch; a set smaller than ``size`` is one batch. Raises InputError under 2 cases.
    """
    if len(rows) < 2:
        raise InputError(f"{len(rows)} training case: BatchNorm and negatives need at least 2; "
                         "add cases or raise the fraction")
    size = min(size, len(rows))
    while True:
        order = [rows[i] for i in torch.randperm(len(rows), generator=rng).tolist()]
        for start in range(0, len(rows), size):
            batch = order[start:start + size]
            yield batch + order[:size - len(batch)]


def even_chunks(rows: list[int], size: int) -> list[list[int]]:
    """Cut rows into chunks of about equal length, none over ``size``; and none of one case.

    (Three rows at size 2 make one chunk of three: an exemplar needs another case beside it.)
    """
    count = max(1, min(math.ceil(len(rows) / size), len(rows) // 2))
    edges = [len(rows) * i // count for i in range(count + 1)]
    return [rows[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def generator(seed: int, purpose: str, epoch: int = 0) -> Generator:
    """A CPU generator that depends on nothing but its arguments."""
    return torch.Generator().manual_seed(number(seed, purpose, epoch))


def initialise(seed: int) -> None:
    """Seed what the weights of a new network are drawn from.

    torch keeps 32 bits of a seed on the CPU: an oracle's or a further draw's, which differ from the
    user's above these, would start from the very same weights.
    """
    torch.manual_seed(seed if seed < 2**32 else number(seed, "initialisation"))


def number(*parts: object) -> int:
    """A number for a generator that depends on nothing but ``parts``."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")
