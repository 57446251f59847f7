"""Write the encoder of a finished 3D run, and its finetuned network, for other programs.

    python code/3d/export.py --run results/3d/<dataset>/pretrain/mae/seed0 --to OUT
    ... --run results/3d/<dataset>/finetune/mae/fraction100/seed0    its whole network too
    ... --formats safetensors onnx nnunet                            some of them

OUT/encoder.safetensors encoder.onnx (network.safetensors network.onnx), nnunet.pth with
pooled_unet.py for nnU-Net's finetuning, and about.json. Seconds; ONNX half a minute.
Not for clinical use.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import loader
import model
import torch
from torch import Tensor

from common.errors import exit_status
from common.export import command, formats, nnunet
from common.export.source import Source

INTENSITIES = {"percentile": "the {} and {} percentiles of each channel become 0 and 1".format(
                   *loader.PERCENTILES),
               "minmax": "minimum and maximum of each channel become 0 and 1"}


def main() -> int:
    """Write what is asked for."""
    return command.run(__doc__, command.Tree(
        "3d", ("FILTERS", "LEVELS"), encoder, network, example, seen,
        {"safetensors": formats.SAFETENSORS, "onnx": formats.ONNX, "nnunet": nnunet.NNUNET},
        others={"torchvision": "of DenseNets, which are code/2d's"},
        hints={"nnunet": nnunet.usage}))


def encoder(source: Source) -> model.Encoder:
    """The encoder of a run, without its weights."""
    s = source.settings
    return model.Encoder(len(source.channels), s["FILTERS"], s["LEVELS"])


def network(source: Source) -> model.UNet:
    """The U-Net of a finetuned run, without its weights."""
    return model.UNet(encoder(source), len(source.classes) + 1)


def example(source: Source) -> Tensor:
    """Volumes to trace the networks with: (2, C, R, R, R)."""
    return torch.zeros(2, len(source.channels), *[source.settings["RESOLUTION"]] * 3)


def seen(source: Source) -> dict[str, str]:
    """What an input of the networks is."""
    side = source.settings["RESOLUTION"]
    return {"input": f"(B, {', '.join(source.channels)}, D, H, W), float32",
            "axes": "RAS+: D to the right, H to the front, W up",
            "spacing": f"none of its own: the box of each scan's body is resized to {side} x {side}"
                       f" x {side} voxels, linearly",
            "intensity": INTENSITIES[source.settings["INTENSITY"]] + ", what lies outside is cut",
            "sides": f"divisible by {model.smallest_input(source.settings['LEVELS'])}"}


if __name__ == "__main__":
    sys.exit(exit_status(main))
