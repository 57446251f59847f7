"""What export.py writes for nnU-Net: its names, its plan, and the same features in its class."""

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Trial, alone, call
from torch import Tensor
from torch.nn import functional as F

SIZES = [(1, 4, 1), (2, 4, 3)]  # channels, filters, levels


@pytest.fixture
def tree_3d() -> Iterator[None]:
    with alone("3d"):
        yield


@pytest.mark.parametrize(("channels", "filters", "levels"), SIZES)
def test_nnunets_names_carry_the_features(tree_3d: None, tmp_path: Path, channels: int,
                                          filters: int, levels: int) -> None:
    ours = random_unet(channels, filters, levels)
    weights = exported(ours, tmp_path)["network_weights"]
    volumes = torch.rand(2, channels, *[2 ** (levels + 2)] * 3)
    with torch.no_grad():
        for one, other in zip(ours.encoder.stages(volumes), stages_by_nnunets_names(
                weights, volumes, levels), strict=True):
            assert torch.allclose(one, other, atol=1e-5) and one.std() > 1e-3
    assert len(weights) == 2 * 2 * 14 * (levels + 1) + 2 * 14 * levels + 2 * levels + 2


def stages_by_nnunets_names(state: Mapping[str, Tensor], volumes: Tensor, levels: int
                            ) -> list[Tensor]:
    """The encoder's maps from nnU-Net's names alone: conv, ReLU, BatchNorm; max-pool between."""
    maps = []
    for number in range(levels + 1):
        block = f"encoder.stages.{number}.{min(number, 1)}.convs"  # the pool has place 0
        for conv in ("0", "1"):
            conv_of, norm_of = ({key: state[f"{block}.{conv}.{layer}.{key}"] for key in keys}
                                for layer, keys in (("conv", ("weight", "bias")), ("norm", (
                                    "running_mean", "running_var", "weight", "bias"))))
            volumes = F.batch_norm(F.conv3d(volumes, **conv_of, padding=1).relu(), **norm_of,
                                   eps=1e-3)
        maps.append(volumes)
        volumes = F.max_pool3d(volumes, 2)
    return [*maps, volumes]


def test_encoders_and_whole_networks_are_written_with_plan_and_class(trial_3d: Trial, tmp_path: Path
                                                                   ) -> None:
    found = {}
    for name in ("pretrain/rotation/seed0", "finetune/rotation/fraction100/seed0"):
        out = tmp_path / name.split("/")[0]
        said = call("3d/export.py", "--run", trial_3d.runs(trial_3d.folder) / name, "--to", out,
                    "--formats", "nnunet")
        assert said.returncode == 0 and f'PYTHONPATH="{out}" nnUNetv2_preproc' in said.stdout
        found[out.name] = torch.load(out / "nnunet.pth", weights_only=True)  # as nnU-Net does
    whole, encoder = found["finetune"], found["pretrain"]
    plan, out = whole["nnssl_adaptation_plan"], tmp_path / "finetune"
    assert plan == json.loads((out / "adaptation_plan.json").read_text())
    assert plan["architecture_plans"]["arch_kwargs"]["features_per_stage"] == [2, 4]
    assert plan["recommended_downstream_patchsize"] == [16, 16, 16]
    stem = [name for name in whole["network_weights"] if name.startswith(plan["key_to_stem"])]
    assert {f"{key}.weight" for key in plan["keys_to_in_proj"]} <= set(stem)
    assert encoder["network_weights"].keys() == {
        name for name in whole["network_weights"] if name.startswith("encoder.")}
    assert whole["about"] == json.loads((out / "about.json").read_text())["about"]
    shipped = (out / "pooled_unet.py").read_text()
    assert "class PooledPlainConvUNet" in shipped and "from common" not in shipped


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "filters", "levels"), SIZES)
def test_nnunet_has_the_same_features_and_goes_on_from_them(
        tree_3d: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        channels: int, filters: int, levels: int) -> None:
    pytest.importorskip("nnunetv2", reason="nnU-Net is not installed: it brings thirty packages")
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    ours = random_unet(channels, filters, levels)
    plan = exported(ours, tmp_path)["nnssl_adaptation_plan"]
    monkeypatch.syspath_prepend(tmp_path)
    built = plan["architecture_plans"]
    volumes = torch.rand(2, channels, *[2 ** (levels + 2)] * 3)

    def theirs(*, supervised: bool) -> Any:
        return get_network_from_plans(built["arch_class_name"], built["arch_kwargs"],
                                      built["arch_kwargs_requiring_import"], channels, 3,
                                      deep_supervision=supervised)
    # The encoder, as the trainers for nnssl's checkpoints take it: by the plan's keys, strictly.
    network = theirs(supervised=False).eval()
    weights = torch.load(tmp_path / "nnunet.pth", weights_only=True)["network_weights"]
    for ours_key, theirs_key in ((plan["key_to_encoder"], network.key_to_encoder),
                                 (plan["key_to_stem"], network.key_to_stem)):
        network.get_submodule(theirs_key).load_state_dict(
            {name.removeprefix(f"{ours_key}."): value for name, value in weights.items()
             if name.startswith(f"{ours_key}.")}, strict=True)
    assert {f"{key}.weight" for key in network.keys_to_in_proj} <= weights.keys()
    with torch.no_grad():
        for one, other in zip(ours.encoder.stages(volumes), network.encoder(volumes)):  # noqa: B905 - ours has the code too
            assert torch.equal(one, other)
    # The whole network, as nnUNetv2_train -pretrained_weights does; its last layers are new.
    network = theirs(supervised=True)
    load_pretrained_weights(network, str(tmp_path / "nnunet.pth"))
    network.decoder.seg_layers[-1].load_state_dict(ours.decoder.last.state_dict())
    with torch.no_grad():
        assert torch.equal(network.eval()(volumes)[0], ours(volumes))
    outputs = network.train()(volumes)
    sum(output.square().mean() for output in outputs).backward()
    assert len(outputs) == levels and network.encoder.stages[0][0].convs[0].conv.weight.grad.any()
    assert type(network).__mro__[1] is PlainConvUNet
    assert "pool" not in inspect.signature(PlainConvUNet).parameters  # else its plans may do


def random_unet(channels: int, filters: int, levels: int) -> Any:
    """Our U-Net, its BatchNorms with statistics that matter, in evaluation."""
    import model

    network = model.UNet(model.Encoder(channels, filters, levels), 3).eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point() and not name.endswith("weight"):
                value.uniform_(0.2, 1)
    return network


def exported(network: Any, out: Path) -> Any:
    """What is written of a U-Net for nnU-Net."""
    from common.export import nnunet
    from common.export.formats import Export
    from common.export.source import Source

    channels = network.encoder.blocks[0][0].in_channels
    source = Source(out, {}, {}, {"RESOLUTION": 32, "FILTERS": network.encoder.widths[0],
                                  "LEVELS": len(network.encoder.widths) - 1},
                    ["CT"] * channels, ["organ", "tumour"], {})
    nnunet.write(Export(source, network.encoder, network, {"dataset": "x", "intensity": "0 to 1"},
                        torch.zeros(1)), out)
    return torch.load(out / "nnunet.pth", weights_only=True)
