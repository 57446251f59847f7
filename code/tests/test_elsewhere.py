"""--encoder takes an encoder under the names that other programs give its weights, or says why."""

import importlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import TINY, call
from torch import Tensor
from torchvision.models import densenet121, resnet18

from common.data.splits import Splits
from common.errors import InputError
from common.files import read_json
from common.runs import elsewhere, encoders
from common.runs.elsewhere import taken

model2d, model3d = (importlib.import_module(f"{tree}.model") for tree in ("2d", "3d"))
NOBODY: Any = (SimpleNamespace(facts={}), Splits(0, [], [[]], []))  # cases and splits
SMALL = (1, 2, 1)  # channels, filters, levels


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def usual() -> Any:
    """A DenseNet-121 as torchvision makes it, and as timm does: the same names."""
    torch.manual_seed(0)
    return densenet121(weights=None).eval()


def test_torchvisions_densenet_gives_equal_features(usual: Any, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(usual.state_dict(), tmp_path / "densenet121.pth")
    arm = encoders.from_files({"mine": tmp_path / "densenet121.pth"}, model2d.Encoder, *NOBODY,
                              seeds=[0])["mine"]
    said = capsys.readouterr().out
    assert "encoder   mine: all 725 tensors found; left out: classifier.weight, classifier" in said
    encoder = model2d.Encoder().eval()
    encoder.load_state_dict(arm.load(), strict=True)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        theirs = torch.relu(usual.features(images)).mean((2, 3))
        assert torch.allclose(encoder(images), theirs, atol=1e-5)


def test_old_names_of_its_layers_are_todays(usual: Any) -> None:
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", name): value
           for name, value in usual.state_dict().items() if not name.endswith("tracked")}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    weights, _ = taken(old, model2d.Encoder().state_dict(), "old.pth")
    wanted = {name: value for name, value in usual.state_dict().items()
              if not name.startswith("classifier")}
    assert same(weights, wanted)


@pytest.mark.parametrize("wrap", [
    lambda state: {"model": state, "optimiser": {}, "state": {"epoch": 3}},
    lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()},
                   "epoch": 3},
    lambda state: {f"module.{name}": value for name, value in state.items()}])
def test_whole_networks_and_what_wraps_them(wrap: Any) -> None:
    network = model3d.UNet(model3d.Encoder(*SMALL), 3)
    whole = wrap(network.state_dict())
    weights, said = taken(whole, model3d.Encoder(*SMALL).state_dict(), "best.pt")
    assert same(weights, network.encoder.state_dict())
    assert "encoder." in said and "left out: " in said and "decoder.ups.0.weight" in said


def test_a_file_of_this_project_says_only_that_all_was_found() -> None:
    state = model3d.Encoder(*SMALL).state_dict()
    weights, said = taken(state, model3d.Encoder(*SMALL).state_dict(), "encoder.pt")
    assert said == f"all {len(state)} tensors found" and same(weights, state)


def test_of_another_network_nothing_fits_in_one_line() -> None:
    with pytest.raises(InputError) as caught:
        taken(resnet18(weights=None).state_dict(), model2d.Encoder().state_dict(), "resnet.pth")
    said = str(caught.value)
    assert said.startswith("resnet.pth: none of its 122 tensors") and "conv1.weight" in said
    assert "another network's, of which nothing can be taken over" in said and "\n" not in said
    with pytest.raises(InputError, match=r"\d+ of 725 tensors do .*missing.*of another shape"):
        taken(model2d.Encoder((6, 12, 12, 12), 24).state_dict(), model2d.Encoder().state_dict(),
              "narrow.pt")


def test_names_that_are_no_words_are_no_traceback() -> None:
    with pytest.raises(InputError, match="none of its 0 tensors"):
        taken({0: torch.ones(2)}, {"a": torch.ones(2)}, "f")


def test_weights_of_runs_say_what_they_have_seen_or_are_refused(
        tmp_path: Path, scans: Path) -> None:
    flags = ["--data", scans, "--cache", tmp_path / "c", *TINY["3d"], "--fractions", 100,
             "--finetune-epochs", 2, "--validations", 1, "--device", "cpu", "--workers", 1]
    first = call("3d/exp.py", *flags, "--tasks", "baseline", "meanteacher", "--seeds", 0,
                 "--results", tmp_path / "r")
    assert first.returncode == 0, first.stderr
    runs = next((tmp_path / "r/3d").iterdir()) / "finetune"
    best = runs / "baseline/fraction100/seed0/best.pt"
    seen = read_json(best.with_suffix(".json"))
    more = read_json((runs / "meanteacher/fraction100/seed0/best.pt").with_suffix(".json"))
    assert set(seen["learnt from"]) < set(more["learnt from"])  # the pool too
    own = ["--results", tmp_path / "r2", "--tasks", "baseline", "--encoder", f"mine={best}"]
    assert call("3d/exp.py", *flags, *own, "--seeds", 0, "--plan").returncode == 0
    other = call("3d/exp.py", *flags, *own, "--seeds", 1)  # of another fold
    assert other.returncode == 2 and "has seen" in other.stderr and "test cases" in other.stderr
    best.with_suffix(".json").unlink()
    unknown = call("3d/exp.py", *flags, *own, "--seeds", 0)
    assert unknown.returncode == 2 and "no best.json beside it says" in unknown.stderr
    taken_name = call("3d/exp.py", *flags, *own[:-1], f"meanteacher={best}", "--seeds", 0)
    assert taken_name.returncode == 2 and "another arm's name" in taken_name.stderr


def test_names_that_are_asked_for_under_any_prefix_are_found() -> None:
    state = {"a.weight": torch.ones(2)}
    for prefix in elsewhere.PREFIXES:
        weights, said = taken({f"{prefix}a.weight": torch.ones(2)}, state, "f")
        assert same(weights, state) and (prefix in said)
