"""The card that is not there says no to what a card refuses, and counts what it waits for."""

from collections.abc import Iterator
from typing import Any

import fake_card
import pytest
import torch
from fake_card import CARD, CPU, CardTensor, Machine, MixedDevicesError
from torch import Tensor
from torch.nn import functional as F

from common.tasks.batches import generator


@pytest.fixture(name="machine")
def one_card() -> Iterator[Machine]:
    with fake_card.machine() as made:
        yield made


def test_a_tensor_says_that_it_lies_on_the_card(machine: Machine) -> None:
    for x in (torch.ones(2, device=CARD), torch.ones(2).to("cuda"), torch.tensor([1], device=CARD)):
        assert isinstance(x, CardTensor) and x.device == CARD and x.is_cuda and not x.is_cpu
        assert x.device != torch.device("cuda")  # as in torch: one has an index, one has none
        assert (x + 1)[0].sqrt().device == torch.zeros_like(x).device == CARD
        assert x.cpu().device == CPU and type(x.cpu()) is Tensor
    with pytest.raises(TypeError, match="to numpy"):
        x.numpy()


def test_tensors_of_two_places_do_not_mix() -> None:
    with fake_card.machine(cards=2) as machine:
        x, y = torch.ones(2, device=CARD), torch.ones(2)
        for other in (y, y.to("cuda:1")):
            for mix in (lambda z: x + z, lambda z: x.add_(z), lambda z: torch.stack([x, z]),
                        lambda z: torch.where(x > 0, z, x), lambda z: F.mse_loss(z, x)):
                with pytest.raises(MixedDevicesError, match=r" at tests/test_fake_card\.py"):
                    mix(other)
        number = torch.ones(())  # a single number may come from the CPU, in arithmetic alone
        assert torch.where(x > 0, x * number + 1, number).device == CARD
        for mix in (lambda z: number.add_(z), lambda z: torch.stack([z, number])):
            with pytest.raises(MixedDevicesError):
                mix(x[0])
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, device=CARD, generator=generator(0, "x"))
        assert machine.waits[1:] == []  # the one is the copy to the second card


def test_every_wait_is_counted_with_its_place(machine: Machine) -> None:
    x = torch.arange(4, device=CARD)
    x[0], x[1:] = 5, x[1:] + 1  # and these are none
    x[x > 4] = 0
    assert x.gather(0, x.clamp(0, 3)).device == CARD and machine.waits == []
    bool(x.sum() > 1)
    assert machine.waits.pop().startswith("item at tests/test_fake_card.py:")
    waiting = {
        "item": lambda: (x.sum().item(), int(x[0]), float(x[0])), "nonzero": lambda: x.nonzero(),
        "copy to the CPU": lambda: (x.cpu(), x.to("cpu"), torch.zeros(4).copy_(x), x.tolist(),
                                    torch.zeros(4)[0].copy_(x[0])),
        "mask": lambda: x[x > 1], "unique": lambda: x.unique(), "bincount": lambda: x.bincount(),
        "equal": lambda: torch.equal(x, x), "synchronize": torch.cuda.synchronize,
        "index from the CPU": lambda: x[torch.tensor([0, 2])],
        "copy to the card": lambda: (torch.zeros(4).to(CARD), x.copy_(torch.ones(4)))}
    for kind, wait in waiting.items():
        machine.waits.clear()
        made: Any = wait()
        assert machine.kinds() == [kind] * (len(made) if isinstance(made, tuple) else 1)


def test_copies_from_pinned_memory_are_queued(machine: Machine) -> None:
    x = torch.arange(4.0).pin_memory()
    assert x.is_pinned() and not torch.zeros(2).is_pinned()
    queued = [x.to(CARD, non_blocking=True), torch.zeros(4, device=CARD).copy_(x, True)]
    assert machine.waits == [] and all(y.tolist() == [0, 1, 2, 3] for y in queued)
    machine.waits.clear()
    x.to(CARD)
    torch.zeros(4).to(CARD, non_blocking=True)
    assert machine.kinds() == ["copy to the card"] * 2
    with pytest.raises(RuntimeError, match="pin"):
        queued[0].pin_memory()


def test_the_cards_results_are_the_cpus(machine: Machine) -> None:
    def loss(device: torch.device) -> tuple[Tensor, ...]:
        x, w = (torch.rand(shape, generator=generator(0, "x")).to(device).requires_grad_()
                for shape in ((4, 3, 8, 8), (5, 3, 3, 3)))
        y = F.batch_norm(F.conv2d(x, w), None, None, training=True).relu()
        z = torch.stack([y.mean((2, 3)), y.amax((2, 3))]).transpose_(0, 1)[:, 1]
        result = F.cross_entropy(z, torch.arange(4, device=device))
        return (result, *torch.autograd.grad(result, (x, w)))
    for own, wanted in zip(loss(CARD), loss(CPU), strict=True):
        assert own.device == CARD and torch.equal(own.cpu(), wanted)


def test_the_machine_answers_as_asked_and_leaves_nothing() -> None:
    there = torch.cuda.is_available(), torch.autocast, torch.Tensor.pin_memory
    with fake_card.machine(cards=2, capability=(7, 5), memory=10**9) as machine:
        assert torch.cuda.is_available() and torch.cuda.device_count() == 2
        assert torch.cuda.get_device_capability("cuda:1") == (7, 5)
        assert torch.cuda.get_device_properties(0).total_memory == 10**9
        torch.cuda.set_device(torch.device("cuda:1"))
        assert torch.cuda.current_device() == 1 == torch.ones(2, device="cuda").device.index
        with pytest.raises(ValueError, match="specified index"):
            torch.cuda.set_device(torch.device("cuda"))
        with pytest.raises(RuntimeError, match="invalid device ordinal"):
            torch.ones(2, device="cuda:2")
        with torch.autocast("cuda", torch.bfloat16):
            x = torch.ones(2, 2, device="cuda")
            assert (x @ x).dtype == torch.bfloat16 and machine.precisions == [torch.bfloat16]
    assert there == (torch.cuda.is_available(), torch.autocast, torch.Tensor.pin_memory)
    with pytest.raises(RuntimeError, match="machine is gone"):
        x + 1
