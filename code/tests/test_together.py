"""Stacked networks take the same step as the networks one after another."""

import copy

import pytest
import torch
from commands import alone

from bench.grid import together


@pytest.mark.parametrize("tree", ["2d", "3d"])
def test_a_stacked_step_is_that_of_each_network(tree: str) -> None:
    flags = {"3d": ["--resolution", "16", "--levels", "1", "--filters", "4"],
             "2d": ["--resolution", "32", "--blocks", "1", "1", "1", "1", "--growth", "4"]}[tree]
    shape = (2, 1, 16, 16, 16) if tree == "3d" else (2, 3, 32, 32)
    with alone(tree):
        make = together.network_of(tree, flags)
        torch.manual_seed(0)
        networks = [make() for _ in range(2)]
    images = torch.rand(2, *shape)
    found = [copy.deepcopy(network) for network in networks]
    before = [weight.detach().clone() for weight in networks[0].parameters()]
    together.apart(networks, images)()
    weights: dict[str, torch.Tensor] = {}
    together.together(found, images, weights)()
    for place, network in enumerate(networks):
        for name, weight in network.named_parameters():
            assert weight.grad is not None and weights[name].grad is not None
            torch.testing.assert_close(weights[name].grad[place], weight.grad, rtol=1e-3, atol=1e-5)
        assert any(weight.grad.abs().max() > 1e-3 for weight in network.parameters())
    assert all(not torch.equal(old, new) for old, new in zip(before, networks[0].parameters(),
                                                             strict=True))
