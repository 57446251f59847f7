"""Classes without an order (--classes, 2D): loss, scores, names in folders and tables, identity."""

import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from classes import FOUR, in_folders
from commands import TINY, alone, call
from PIL import Image
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from common.downstream import metrics
from common.downstream.classification import Classification
from common.downstream.grading import Grading
from common.errors import InputError
from common.runs import semi
from common.runs.records import unordered
from common.settings import from_flags
from common.stats import measures
from common.stats.measures import Case, Measure

loader = importlib.import_module("2d.loader")
graph = importlib.import_module("2d.graph")


def same(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    return images


@pytest.fixture(scope="session")
def folders(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_folders(photographs, tmp_path_factory.mktemp("data") / "Four")


def test_loss_and_decoding_by_hand() -> None:
    task = Classification(3, same)
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    wanted = (np.log(np.exp([2, 0, 1]).sum()) - 1 + np.log(3)) / 2  # of class 2, then of class 0
    assert task.loss(logits, torch.tensor([2, 0])).item() == pytest.approx(wanted)
    assert task.decode(torch.tensor([[2.0, 0, 1], [-3, -1, -2]])).tolist() == [0, 1]
    shares = task.probabilities(logits)
    assert shares[0].tolist() == pytest.approx(np.exp([2, 0, 1]) / np.exp([2, 0, 1]).sum())
    assert task.monitor == "unweighted_kappa"  # what chooses the weights


def test_scores_by_hand_and_a_mistake_is_as_bad_as_another() -> None:
    truth, predicted = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 2, 1, 1, 2, 0])
    found = Classification(4, same).summarise({"truth": truth, "predicted": predicted})
    # 4 of 6 agree, (2 2 + 2 2 + 2 2) / 36 by chance; F1 of 1/2, 1, 1/2, and 0 of the absent class
    assert found["unweighted_kappa"] == pytest.approx((4 / 6 - 1 / 3) / (1 - 1 / 3))
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["macro_f1"] == pytest.approx((0.5 + 1 + 0.5 + 0) / 4)
    assert found["confusion"] == [[1, 0, 1, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    near = np.where(truth != predicted, 1, predicted)  # other mistakes with the same margins apart
    assert metrics.unweighted_kappa(truth, near, 4) != metrics.quadratic_weighted_kappa(
        truth, near, 4)
    assert metrics.unweighted_kappa([1, 1], [1, 1], 2) == 0.0  # no agreement beyond chance


@pytest.mark.parametrize("classes", [2, 4, 7])
def test_scores_are_scikit_learns_and_those_of_the_figures(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = [*range(classes)]
    for _ in range(20):
        truth, predicted = rng.integers(0, classes - (classes > 2), (2, 12))  # one class is absent
        kappa = cohen_kappa_score(truth, predicted, labels=labels)
        f1 = f1_score(truth, predicted, labels=labels, average="macro", zero_division=0)
        found = Classification(classes, same).summarise({"truth": truth, "predicted": predicted})
        assert found["unweighted_kappa"] == pytest.approx(0.0 if np.isnan(kappa) else kappa)
        assert found["macro_f1"] == pytest.approx(f1)
        assert found["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
        cases = Classification(classes, same).cases({"truth": truth, "predicted": predicted})
        run = {"classes": labels, "identity": {"settings": {"CLASSES": classes}}}
        for measure in graph.measures(run):
            assert score(measure, cases) == pytest.approx(found[measure.name]), measure.name


def score(measure: Measure, cases: list[Case]) -> float:
    return float(measure.combine(measure.contributions(cases).sum(axis=0)))


def test_no_score_can_be_beyond_its_bounds() -> None:
    kappa = measures.kappa_of("", "", 3, ordered=False)
    assert kappa.bounds == (-1, 1) and measures.macro_f1_of("", "", 3).bounds == (0, 1)


def test_fixmatch_is_as_sure_as_the_largest_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    task: Any = Classification(3, same)
    weak = torch.tensor([[9.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    strong = torch.tensor([[0.0, 1.0, 2.0], [5.0, 0.0, 0.0]])
    sure, losses = task.own_answer(weak, strong)
    assert sure.tolist() == pytest.approx(weak.softmax(1).max(1).values.tolist())
    assert losses.tolist() == pytest.approx([-float(strong.log_softmax(1)[0, 0]),
                                             -float(strong.log_softmax(1)[1, 1])])
    fit = semi.FixMatch.__new__(semi.FixMatch)
    fit.downstream = task
    assert fit.also(torch.cat([weak, strong])).item() == pytest.approx(losses[0].item() / 2)
    ordinal: Any = Grading(3, same)  # as sure as the least sure of its outputs
    assert ordinal.own_answer(weak, strong)[0].tolist() == pytest.approx([0.5, 0.5])


def named(folder: Path, classes: int, **more: Any) -> Any:
    return loader.open_dataset(folder, classes=classes, **more)


def test_names_of_folders_are_classes_sorted(folders: Path) -> None:
    dataset = named(folders, 4)
    assert dataset.classes == FOUR and sum(source.labelled for source in dataset.sources) == 20
    for source in dataset.sources[:20]:
        assert source.image.parent.name == FOUR[source.target]
        assert source.id == f"{FOUR[source.target]}_{source.image.stem}"
    below = folders.parent / "flat"  # without a train, and beside parts of a set
    shutil.copytree(folders / "train", below)
    shutil.copytree(folders / "train/covid", below / "val")
    assert named(below, 4).classes == FOUR


def rows(folder: Path, texts: list[str]) -> Path:
    """A data set of a photograph for each text of its CSV."""
    (folder / "train_images").mkdir(parents=True)
    for number in range(len(texts)):
        pixels = np.random.default_rng(number).integers(60, 200, (9, 9, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"train_images/a{number}.png")
    (folder / "train.csv").write_text("\n".join(
        ["id_code,diagnosis", *(f"a{number},{text}" for number, text in enumerate(texts))]) + "\n")
    return folder


@pytest.mark.parametrize(("texts", "names", "numbers"), [
    (["b", "a", "b", "A"], ["A", "a", "b"], [2, 1, 2, 0]),
    (["10", "2.0", "2", "0"], ["0", "2", "10"], [2, 1, 1, 0]),  # by size, not by letters
    (["10", "2", "x", "2"], ["10", "2", "x"], [0, 1, 2, 1]),
    (["1_1", "1_2", "11"], ["11", "1_1", "1_2"], [1, 2, 0]),  # names, though Python reads numbers
    (["001", "1", "002"], ["001", "002", "1"], [0, 2, 1]),
    ([" scho\u0308n", "sch\u00f6n", "a  b", "a b"], ["a b", "sch\u00f6n"], [1, 1, 0, 0])])
def test_labels_of_a_table_are_names_or_numbers(texts: list[str], names: list[str],
                                                numbers: list[int], tmp_path: Path) -> None:
    dataset = named(rows(tmp_path / "set", texts), len(names))
    assert dataset.classes == names
    assert [source.target for source in dataset.sources] == numbers


@pytest.mark.parametrize(("texts", "classes", "message"), [
    (["normal", "covid", "norml"], 2, "3 classes found, covid (1 image), normal (1 image), norml "
     "(1 image), but CLASSES = 2; correct the labels, or give --classes 3"),
    (["a", "a", "b"], 3, "2 classes found, a (2 images), b (1 image), but CLASSES = 3"),
    (["a", "", "b"], 2, "line 3: no class; fill it in, or take the row out"),
    (["a", "b", "1"], 0, "line 2: grade 'a' found, a whole number from 0 to 4 expected; correct "
     "the row or take it out (then it is unlabelled); names take --classes")])
def test_wrong_labels_are_one_line(texts: list[str], classes: int, message: str,
                                   tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        named(rows(tmp_path / "set", texts), classes)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert "train.csv" in str(caught.value)


def test_two_photographs_of_one_name_are_both_named(folders: Path, tmp_path: Path) -> None:
    data = tmp_path / "set"
    shutil.copytree(folders, data)
    image = next((data / "train/covid").iterdir())
    shutil.copy(image, image.with_suffix(".jpg"))
    with pytest.raises(InputError, match=f"covid_{image.stem} has more than one image"):
        named(data, 4)


@pytest.mark.parametrize(("flags", "message"), [
    (["--classes", "3"], "4 classes found, benign ("), (["--classes", "1"], "nothing to tell"),
    (["--classes", "4", "--grades", "4"], "--grades is for ordered grades, --classes for classes"),
    (["--classes", "257"], "CLASSES = 257: must be at least 0 and below 257 (0: ordered grades)"),
    (["--classes", "4", "--group-column", "who"], "folders of classes have no column who"),
    ([], "no CSV found; expected train.csv")])
def test_bad_flags_are_one_line_and_status_2(flags: list[str], message: str, folders: Path,
                                             tmp_path: Path) -> None:
    said = call("2d/exp.py", "--data", folders, "--results", tmp_path / "r", "--cache",
                tmp_path / "c", *TINY["2d"], "--plan", "--tasks", "baseline", *flags)
    assert said.returncode == 2 and message in said.stderr and len(said.lines) == 1, said.stderr
    assert not (tmp_path / "r").exists()


def test_graded_runs_do_not_know_of_classes() -> None:
    with alone("2d"):
        script = vars(importlib.import_module("exp"))
        plain, four = (from_flags(script, flags) for flags in ([], ["--classes", "4"]))
    assert plain.CLASSES == 0 and "CLASSES" not in plain.of_stage("finetune")
    assert plain.of_stage("finetune")["GRADES"] == 5  # as earlier runs have it
    assert four.of_stage("finetune") == plain.of_stage("finetune") | {"CLASSES": 4}
    assert four.of_stage("pretrain") == plain.of_stage("pretrain")
    assert not unordered({"identity": {"settings": plain.of_stage("finetune")}})
