"""peers.py: every way trains the same run, is scored alike; the table says what was measured."""

import importlib
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import TINY, alone, call
from torch import Tensor
from torch.optim import optimizer

from bench import trees
from bench.peers_rows import alike, fresh, plan, table
from bench.peers_rows.alike import ALIKE
from bench.peers_rows.fresh import WAYS, Way
from bench.peers_rows.plan import Plan
from bench.peers_rows.usual import Watch
from common.downstream.grading import Grading
from common.downstream.segmentation import Segmentation
from common.errors import InputError
from common.runs import training
from common.runs.stages import load_cases
from common.runs.study import Study

CPU = torch.device("cpu")
STEPS = 6
MONAI = WAYS["3d"][1]


class Opened:
    """A tiny plan, and the project's own study of it."""

    def __init__(self, made: Plan, study: Study) -> None:
        self.plan, self.study = made, study
        self.cases = load_cases(study, CPU)
        part = study.part(made.seed)
        self.rows = {name: self.cases.rows(ids) for name, ids in
                     (("train", part.train), ("val", part.val), ("test", part.test))}

    def own_score(self, model: torch.nn.Module, part: str) -> float:
        """What the project's own evaluation says."""
        task = self.study.downstream()
        recipe = self.study.finetune_recipe("baseline", 100, 0)
        return training.evaluate(model, task, self.cases, self.rows[part], recipe)[0][task.monitor]

    def arrays(self, part: str) -> tuple[Tensor, Tensor]:
        """Images as the network takes them, and labels."""
        batch = self.cases.batch(self.rows[part], labelled=True)
        assert batch.labels is not None
        return batch.images, batch.labels


