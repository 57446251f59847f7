"""Arms beyond the paper's: joint, multi-stage, encoders from elsewhere, ImageNet, four channels."""

import importlib
import json
import math
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from commands import call
from drawn import caught, texts

from common import arms
from common.data.splits import Splits
from common.downstream.segmentation import Segmentation
from common.downstream.supervised import Supervised
from common.errors import InputError
from common.runs import checkpoint, encoders
from common.settings import Settings
from common.tasks import joint
from common.tasks.batches import generator
from common.tasks.contract import Batch
from common.tasks.siamese import Siamese

model3d, model2d = (importlib.import_module(f"{tree}.model") for tree in ("3d", "2d"))
pretexts = importlib.import_module("3d.pretext").PRETEXTS
SMALL = {"3d": ["--resolution", "32", "--levels", "1", "--filters", "2", "--folds", "3"],
         "2d": ["--resolution", "32", "--blocks", "1", "1", "1", "1", "--growth", "4",
                "--batch-size", "4"]}
SHORT = ["--pretext-epochs", "1", "--pretext-batch-size", "4", "--finetune-epochs", "1",
         "--validations", "1", "--device", "cpu", "--workers", "1", "--fractions", "100",
         "--seeds", "0", "--warmup-epochs", "0"]


def batch() -> Batch:
    return Batch(torch.rand(3, 1, 36, 36, 36, generator=generator(0, "j")), None, [0, 1, 2])


def test_a_joint_loss_is_the_mean_of_losses_in_units_of_a_guess() -> None:
    task = joint.make("rotation+rpl", pretexts, 36)
    views, targets = task.prepare(batch(), generator(1, "j"), training=True)
    outputs = tuple(torch.zeros(3, one.classes) for one in task.tasks)  # a guess in both
    assert float(task.loss(outputs, targets)) == pytest.approx(1.0)
    sure = torch.nn.functional.one_hot(targets[0], 10) * 100.0
    assert float(task.loss((sure, outputs[1]), targets)) == pytest.approx(0.5)
    assert task.chance == {"rotation accuracy": 1 / 10, "rpl accuracy": 1 / 26}
    assert task.batch_size == 4 and task.guess == 1.0
    assert joint.make("cpc+rpl", pretexts, 36).batch_size == 2
    scores = {name: values.numpy() for name, values in task.score(outputs, targets).items()}
    assert task.summarise(scores).keys() == task.chance.keys()


def test_every_task_sees_its_own_views_of_the_same_cases() -> None:
    task = joint.make("rotation+rpl", pretexts, 36)
    given, rng = batch(), generator(1, "j")
    views, _ = task.prepare(given, rng, training=False)
    assert views[0].shape == (3, 1, 1, 36, 36, 36) and views[1].shape == (3, 2, 1, 11, 11, 11)
    centre = given.images[:, :, 12:23, 12:23, 12:23]
    assert torch.equal(views[1][:, 0], centre)


@pytest.mark.parametrize("name", ["rotation", "rotation@stages"])
def test_at_stages_the_head_reaches_every_stage_directly(name: str) -> None:
    torch.manual_seed(0)
    task = joint.make(name, pretexts, 16)
    encoder = model3d.Encoder(1, 4, 1)
    image = torch.rand(2, 1, 16, 16, 16)
    views, _ = task.prepare(Batch(image, None, [0, 1]), generator(0, "s"), training=True)
    network = Siamese(encoder, task.head, views, stages=task.stages)
    first = views[0] if isinstance(views, tuple) else views
    features = network.features(first)
    code = 8 * 4**3
    assert features.shape == (2, 1, code + (4 + 8 if "@" in name else 0))
    if "@" in name:
        maps = encoder.stages(first.flatten(0, 1))
        encoder.eval()
        means = network.features(first)[:, 0, :4]
        assert torch.allclose(means, encoder.stages(first[:, 0])[0].mean((2, 3, 4)), atol=1e-6)
        assert len(maps) == 3


@pytest.mark.parametrize(("name", "message"), [
    ("rotation+rotaton", "did you mean 'rotation'"), ("rotation+rotation", "twice"),
    ("rotation@all", "only @stages, @decoder and @shuffled, in this order"),
    ("rotation@shuffled@stages", "in this order"), ("rotation@stages@stages", "in this order"),
    ("oracle@stages", "oracle has no head"), ("oracle+rotation", "oracle stands alone"),
    ("baseline@shuffled", "the baseline starts from nothing"),
    ("rotation+baseline", "the baseline starts from nothing"),
    ("baseline@stages", "the baseline starts from nothing"), ("rotation+", "unknown task ''"),
    ("mine+rotation", "unknown task 'mine'"), ("mine@stages", "mine has no head"),
    ("mine@decoder", "mine trains no decoder; @decoder may follow mae"),
    ("rotation@decoder", "rotation trains no decoder")])
def test_odd_names_of_arms_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        arms.check(name, {**pretexts, "oracle": Supervised}, ["mine"], decoder=True)


