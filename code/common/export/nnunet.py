"""The 3D U-Net by the names that nnU-Net gives to its layers, with an nnssl adaptation plan.

nnU-Net's own PlainConvUNet cannot be this network, for two reasons: its plans know strided
convolutions only, where ours pools by maxima (PlainConvEncoder has pool="max", PlainConvUNet never
passes it on); and its decoder starts from the bottleneck, ours from the bottleneck's maxima,
repeated. All else its plans can say: convolution with bias, ReLU, then BatchNorm (nonlin_first),
no dropout. pooled_unet.py, which is written beside the weights, is PlainConvUNet with both.

Read by nnU-Net's nnUNetv2_preprocess_like_nnssl and nnUNetv2_train_pretrained (the encoder), and
by -pretrained_weights of nnUNetv2_train (the whole network, so of finetuned runs alone).
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from common.export.formats import Export, Format, never, plain
from common.files import Json, write_json
from common.runs import checkpoint

WEIGHTS, PLAN, NETWORK = "nnunet.pth", "adaptation_plan.json", "pooled_unet.py"
LAYERS = {"0": ("0", "conv", "0"), "2": ("0", "norm", "2"),  # of a block: which convolution, and
          "4": ("1", "conv", "0"), "6": ("1", "norm", "2")}  # the two names that a layer has
FIRST = "encoder.stages.0.0.convs.0"  # the layer whose shape depends on the channels


def names(export: Export) -> list[str]:
    """The weights, the plan, and the class of the network."""
    return [WEIGHTS, PLAN, NETWORK]


def write(export: Export, folder: Path) -> None:
    """Write what nnU-Net needs to go on from the weights."""
    state = plain((export.network or export.encoder).state_dict())
    if export.network is None:
        state = {f"encoder.{name}": value for name, value in state.items()}
    adaptation = plan(export)
    checkpoint.save(folder / WEIGHTS, {
        "network_weights": renamed(state), "nnssl_adaptation_plan": adaptation, "citations": [],
        "about": dict(export.about)})
    write_json(folder / PLAN, adaptation)
    shutil.copyfile(Path(__file__).with_name(NETWORK), folder / NETWORK)


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of our U-Net, or of its encoder, by nnU-Net's names; several of them for one tensor.

    nnU-Net registers each layer twice, and the encoder within the decoder too. Its last layers of
    coarser levels, for deep supervision, are not ours; it takes none of its last layers over.
    """
    levels = sum(name.startswith("decoder.ups.") for name in state) // 2
    whole = levels > 0
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        for theirs in _names(name, levels):
            found[theirs] = value
            if whole and theirs.startswith("encoder."):
                found[f"decoder.{theirs}"] = value
    return found


def _names(name: str, levels: int) -> list[str]:
    """What nnU-Net calls a tensor, such as encoder.blocks.1.0.weight."""
    part, kind, *rest = name.split(".")
    if kind == "last":
        return [f"decoder.seg_layers.{levels - 1}.{rest[0]}"]
    if kind == "ups":
        return [f"decoder.transpconvs.{rest[0]}.{rest[1]}"]
    number, layer, tensor = rest
    which, by_name, by_place = LAYERS[layer]
    pooled = ["0" if number == "0" else "1"] if part == "encoder" else []  # the pool has place 0
    block = ".".join([part, "stages", number, *pooled, "convs", which])
    return [f"{block}.{by_name}.{tensor}", f"{block}.all_modules.{by_place}.{tensor}"]


def plan(export: Export) -> Json:
    """What nnssl says of a checkpoint: the network, the input it saw, where the encoder lies."""
    settings: Json = export.source.settings
    side = [settings["RESOLUTION"]] * 3
    return {
        "architecture_plans": {
            "arch_class_name": "pooled_unet.PooledPlainConvUNet",
            "arch_kwargs": architecture(settings["FILTERS"], settings["LEVELS"], export.encoder),
            "arch_kwargs_requiring_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]},
        "pretrain_plan": {"dataset_name": export.about["dataset"], "configurations": {
            "resized": {"spacing": None, "patch_size": side,
                        "intensity": export.about["intensity"]}}},
        "pretrain_num_input_channels": len(export.source.channels),
        "recommended_downstream_patchsize": side,
        "key_to_encoder": "encoder.stages", "key_to_stem": "encoder.stages.0",
        "keys_to_in_proj": [f"{FIRST}.all_modules.0", f"{FIRST}.conv"], "key_to_lpe": None}


def architecture(filters: int, levels: int, encoder: Any) -> Json:
    """Arguments of PooledPlainConvUNet as plans have them."""
    norm = encoder.blocks[0][2]
    return {"n_stages": levels + 1,
            "features_per_stage": [filters * 2**level for level in range(levels + 1)],
            "conv_op": "torch.nn.modules.conv.Conv3d", "kernel_sizes": [[3, 3, 3]] * (levels + 1),
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * levels,
            "n_conv_per_stage": [2] * (levels + 1), "n_conv_per_stage_decoder": [2] * levels,
            "conv_bias": True, "norm_op": "torch.nn.modules.batchnorm.BatchNorm3d",
            "norm_op_kwargs": {"eps": norm.eps, "momentum": norm.momentum, "affine": True},
            "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.ReLU",
            "nonlin_kwargs": {"inplace": True}, "nonlin_first": True}


NNUNET = Format((), names, write, never)


def usage(out: Path) -> str:
    """How nnU-Net is told of the files, in a line."""
    return (f"PYTHONPATH={json.dumps(str(out))} nnUNetv2_preprocess_like_nnssl -d ID -n NAME "
            f"-pc {json.dumps(str(out / WEIGHTS))}")
