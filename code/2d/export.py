"""Write the encoder of a finished 2D run, and its finetuned network, for other programs.

    python code/2d/export.py --run results/2d/<dataset>/pretrain/simclr/seed0 --to OUT
    ... --run results/2d/<dataset>/finetune/simclr/fraction100/seed0    its whole network too
    ... --formats safetensors onnx torchvision                          some of them

OUT/encoder.safetensors encoder.onnx (network.safetensors network.onnx), densenet121.pth by the
names of torchvision and timm, and about.json. Seconds; ONNX a minute or two. Not for clinical use.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import model
import torch
from torch import Tensor

from common.errors import exit_status
from common.export import command, formats
from common.export.formats import Format
from common.export.source import Source


def main() -> int:
    """Write what is asked for."""
    return command.run(__doc__, command.Tree(
        "2d", ("BLOCKS", "GROWTH"), encoder, network, example, seen,
        {"safetensors": formats.SAFETENSORS, "onnx": formats.ONNX,
         "torchvision": Format((), formats.densenet_names, formats.write_densenet, other_densenet)},
        others={"nnunet": "of U-Nets, which are code/3d's"},
        hints={"torchvision": usage}))


def encoder(source: Source) -> model.Encoder:
    """The DenseNet of a run, without its weights."""
    return model.Encoder(source.settings["BLOCKS"], source.settings["GROWTH"])


def network(source: Source) -> model.Grader:
    """The DenseNet of a finetuned run with its head, without its weights."""
    return model.Grader(encoder(source), source.settings.get("CLASSES")
                        or source.settings["GRADES"])


def example(source: Source) -> Tensor:
    """Images to trace the networks with: (2, 3, R, R)."""
    return torch.zeros(2, 3, *[source.settings["RESOLUTION"]] * 2)


def seen(source: Source) -> dict[str, str]:
    """What an input of the networks is, and of unordered classes what they answer."""
    side = source.settings["RESOLUTION"]
    return {"input": "(B, RGB, H, W), float32", "axes": "H down, W to the right",
            "spacing": f"none of its own: the longer side of the retina's box becomes {side} "
                       f"pixels, padded with black to {side} x {side}",
            "intensity": "0 to 1, 8 bits over 255; ImageNet's mean is not taken off",
            "sides": f"at least {model.SMALLEST}",
            **({"outputs": "a logit a class, in the order of classes; their softmax are the "
                           "probabilities"} if source.settings.get("CLASSES") and source.network
               else {})}


def other_densenet(source: Source) -> str | None:
    """Why a run's encoder is no DenseNet-121; None if it is one."""
    blocks, growth = source.settings["BLOCKS"], source.settings["GROWTH"]
    if (tuple(blocks), growth) == (model.BLOCKS, model.GROWTH):
        return None
    return (f"BLOCKS {blocks} and GROWTH {growth}, but a DenseNet-121 has {list(model.BLOCKS)} and "
            f"{model.GROWTH}; export it as safetensors, or train one of that size")


def usage(out: Path) -> str:
    """How torchvision and timm take the file, in a line."""
    return ("densenet121() with classifier = nn.Identity() of torchvision, or "
            f"create_model('densenet121', num_classes=0) of timm, loads {out / 'densenet121.pth'}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
