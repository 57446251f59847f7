"""The mean teacher: the baseline's labelled batches, the pool's images, a slow copy, resumable."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import TINY, call
from torch import Generator, Tensor, nn

from common.arms import check
from common.downstream.grading import Grading
from common.downstream.segmentation import Segmentation
from common.errors import InputError
from common.files import read_json, write_json
from common.runs import semi
from common.runs.records import Run
from common.runs.semi import MeanTeacher
from common.runs.training import Fit, Recipe
from common.tasks.batches import Cases, generator
from common.tasks.contract import Batch, Task

RECIPE = Recipe(seed=3, epochs=4, steps=3, batch_size=2, lr=1e-2, validations=2)
TRAIN, VAL, POOL = [0, 1, 2, 3, 4], [5, 6], [0, 1, 2, 3, 4, 7, 8, 9, 10, 11]


class Net(nn.Module):
    """Small, with a norm and dropout: what a resumed run has to have again."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6),
                                     nn.Dropout(0.5))
        self.decoder = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.encoder(x))
        return logits


class Classes(Task):
    """Three classes; writes down what it is given."""

    name, labelled = "classes", True

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.pairs: list[list[int]] = []
        self.views: list[Tensor] = []

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        assert batch.labels is not None
        views = batch.images + 0.1 * torch.randn(batch.images.shape, generator=rng)
        if training:
            self.batches.append(batch.cases)
            self.views.append(views)
        return views, batch.labels

    def pair(self, batch: Batch, rng: Generator) -> tuple[Tensor, Tensor]:
        self.pairs.append(batch.cases)
        one, other = (0.1 * torch.randn(batch.images.shape, generator=rng) for _ in range(2))
        return batch.images + one, batch.images + other

    def probabilities(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)


def made(folder: Path, kind: Any = MeanTeacher, recipe: Recipe = RECIPE, **more: Any) -> Any:
    torch.manual_seed(0)
    images = torch.rand(12, 1, 2, 2, generator=generator(0, "images"))
    run = Run(folder / "finetune/meanteacher/fraction100/seed0", {"stage": "finetune"})
    run.start({})
    return kind(Net(), Classes(), Cases(images, torch.arange(12) % 3, list("abcdefghijkl"),
                                        torch.device("cpu")),
                train=TRAIN, val=VAL, run=run, recipe=recipe, **more)


def trained(folder: Path, epochs: int = 4) -> MeanTeacher:
    fit: MeanTeacher = made(folder, unlabelled=POOL)
    fit.start()
    while fit.due() and fit.state.epoch < epochs:
        fit.saved = fit.wait = 0.0  # last.pt after every epoch
        fit.epoch()
    return fit


def test_its_labelled_batches_are_the_baselines_and_the_others_come_from_the_pool(
        tmp_path: Path) -> None:
    fit, plain = trained(tmp_path / "a"), made(tmp_path / "b", Fit)
    while plain.due():
        plain.epoch()
    assert fit.task.batches == plain.task.batches and len(fit.task.batches) == 12
    assert all(torch.equal(a, b) for a, b in zip(fit.task.views, plain.task.views, strict=True))
    assert len(fit.task.pairs) == 12 and {len(rows) for rows in fit.task.pairs} == {2}
    assert {row for rows in fit.task.pairs for row in rows} <= {*POOL}
    assert not {row for rows in fit.task.pairs for row in rows} & {*VAL}


def test_the_teacher_is_the_moving_average_of_the_student(tmp_path: Path) -> None:
    fit = made(tmp_path, unlabelled=POOL)
    slow = fit.model.decoder.weight.detach().clone()
    assert torch.equal(fit.teacher.decoder.weight, slow)
    fit.start()
    fit._begin(1)
    for done in range(200):
        fit._set_rate(done)
        fit.step(fit.cases.batch([0, 1], labelled=True), generator(0, "x", done))
        decay = min(1 - 1 / (done + 1), 0.99)
        slow = slow * decay + fit.model.decoder.weight.detach() * (1 - decay)
        assert torch.allclose(fit.teacher.decoder.weight, slow, atol=1e-5)
    assert all(not weight.requires_grad for weight in fit.teacher.parameters())
    assert fit.teacher.training  # normalised by its batch


