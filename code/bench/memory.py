"""What activation checkpointing saves, counted: bytes that live during a training step in 3D.

    python code/bench/memory.py                            counted without data or memory, seconds
    python code/bench/memory.py --measure 128 192          real steps on this CPU too, minutes

Every storage that an operation makes is counted while it lives, on torch's meta device, where
nothing is computed; so kernels' own workspaces are not in it. One volume, float32, the default
U-Net. The peak beside the process's high water of a real step is the check on the count.
"""

import argparse
import importlib
import sys
import weakref
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench import measure
from common.downstream.segmentation import Segmentation

SIDES = [128, 160, 192, 256]  # voxels a side
CLASSES = ["background", "pancreas", "tumour"]

STEP = """
import sys, json
sys.path.insert(0, ".")
from bench import measure, memory
side, checkpointing = int(sys.argv[1]), sys.argv[2] == "True"
network = memory.network(checkpointing)
before = measure.high_water()
memory.step(network, side, "cpu")
print(json.dumps(measure.high_water() - before))
"""


class Live(TorchDispatchMode):
    """Bytes of all storages made by operations while they live, and the most at any moment."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        # Weights are there already, whatever makes views of them.
        self.known = {tensor.untyped_storage()._cdata for tensor in network.state_dict().values()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        """Run the operation and count what it made."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def network(checkpointing: bool) -> nn.Module:
    """The default U-Net."""
    model = importlib.import_module("3d.model")
    unet: nn.Module = model.UNet(model.Encoder(1, checkpointing=checkpointing), len(CLASSES))
    return unet


def step(unet: nn.Module, side: int, device: str) -> None:
    """Forward and backward of one volume."""
    image = torch.zeros(1, 1, side, side, side, device=device)
    labels = torch.zeros(1, side, side, side, dtype=torch.uint8, device=device)
    Segmentation(CLASSES).loss(unet(image), labels).backward()


def counted(side: int, *, checkpointing: bool) -> float:
    """Bytes alive at the peak of a step."""
    with torch.device("meta"):
        unet = network(checkpointing)
        with Live(unet) as live:
            step(unet, side, "meta")
    return live.peak


def main() -> None:
    """Print a table of counted, and if asked for measured, memory."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=int, nargs="*", default=[], metavar="SIDE")
    asked = parser.parse_args().measure
    print("| voxels a side | plain, GB | checkpointing, GB | bytes a voxel | kept |\n"
          "|---|---|---|---|---|")
    for side in SIDES:
        plain, less = (counted(side, checkpointing=on) for on in (False, True))
        print(f"| {side} | {plain / 1e9:.2f} | {less / 1e9:.2f} | {plain / side**3:.0f}, "
              f"{less / side**3:.0f} | {less / plain:.0%} |")
    for side in asked:
        plain, less = (measure.in_new_process(STEP, str(side), str(on)) * measure.MIB
                       for on in (False, True))
        print(f"measured on this CPU at {side}: {plain / 1e9:.2f} GB, with checkpointing "
              f"{less / 1e9:.2f} GB ({less / plain:.0%})")


if __name__ == "__main__":
    main()
