"""The files that export.py writes: safetensors, ONNX, a DenseNet-121 by its usual names.

Packages that only one format needs are imported when it is asked for.
"""

import copy
import importlib
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.export.source import Source
from common.runs import checkpoint


@dataclass(frozen=True)
class Export:
    """What is written down: networks with their weights, on the CPU."""

    source: Source
    encoder: nn.Module               # has stages()
    network: nn.Module | None        # what was finetuned
    about: Mapping[str, str]         # metadata, into every format that has a place for it
    example: Tensor                  # (2, C, *space): an input to trace the networks with

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The networks by the names of their files."""
        return {"encoder": self.encoder, **({"network": self.network} if self.network else {})}


@dataclass(frozen=True)
class Format:
    """A way to write networks."""

    packages: tuple[str, ...]                       # that it needs and the experiments do not
    names: Callable[[Export], list[str]]            # of its files
    write: Callable[[Export, Path], None]           # into a folder
    refuses: Callable[[Source], str | None]         # why it cannot be of this run, with a remedy


def never(source: Source) -> None:
    """Of a format that any network has."""


def package(name: str, wanted_by: str) -> ModuleType:
    """An installed package; InputError with what to install."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"--formats {wanted_by} needs the package {name.split('.')[0]}, which is "
                         f"not installed: venv/bin/python -m pip install {name.split('.')[0]}; or "
                         "name other --formats") from None


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that lie in memory in the order of their axes."""
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def safetensors_names(export: Export) -> list[str]:
    """encoder.safetensors, and network.safetensors of a finetuned run."""
    return [f"{part}.safetensors" for part in export.parts]


def write_safetensors(export: Export, folder: Path) -> None:
    """Write the weights by their names here, the metadata in each file's header."""
    save_file = package("safetensors.torch", "safetensors").save_file
    for part, network in export.parts.items():
        save_file(plain(network.state_dict()), folder / f"{part}.safetensors",
                  metadata={"format": "pt", **export.about})


def onnx_names(export: Export) -> list[str]:
    """encoder.onnx, and network.onnx of a finetuned run."""
    return [f"{part}.onnx" for part in export.parts]


class Stages(nn.Module):
    """An encoder whose maps are all outputs, one after another."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the map of every level and the code: (B, C, *space) -> stages()."""
        stages: Any = self.encoder.stages
        return tuple(stages(images))


def write_onnx(export: Export, folder: Path) -> None:
    """Write graphs in float32 for any batch and any side that the network takes.

    ``images`` (B, C, *space) -> the encoder's level0, level1, ..., code; the network's logits.
    """
    onnx = package("onnx", "onnx")
    package("onnxscript", "onnx")
    shapes = Stages(copy.deepcopy(export.encoder).to("meta"))(export.example.to("meta"))
    outputs = {"encoder": [*(f"level{number}" for number in range(len(shapes) - 1)), "code"],
               "network": ["logits"]}
    any_size = {axis: torch.export.Dim.DYNAMIC for axis in range(export.example.ndim) if axis != 1}
    for part, network in export.parts.items():
        traced = (Stages(network) if part == "encoder" else network).eval()
        file = folder / f"{part}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            torch.onnx.export(traced, (export.example,), file, dynamo=True, verbose=False,
                              input_names=["images"], output_names=outputs[part],
                              dynamic_shapes=(any_size,), external_data=False)
        graph = onnx.load(file)
        onnx.helper.set_model_props(graph, dict(export.about))
        onnx.save(graph, file)


def densenet_names(export: Export) -> list[str]:
    """densenet121.pth."""
    return ["densenet121.pth"]


def write_densenet(export: Export, folder: Path) -> None:
    """Write a state dict for torchvision's and timm's densenet121 without their classifier.

    Encoder's names are theirs: features.conv0.weight, ...
    """
    checkpoint.save(folder / "densenet121.pth", plain(export.encoder.state_dict()))


SAFETENSORS = Format(("safetensors.torch",), safetensors_names, write_safetensors, never)
ONNX = Format(("onnx", "onnxscript"), onnx_names, write_onnx, never)
