"""Activation checkpointing changes no number, and keeps less memory."""

import importlib
import io
import runpy
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from common.downstream.segmentation import Segmentation
from common.schedule import grid
from common.settings import from_flags
from common.tasks.batches import generator
from common.tasks.siamese import Siamese

model = importlib.import_module("3d.model")
pretext = importlib.import_module("3d.pretext")
memory = importlib.import_module("bench.memory")
Trained = tuple[list[float], dict[str, torch.Tensor], torch.Tensor]


def trained(network: torch.nn.Module, task: Any, views: torch.Tensor, targets: torch.Tensor, *,
            frozen: bool = False) -> Trained:
    """Losses of some steps with dropout, weights and buffers after them, the next random number."""
    torch.set_num_threads(1)  # as the loop does
    network.train()
    if frozen:
        network.encoder.eval().requires_grad_(False)  # type: ignore[union-attr,operator]
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    torch.manual_seed(5)
    for _ in range(4):
        loss = task.loss(network(views), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses, network.state_dict(), torch.rand(1)


def same(plain: Trained, less: Trained) -> None:
    assert plain[0] == less[0] and len(set(plain[0])) == 4
    assert plain[1].keys() == less[1].keys() and torch.equal(plain[2], less[2])
    for name, tensor in plain[1].items():
        assert torch.equal(tensor, less[1][name]), name


@pytest.mark.parametrize("frozen", [False, True])
def test_segmentation_is_bit_for_bit_the_same_with_checkpointing(frozen: bool) -> None:
    images = torch.rand(2, 1, 16, 16, 16, generator=generator(0, "i"))
    labels = (images[:, 0] * 3).byte()
    made = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = model.Encoder(1, 4, 2, checkpointing=checkpointing)
        made.append(trained(model.UNet(encoder, 3), Segmentation(["b", "a", "c"]), images, labels,
                            frozen=frozen))
    same(*made)
    steps = made[1][1]["decoder.blocks.0.2.num_batches_tracked"]
    assert steps == 4  # not twice a step
    assert made[1][1]["encoder.blocks.0.2.num_batches_tracked"] == (0 if frozen else 4)


def test_pretraining_is_bit_for_bit_the_same_with_checkpointing() -> None:
    task = pretext.RelativePatch(36)
    images = torch.rand(3, 1, 36, 36, 36, generator=generator(0, "i"))
    batch = importlib.import_module("common.tasks.contract").Batch(images, None, [0, 1, 2])
    views, targets = task.prepare(batch, generator(0, "v"), training=True)
    made = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = model.Encoder(1, 4, 2, checkpointing=checkpointing)
        network = Siamese(encoder, task.head, views, stages=task.stages)
        made.append(trained(network, task, views, targets))
    same(*made)


@pytest.mark.parametrize("side", [128, 192])
def test_the_count_of_memory_is_what_is_announced(side: int) -> None:
    plain, less = (memory.counted(side, checkpointing=on) / side**3 for on in (False, True))
    assert 0.7 * model.STEP_BYTES < plain < model.STEP_BYTES
    assert 0.7 * model.CHECKPOINTED_BYTES < less < model.CHECKPOINTED_BYTES
    assert less < 0.6 * plain


@pytest.mark.parametrize("side", [160, 192, 256])
def test_resolutions_above_128_fit_four_levels(side: int) -> None:
    script = runpy.run_path(str(Path(model.__file__).with_name("exp.py")))
    grid.check(from_flags(script, ["--resolution", str(side)]), script["TREE"])
    with torch.device("meta"):
        network = memory.network(False)
        assert network(torch.zeros(1, 1, side, side, side)).shape == (1, 3, side, side, side)
        assert network.encoder(torch.zeros(1, 1, side, side, side)).shape[2:] == (side // 32,) * 3


def test_counting_prints_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SIDES", [32])
    monkeypatch.setattr("sys.argv", ["memory.py"])
    with redirect_stdout(io.StringIO()) as said:
        memory.main()
    assert "| 32 | 0.04 | 0.04 |" in said.getvalue()