@pytest.fixture(scope="module", params=["3d", "2d"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
           ) -> Iterator[Opened]:
    tree, folder = request.param, tmp_path_factory.mktemp("peers")
    data = request.getfixturevalue("scans" if tree == "3d" else "photographs")
    with alone("bench"), pytest.MonkeyPatch.context() as patch:
        patch.setitem(alike.FLAGS, tree, [*ALIKE, *TINY[tree]])
        made = alike.plans(tree, data, folder, seeds=[0], steps=STEPS)[0]
        study = alike.opened(trees.script(tree), made.flags, folder)
        yield Opened(made, study)


def trained(way: Way, made: Plan, folder: Path) -> dict[str, Any]:
    """The rates of every step of a way's run, the weights of its first, and its score."""
    seen: dict[str, Any] = {"rates": [], "first": None}

    def before(optimiser: torch.optim.Optimizer, *given: Any) -> None:
        if seen["first"] is None:
            seen["first"] = [weight.detach().clone().contiguous() for group in
                             optimiser.param_groups for weight in group["params"]]

    def after(optimiser: torch.optim.Optimizer, *given: Any) -> None:
        seen["rates"].append([group["lr"] for group in optimiser.param_groups])
    own = replace(made, folder=str(folder))
    hooks = [optimizer.register_optimizer_step_pre_hook(before),
             optimizer.register_optimizer_step_post_hook(after)]
    try:
        if way.prepares:
            assert fresh.done(way.module, "prepare", own)["seconds"] > 0
        figures = fresh.done(way.module, "run", own)
    finally:
        for hook in hooks:
            hook.remove()
    assert min(figures[part] for part in ("loop", "validation", "test")) > 0
    assert figures["loop"] > figures["validation"]
    return {**seen, "score": figures["score"]}


def test_every_way_takes_the_same_steps_from_the_same_weights(opened: Opened, tmp_path: Path
                                                              ) -> None:
    found = {}
    for way in WAYS[opened.plan.tree]:
        if not way.needs:
            (tmp_path / way.name).mkdir()
            found[way.name] = trained(way, opened.plan, tmp_path / way.name)
    ours = found.pop("ours")
    assert len(ours["rates"]) == opened.plan.steps and len(found) == (
        1 if opened.plan.tree == "3d" else 2)
    assert len({rates[0] for rates in ours["rates"]}) > 3  # the rate rises and falls
    for other in found.values():
        assert all(own == pytest.approx([one] * len(own)) for own, (one,)
                   in zip(ours["rates"], other["rates"], strict=True))
        assert all(map(torch.equal, ours["first"], other["first"]))
        assert -1 <= other["score"] <= 1


@pytest.mark.slow  # importing MONAI takes a while
def test_monai_takes_the_same_steps_from_the_same_weights(opened: Opened, tmp_path: Path) -> None:
    pytest.importorskip("monai")
    if opened.plan.tree == "2d":
        pytest.skip("volumes only")
    way = importlib.import_module("bench.peers_rows.monai_way")
    made = trained(MONAI, opened.plan, tmp_path)
    assert len(made["rates"]) == opened.plan.steps
    assert all(map(torch.equal, made["first"], plan.network(opened.plan).parameters()))
    model = plan.network(opened.plan).eval()
    images, labels = opened.arrays("test")
    batches = {"test": [{"image": images, "label": labels[:, None].float()}]}
    assert way.score(batches, opened.plan.classes, model, "test") == pytest.approx(
        opened.own_score(model, "test"))
    outputs = model(images).detach()
    loss = way.DiceCELoss(to_onehot_y=True, softmax=True, batch=True)
    assert float(loss(outputs, labels[:, None])) == pytest.approx(
        float(opened.study.downstream().loss(outputs, labels)), abs=1e-4)
    sets = way.datasets(opened.plan)
    for case, image, label in zip(sets["test"], images, labels, strict=True):
        assert np.corrcoef(case["image"].flatten(), image.flatten())[0, 1] > 0.99
        assert (case["label"][0] == label).float().mean() > 0.99


def test_the_plan_says_what_the_project_trains(opened: Opened) -> None:
    made, study = opened.plan, opened.study
    recipe = study.finetune_recipe("baseline", 100, 0)
    assert plan.due(made) == {step for step in range(1, made.steps + 1)
                              if training._validates_at(step, recipe)}
    assert [len(made.cases[part]) for part in ("train", "val", "test")] == [
        len(part) for part in study.part(0)[:3]]
    file = made.write(Path(study.cache.folder).parent / "plan.json")
    assert Plan.read(file) == made


def test_one_network_on_the_same_cases_gets_the_same_score_and_loss(opened: Opened) -> None:
    made, model = opened.plan, plan.network(opened.plan).eval()
    images, labels = opened.arrays("test")
    outputs = model(images).detach()
    task = opened.study.downstream()
    if made.tree == "3d":
        assert isinstance(task, Segmentation)
        way = importlib.import_module("bench.peers_rows.earlier_3d")
        arrays = (images[:, 0].double().numpy(), labels.numpy())
        truth = way.collated(list(zip(*arrays, strict=True)), made.classes)[1]
    else:
        assert isinstance(task, Grading)
        way = importlib.import_module("bench.peers_rows.earlier_2d")
        arrays = (images.double().numpy().transpose(0, 2, 3, 1), labels.numpy())
        truth = way.collated(list(arrays[0]), arrays[1], made.classes)[1]
        vision = importlib.import_module("bench.peers_rows.torchvision_way")
        loader = {"test": [(images, labels)]}
        assert vision.score(loader, made.classes, model, "test") == pytest.approx(
            opened.own_score(model, "test"))
        assert float(vision.loss(made.classes, outputs, labels)) == pytest.approx(
            float(task.loss(outputs, labels)))
        assert vision.kappa([2, 2], [2, 2], 5) == 0 and vision.kappa(
            [0, 0, 1, 2, 2, 3, 4, 4], [0, 1, 1, 2, 1, 3, 4, 2], 5) == pytest.approx(0.8)
    assert way.score(made, {"test": arrays}, model, "test") == pytest.approx(
        opened.own_score(model, "test"))
    loss = getattr(way, "loss", torch.nn.functional.binary_cross_entropy_with_logits)
    assert float(loss(outputs, truth)) == pytest.approx(float(task.loss(outputs, labels)))


def test_the_earlier_way_prepares_what_the_project_does(opened: Opened, tmp_path: Path) -> None:
    if opened.plan.tree == "2d":
        pytest.skip("there no retina is looked for")
    way = importlib.import_module("bench.peers_rows.earlier_3d")
    way.prepare(replace(opened.plan, folder=str(tmp_path)), Watch())
    images, labels = opened.arrays("val")
    stored = np.load(tmp_path / "val_images.npy")
    assert stored.dtype == np.float64 and np.abs(stored - images[:, 0].numpy()).max() < 0.01
    assert np.array_equal(np.load(tmp_path / "val_labels.npy"), labels)


def test_a_fresh_process_tells_seconds_memory_or_why_it_failed(opened: Opened, tmp_path: Path
                                                               ) -> None:
    if opened.plan.tree == "3d":
        pytest.skip("as in 2D")
    way, cases = WAYS["2d"][-1], {part: some[:1] for part, some in opened.plan.cases.items()}
    made = replace(opened.plan, folder=str(tmp_path), cases=cases)
    found = fresh.measured(way, "prepare", made)
    assert 50 < fresh.torch_alone() < found["memory"]
    assert 0 < found["seconds"] < found["command"] and 50 < found["memory"] < 5000
    assert found["cpu"] > 0.1 and len(list(tmp_path.glob("*.npy"))) == 3
    gone = {**cases, "test": [cases["test"][0]._replace(image="/gone.png")]}
    with pytest.raises(InputError, match=r"(?s)earlier way, prepare.*/gone\.png"):
        fresh.measured(way, "prepare", replace(made, cases=gone))


FAKE = {  # seconds of a round's steps, by way: epochs take half of it less a second
    "ours": [4.0, 5.0, 9.0], "torchvision": [8.0, 5.0, 27.0], "earlier": [12.0, 10.0, 9.0],
    "monai": [16.0, 10.0, 18.0]}


def faked(way: Way, part: str, made: Plan) -> dict[str, float]:
    """Made-up figures of a round, which its seed numbers."""
    loop = FAKE[way.name][made.seed]
    if part == "prepare":
        return {"seconds": loop / 2, "command": loop, "cpu": loop, "memory": 100.0}
    return {"data": 0.5, "validation": 2.0, "loop": loop, "test": 1.0, "command": loop + 3,
            "cpu": loop + 2, "memory": 1500.0, "score": 0.5 + loop / 100}


def test_the_table_is_that_of_the_records_and_right_by_hand(
        scans: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tree in ("3d", "2d"):
        monkeypatch.setitem(alike.FLAGS, tree, [*ALIKE, *TINY[tree]])
    monkeypatch.setattr(fresh, "measured", faked)
    monkeypatch.setattr(fresh, "torch_alone", lambda: 300.0)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *more: None if name == "monai" else find(name, *more))
    said = call("bench/peers.py", "--data3d", scans, "--data2d", photographs, "--rounds", 3,
                "--steps", STEPS, "--out", tmp_path)
    assert said.returncode == 0, said.stderr
    text = (tmp_path / "peers.md").read_text()
    found = json.loads((tmp_path / "peers.json").read_text())
    assert text in said.stdout and "pip install --no-deps" in text and "| MONAI" not in text
    assert said.stdout.count("MONAI is not installed") == 2  # first, and over the tables
    part = next(one for one in found["parts"] if one["tree"] == "2d")
    assert part["steps"] == part["epochs"] * (part["steps"] // part["epochs"])
    assert part["rounds"]["torchvision"]["run"] == [9.0, 6.0, 28.0]
    assert part["table"]["run"]["ours"] == {"value": [6.0, 5.0, 10.0]}
    assert part["table"]["run"]["torchvision"]["ratio"] == pytest.approx([9 / 5, 1.0, 2.8])
    assert part["table"]["first"]["ours"]["value"] == [10.0, 8.5, 16.0]     # 5 + 3 - .5 + 2.5
    assert part["table"]["first"]["torchvision"]["value"] == [10.5, 7.5, 29.5]
    assert "prepare" not in part["rounds"]["torchvision"]
    score = part["table"]["score"]["torchvision"]
    assert score["mean"] == pytest.approx(0.5 + 0.4 / 3)
    assert score["difference"] == pytest.approx((0.04 + 0 + 0.18) / 3)
    assert score["difference sd"] == pytest.approx(np.std([0.04, 0, 0.18], ddof=1))
    assert ("| the run: epochs, validations, test, s | 6 (5 to 10) | 9 (6 to 28) | 1.8 (1 to 2.8) "
            "| 11 (10 to 13) | 1.83 (1 to 2.6) |") in text
    assert "| +0.073 (0.095) less ours |" in text
    assert part["rounds"]["ours"]["own"] == [1200.0] * 3 and "torch alone takes 300 MiB" in text
    assert text == importlib.import_module("commands").loaded("bench", "peers")._text(found)


def test_a_single_round_has_no_spread_and_monai_has_its_columns() -> None:
    rounds = {way: {"run": [FAKE[way][0]], "score": [0.5]} for way in ("ours", "monai", "earlier")}
    part = {"tree": "3d", "dataset": "tiny", "cores": 1, "what": "", "rounds": rounds,
            "table": table.summary(rounds)}
    lines = table.markdown(part).splitlines()
    assert lines[0] == "### tiny, 1 core for each"
    assert "|  | this project | MONAI | ratio | the earlier way | ratio |" in lines
    assert lines[-1] == ("| test Dice, mean (SD) | 0.500 | 0.500 | +0.000 less ours | 0.500 "
                         "| +0.000 less ours |")


def test_what_cannot_be_measured_is_said(tmp_path: Path, brains: Path) -> None:
    said = call("bench/peers.py")
    assert said.returncode == 2 and "give --data3d" in said.stderr
    said = call("bench/peers.py", "--data3d", tmp_path, "--rounds", 0)
    assert said.returncode == 2 and "--rounds 0" in said.stderr