@pytest.mark.parametrize("decoder", [True, False])
def test_arms_that_are_named_as_known_are_those_of_the_tree(decoder: bool) -> None:
    with pytest.raises(InputError, match="unknown task 'x'") as refused:
        arms.check("x", {"rotation": Supervised}, ["mine"], decoder=decoder)
    known = str(refused.value).partition("Known: ")[2].partition(";")[0].split()
    assert known == ["mine", "meanteacher", *(["fixmatch"] if not decoder else []), "rotation"]


def test_names_of_arms_that_are_taken() -> None:
    for name in ("baseline", "rotation+rpl@stages@shuffled", "oracle@decoder@shuffled", "mine",
                 "mine@shuffled"):
        arms.check(name, {**pretexts, "oracle": Supervised}, ["mine"], decoder=True)
    with pytest.raises(InputError, match="has no decoder; leave @decoder out"):
        arms.check("oracle@decoder", {"oracle": Supervised}, [], decoder=False)
    assert [arms.pretraining(name) for name in ("rpl@stages@shuffled", "mae@decoder@shuffled")
            ] == ["rpl@stages", "mae"]
    assert arms.is_control("oracle@decoder") and arms.is_control("rpl@shuffled")
    assert not arms.is_control("rpl@stages") and not arms.is_control("baseline")


@pytest.mark.parametrize(("entry", "message"), [
    ("mine", "NAME=file.pt"), ("a/b=x.pt", "letters"), ("rotation=x.pt", "another arm's name"),
    ("mine=", "NAME=file.pt")])
