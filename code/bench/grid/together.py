"""Would several runs of one shape train faster as one network with stacked weights?

    python code/bench/grid/together.py       two rounds on one CPU thread; --device cuda on a card

A step (forward, backward, Adam) of one small network, S times, beside one step of S networks whose
weights are stacked (torch.func: functional_call under vmap, BatchNorm without running statistics in
both), each on a batch of its own. Under 1.3 it is not worth losing "bit for bit".
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, replace_all_batch_norm_modules_, stack_module_state

from bench import trees
from bench.measure import wait
from common.errors import exit_status
from common.tasks.batches import initialise

WORTH = 1.3
NETWORKS = {  # tree: flags that make it small, images a batch
    "3d": (["--resolution", "32", "--levels", "2", "--filters", "8"], 4, (1, 32, 32, 32)),
    "2d": (["--resolution", "96", "--blocks", "3", "6", "6", "4", "--growth", "16"], 32,
           (3, 96, 96))}


def main() -> int:
    """Measure both networks at every number of runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--runs", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | runs | one after another, s | stacked, s | times as fast |\n"
          "|---|---|---|---|---|", flush=True)
    for tree, (flags, batch, shape) in NETWORKS.items():
        for count in asked.runs:
            alone, stacked = measure(network_of(tree, flags), (batch, *shape), count, asked)
            print(f"| {tree} | {count} | {alone:.2f} | {stacked:.2f} | {alone / stacked:.2f} |",
                  flush=True)
    print(f"\nWorth it from {WORTH}.")
    return 0


def network_of(tree: str, flags: list[str]) -> Callable[[], nn.Module]:
    """Makes a tree's downstream network, with BatchNorm that keeps no running statistics."""
    exp = trees.script(tree)
    settings = trees.from_flags(vars(exp), flags)
    networks = (exp.networks_of(settings) if tree == "2d"
                else exp.networks_of(settings, channels=1, classes=2))

    def make() -> nn.Module:
        network: nn.Module = networks.downstream(networks.encoder())
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # chance under vmap is another question
        replace_all_batch_norm_modules_(network)
        return network.train()
    return make


def measure(make: Callable[[], nn.Module], shape: tuple[int, ...], count: int,
            asked: argparse.Namespace) -> tuple[float, float]:
    """Seconds of ``count`` steps one after another, and of one stacked step: medians."""
    initialise(0)
    networks = [make().to(asked.device) for _ in range(count)]
    images = torch.rand(count, *shape, device=asked.device)
    alone, stacked = apart(networks, images), together(networks, images)
    for step in (alone, stacked):
        step()
    times: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(asked.rounds):
        for place, step in enumerate((alone, stacked)):
            wait(asked.device)
            begun = time.perf_counter()
            step()
            wait(asked.device)
            times[place].append(time.perf_counter() - begun)
    return median(times[0]), median(times[1])


def apart(networks: list[nn.Module], images: Tensor) -> Callable[[], None]:
    """A step of each network, one after another, as runs are trained."""
    optimisers = [torch.optim.Adam(network.parameters(), fused=True) for network in networks]

    def step() -> None:
        for network, optimiser, batch in zip(networks, optimisers, images, strict=True):
            optimiser.zero_grad(set_to_none=True)
            network(batch).square().mean().backward()
            optimiser.step()
    return step


def together(networks: list[nn.Module], images: Tensor, weights: dict[str, Tensor] | None = None
             ) -> Callable[[], None]:
    """A step of all networks at once, their weights stacked, into ``weights`` if given."""
    made, buffers = stack_module_state(networks)
    weights = {} if weights is None else weights
    weights |= made
    optimiser = torch.optim.Adam(weights.values(), fused=True)
    one = networks[0]

    def loss(parameters: Any, states: Any, batch: Tensor) -> Tensor:
        outputs: Tensor = functional_call(one, (parameters, states), (batch,))
        return outputs.square().mean()
    gradients = torch.vmap(grad(loss))

    def step() -> None:
        with torch.no_grad():
            found = gradients({name: value.detach() for name, value in weights.items()}, buffers,
                              images)
        for name, weight in weights.items():
            weight.grad = found[name]
        optimiser.step()
    return step


if __name__ == "__main__":
    sys.exit(exit_status(main))