def test_they_have_to_agree_more_and_more_and_that_moves_the_student(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = made(tmp_path / "a", unlabelled=POOL, recipe=replace(RECIPE, epochs=10, steps=10))
    weights = []
    for done in (0, 15, 30, 99):
        fit.done = done
        weights.append(fit.weight())
    assert weights == pytest.approx([math.exp(-5), math.exp(-5 / 4), 1.0, 1.0])
    a, b = torch.tensor([[0.2, 0.8]]), torch.tensor([[0.4, 0.6]])
    assert semi.disagreement(a, b).item() == pytest.approx(0.04)
    monkeypatch.setattr(semi, "WEIGHT", 0.0)
    free = trained(tmp_path / "b")
    monkeypatch.setattr(semi, "WEIGHT", 30.0)
    bound = trained(tmp_path / "c")
    assert not torch.equal(free.model.decoder.weight, bound.model.decoder.weight)


def test_an_interrupted_run_goes_on_bit_for_bit_teacher_and_all(tmp_path: Path) -> None:
    whole = trained(tmp_path / "a")
    trained(tmp_path / "b", epochs=2)
    resumed = trained(tmp_path / "b")
    assert len(resumed.task.batches) == 6  # the second half alone
    for name in ("model", "teacher"):
        one, other = (getattr(fit, name).state_dict() for fit in (whole, resumed))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert whole.state.history == resumed.state.history


def test_a_damaged_checkpoint_leaves_the_teacher_new_too(tmp_path: Path) -> None:
    fit = trained(tmp_path / "a", epochs=2)
    path = fit.run.folder / "last.pt"
    saved = torch.load(path)
    torch.save({**saved, "state": {"nonsense": 1}}, path)
    again = trained(tmp_path / "a")
    whole = trained(tmp_path / "b")
    assert (fit.run.folder / "last.pt.damaged").exists() and len(again.task.batches) == 12
    assert torch.equal(again.teacher.decoder.weight, whole.teacher.decoder.weight)


@pytest.mark.parametrize("name", ["meanteacher@shuffled", "meanteacher+rotation",
                                  "rotation+meanteacher", "meanteacher@decoder"])
def test_nothing_can_be_joined_to_it(name: str) -> None:
    check("meanteacher", {}, ["baseline"], decoder=True)
    with pytest.raises(InputError, match="the meanteacher starts from"):
        check(name, {"rotation": Task}, ["baseline"], decoder=True)


def test_fixmatch_learns_what_it_is_sure_of_from_strong_changes(tmp_path: Path) -> None:
    fit = made(tmp_path, semi.FixMatch, unlabelled=POOL)
    fit.downstream = Grading(2, lambda views, rng: views)
    weak = torch.tensor([[4.0, -4.0], [4.0, 1.0], [3.5, 3.5]])  # sure, not sure of one, sure
    strong = torch.tensor([[1.0, 0.5], [-9.0, 9.0], [0.0, 2.0]], requires_grad=True)
    both = torch.cat([weak.requires_grad_(), strong])
    loss = fit.also(both)
    F = nn.functional
    rows = [F.binary_cross_entropy_with_logits(strong[0], torch.tensor([1.0, 0.0])),
            F.binary_cross_entropy_with_logits(strong[2], torch.tensor([1.0, 1.0]))]
    assert loss.item() == pytest.approx(((rows[0] + rows[1]) / 3).item(), rel=1e-5)
    loss.backward()
    assert weak.grad is None or not weak.grad.any()  # what is taken for the truth does not move
    assert strong.grad is not None and not strong.grad[1].any() and strong.grad[0].all()
    shares = torch.tensor([[0.951], [0.949]])
    logits = torch.cat([torch.logit(shares), torch.zeros(2, 1)])
    assert fit.also(logits).item() == pytest.approx(math.log(2) / 2, rel=1e-4)  # one of two


def test_fixmatch_shows_the_labelled_and_both_changes_in_one_batch(tmp_path: Path) -> None:
    fit = made(tmp_path, semi.FixMatch, unlabelled=POOL)
    fit.downstream.weak_and_strong = fit.downstream.pair
    fit.downstream.own_answer = Grading(3, lambda views, rng: views).own_answer
    sizes: list[int] = []
    fit.model.encoder.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    fit.start()
    fit._begin(1)
    fit._set_rate(0)
    fit.step(fit.cases.batch([0, 1], labelled=True), generator(0, "x"))
    assert sizes == [6]


def test_strong_changes_relight_and_hide_a_box() -> None:
    task: Any = Grading(3, lambda views, rng: views)
    images = torch.full((40, 1, 32, 32), 0.5)
    weak, strong = task.weak_and_strong(Batch([*images], None, [*range(40)]), generator(0, "x"))
    assert torch.equal(weak, images)
    means = strong.mean((1, 2, 3))
    assert float(means.min()) < 0.3 and float(means.max()) > 0.7 and float(means.std()) > 0.15
    flat = [(case == case.flatten().mode().values).sum().item() / 1024 for case in strong]
    assert min(flat) > 0.05 and max(flat) < 0.28 and len({*flat}) > 10  # sides of 1/4 to 1/2


def test_fixmatch_is_for_one_label_an_image() -> None:
    check("fixmatch", {}, ["baseline"], decoder=False)
    with pytest.raises(InputError, match="fixmatch: is for one label an image, in 2D; take mean"):
        check("fixmatch", {}, ["baseline"], decoder=True)


@pytest.mark.parametrize("tree", ["3d", "2d"])
def test_pairs_show_the_same_and_differ(tree: str) -> None:
    images = torch.rand(2, 1, *(16,) * int(tree[0]), generator=generator(0, "images"))
    task: Any = Segmentation(["background", "a"]) if tree == "3d" else Grading(
        3, lambda views, rng: views * (0.5 + torch.rand((), generator=rng)))
    one, other = task.pair(Batch([*images], None, [0, 1]), generator(0, "x"))
    assert one.shape == images.shape and not torch.equal(one, other)
    if tree == "3d":
        assert (one - images).std().item() == pytest.approx(0.05, abs=0.003)
    logits = torch.randn(2, 3, 4, 4, 4) if tree == "3d" else torch.randn(2, 3)
    shares = task.probabilities(logits)
    if tree == "3d":
        assert torch.allclose(shares.sum(1), torch.ones(2, 4, 4, 4))
    assert float(shares.min()) > 0 and float(shares.max()) < 1


@pytest.mark.parametrize("tree", ["3d", "2d"])
def test_the_command_trains_and_tests_student_and_teacher(
        tree: str, scans: Path, photographs: Path, tmp_path: Path) -> None:
    data = {"3d": scans, "2d": photographs}[tree]
    flags = ["--data", data, "--results", tmp_path / "r", "--cache", tmp_path / "c", *TINY[tree],
             "--tasks", "baseline", "meanteacher", *(["fixmatch"] if tree == "2d" else []),
             "--fractions", 100, "--seeds", 0,
             "--finetune-epochs", 2, "--validations", 1, "--device", "cpu", "--workers", 1]
    done = call(f"{tree}/exp.py", *flags)
    assert done.returncode == 0, done.stderr
    folder = next((tmp_path / "r" / tree).iterdir())
    runs = {arm: folder / f"finetune/{arm}/fraction100/seed0" for arm in ("baseline",
                                                                        "meanteacher")}
    scores = {arm: read_json(path / "scores.json") for arm, path in runs.items()}
    ids = {arm: read_json(path / "config.json")["identity"] for arm, path in runs.items()}
    assert scores["meanteacher"]["labelled_cases"] == scores["baseline"]["labelled_cases"]
    assert scores["meanteacher"]["steps"] == scores["baseline"]["steps"]
    assert set(scores["meanteacher"]["teacher"]) == {"test", "val"}
    assert "teacher" not in scores["baseline"] and "unlabelled" not in ids["baseline"]
    assert len(ids["meanteacher"]["unlabelled"]) == 16 and ids["meanteacher"]["encoder"] is None
    assert not (folder / "pretrain").exists()
    own = scores["meanteacher"]
    own["teacher"]["test"][own["metric"]] = 0.4321  # so short a run may teach neither anything
    write_json(runs["meanteacher"] / "scores.json", own)
    drawn = call(f"{tree}/graph.py", "--results", tmp_path / "r")
    assert drawn.returncode == 0, drawn.stderr
    text = next((tmp_path / "r").glob("train_*.md")).read_text()
    said = text.split("the teacher instead of the student")[1].split("\n\n")[2].splitlines()
    assert said[2:] == ["| meanteacher | 0.432 |"]