def test_odd_encoder_flags_are_refused(entry: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoders.named(Settings(ENCODER=[entry], TASKS=["baseline"]), ["baseline", *pretexts])


NOBODY: Any = (SimpleNamespace(facts={}), Splits(0, [], [[]], []))  # cases and splits


def test_an_encoder_that_does_not_fit_is_named_key_by_key(tmp_path: Path) -> None:
    make = lambda: model3d.Encoder(1, 2, 1)  # noqa: E731
    state = make().state_dict()
    wide = model3d.Encoder(1, 4, 1).state_dict()
    less = {name: value for name, value in state.items() if name != "blocks.0.0.weight"}
    for content, words in (
            (less, ["missing: blocks.0.0.weight", f"{len(state) - 1} of {len(state)} tensors"]),
            (wide, ["of another shape: blocks.0.0.weight [4, 1, 3, 3, 3]"]),
            ({"conv1.weight": torch.ones(1)}, ["none of its 1 tensors", "conv1.weight"]),
            ({}, ["none of its 0 tensors"]), ([state], ["not a mapping of names to tensors"])):
        torch.save(content, tmp_path / "e.pt")
        with pytest.raises(InputError) as caught:
            encoders.from_files({"mine": tmp_path / "e.pt"}, make, *NOBODY, seeds=[0])
        assert all(word in str(caught.value) for word in [*words, "e.pt"])
    checkpoint.save(tmp_path / "e.pt", state)
    arm = encoders.from_files({"mine": tmp_path / "e.pt"}, make, *NOBODY, seeds=[0])["mine"]
    checkpoint.save(tmp_path / "e.pt", make().state_dict())  # replaced while runs are waiting
    with pytest.raises(InputError, match="e.pt: has other weights than when"):
        arm.load()
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(InputError, match="text.pt: not a file of weights.*encoder.pt holds them"):
        encoders.from_files({"mine": tmp_path / "text.pt"}, make, *NOBODY, seeds=[0])
    with pytest.raises(InputError, match="no such file"):
        encoders.from_files({"mine": tmp_path / "none.pt"}, make, *NOBODY, seeds=[0])


@pytest.fixture(scope="module", params=["3d", "2d"])
def finished(request: pytest.FixtureRequest, scans: Path, photographs: Path,
             tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[object], Path]:
    """A joint and a multi-stage arm beside the baseline, trained by the user's command."""
    tree, folder = request.param, tmp_path_factory.mktemp("arms")
    given = ["--data", {"3d": scans, "2d": photographs}[tree], "--results", folder / "results",
             "--cache", folder / "cache", *SMALL[tree], *SHORT]
    tasks = {"3d": "rotation+rpl@stages", "2d": "rotation+exemplar@stages"}[tree]
    result = call(f"{tree}/exp.py", *given, "--tasks", "baseline", tasks, *(
        ["cpc"] if tree == "3d" else []))
    assert result.returncode == 0, result.stderr
    return tree, given, folder / "results"


def test_new_arms_are_trained_and_drawn_by_their_names(
        finished: tuple[str, list[object], Path]) -> None:
    tree, _, results = finished
    with caught() as figures:
        drawn = call(f"{tree}/graph.py", "--results", results)
    assert drawn.returncode == 0, drawn.stderr
    table = next(results.glob("train_*.md")).read_text()
    assert "@stages | 100 %" in table and "rotation accuracy" in table
    assert ("| cpc | 100 %" in table) == (tree == "3d")
    kinds = {name.partition("_")[0]: texts(figure) for name, figure in figures.items()}
    assert kinds.keys() == {"train", "difference", "learning", "examples", "views"}
    assert all("@stages" in kinds[kind] for kind in ("train", "difference", "learning"))


def test_an_encoder_from_a_file_is_an_arm_without_pretraining(
        finished: tuple[str, list[object], Path]) -> None:
    tree, given, results = finished
    made = next(results.rglob("encoder.pt"))
    asked = [*given, "--tasks", "baseline", "--encoder"]
    result = call(f"{tree}/exp.py", *asked, f"mine={made}")
    assert result.returncode == 0 and "1 done, 1 to do" in result.stdout, result.stderr
    run = next(results.glob("*/*/finetune/mine/fraction100/seed0"))
    config = json.loads((run / "config.json").read_text())
    assert config["identity"]["encoder"]["file"] == checkpoint.weights_digest(
        checkpoint.load(made))
    assert not list(results.glob("*/*/pretrain/mine"))
    with caught() as figures:
        assert call(f"{tree}/graph.py", "--results", results).returncode == 0
    assert any("mine" in texts(figure) for figure in figures.values())
    other = {name: value + 1 if value.dtype == torch.float32 else value
             for name, value in checkpoint.load(made).items()}
    checkpoint.save(results / "other.pt", other)
    changed = call(f"{tree}/exp.py", *asked, f"mine={results / 'other.pt'}")
    assert changed.returncode == 2 and "encoder.file" in changed.stderr  # never reused silently


def test_without_network_imagenet_fails_in_one_line_and_the_others_go_on(
        photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(urllib.request, "_opener", None)  # made anew, with this proxy
    result = call("2d/exp.py", "--data", photographs, "--results", tmp_path / "results",
                  "--cache", tmp_path / "c", *SMALL["2d"], *SHORT, "--tasks", "baseline",
                  "imagenet")
    assert result.returncode == 1, result.stderr
    failed = [line for line in result.lines if line.startswith("failed: ")]
    assert len(failed) == 1 and "imagenet: its weights could not be fetched" in failed[0]
    assert "densenet121-a639ec97.pth" in failed[0]
    assert (tmp_path / "results/2d/fundusphantom/finetune/baseline/fraction100/seed0/scores.json"
            ).exists()


def test_imagenet_weights_take_images_from_zero_to_one(tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import densenet121
    torch.manual_seed(0)
    stored = densenet121(weights=None)
    stored.features.norm0.running_mean.uniform_(-1, 1)
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    torch.save(stored.state_dict(), folder / "densenet121-a639ec97.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    encoder = model2d.Encoder()
    checkpoint.fit(encoder, model2d.imagenet(), "imagenet")
    images = torch.rand(1, 3, 64, 64)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    usual = (images - mean) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    ours, theirs = (net.eval()(given) for net, given in (
        (encoder.features[:2], images), (stored.features[:2], usual)))
    inside = (..., slice(2, -2), slice(2, -2))  # beyond: zero padding means another colour
    assert torch.allclose(ours[inside], theirs[inside], atol=1e-4)


def test_four_channels_and_four_classes_run_unchanged(brains: Path, tmp_path: Path) -> None:
    result = call("3d/exp.py", "--data", brains, "--results", tmp_path / "r", "--cache",
                  tmp_path / "c", *SMALL["3d"], *SHORT, "--tasks", "baseline", "rotation")
    assert result.returncode == 0, result.stderr
    run = tmp_path / "r/3d/braintumour/finetune/rotation/fraction100/seed0"
    scores = json.loads((run / "scores.json").read_text())
    assert scores["classes"] == ["edema", "non-enhancing tumor", "enhancing tumour"]
    encoder = checkpoint.load(run.parents[3] / "pretrain/rotation/seed0/encoder.pt")
    assert encoder["blocks.0.0.weight"].shape == (2, 4, 3, 3, 3)
    with caught():
        drawn = call("3d/graph.py", "--results", tmp_path / "r", "--published")
    assert drawn.returncode == 0 and "no published" not in drawn.stdout, drawn.stderr
    assert "Dice, whole foreground" in (tmp_path / "r/train_braintumour.md").read_text()


def test_whole_foreground_counts_a_mistaken_class_as_found() -> None:
    task = Segmentation(["background", "a", "b"])
    truth = torch.tensor([[[[0, 1, 1, 2]]]])
    outputs = torch.nn.functional.one_hot(torch.tensor([[[[0, 2, 1, 0]]]]), 3).movedim(-1, 1)
    scores = {name: value.numpy() for name, value in task.score(outputs.float(), truth).items()}
    case = task.cases(scores)[0]
    assert case["dice_whole"] == pytest.approx(2 * 2 / (3 + 2))
    assert case["dice_a"] == pytest.approx(2 / 3) and case["dice_b"] == 0
    assert math.isclose(task.summarise(scores)["dice_whole"], 0.8)
