"""--paper: the constants that README lists, beside the default study and on its encoders."""

import importlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from commands import Trial, call, numbers
from test_loop import RECIPE, Net, Watched, fitted

from common.runs import records
from common.runs.training import Fit
from common.settings import START, from_flags
from common.tasks.siamese import batch_norms

PAGE = Path(__file__).resolve().parents[1] / "README.md"
HOW = ("warmup", "start lr factor")  # a start is handled: the one thing about it that may differ
OURS = {"VALIDATIONS", "GRADES"}  # of finetuning, the same under both protocols


def tree_of(script: ModuleType) -> str:
    return Path(str(script.__file__)).parent.name


def table(tree: str) -> dict[str, tuple[Any, Any]]:
    """Constant -> (under --paper, default), as the page lists them."""
    section = PAGE.read_text(encoding="utf-8").split("## The paper's protocol")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in section.splitlines() if line.startswith("| `")]
    assert all(len(row) == 6 and row[5] for row in rows)
    first = {"3d": 1, "2d": 3}[tree]
    return {row[0].strip("`"): (value(row[first]), value(row[first + 1]))
            for row in rows if row[first]}


def value(text: str) -> Any:
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    return text if text[0].isalpha() else float(Fraction(text))


def test_every_item_is_the_one_in_the_table(script: ModuleType) -> None:
    listed, plain = table(tree_of(script)), vars(from_flags(vars(script), []))
    assert listed == {name: (wanted, plain[name]) for name, wanted in script.PAPER.items()}
    made = vars(from_flags(vars(script), ["--paper"]))
    assert {name: made[name] for name in script.PAPER} == script.PAPER


def test_every_constant_of_finetuning_is_the_papers_or_said_to_be_ours(script: ModuleType) -> None:
    plain = from_flags(vars(script), [])
    finetuning = {name for name in plain.of_stage("finetune") if name not in
                  plain.of_stage("pretrain")} | {name for name in vars(plain)
                                                 if name.startswith(START)}
    assert finetuning - OURS == script.PAPER.keys()


def test_nothing_of_pretraining_or_scope_changes(script: ModuleType) -> None:
    plain, paper = (from_flags(vars(script), flags) for flags in ([], ["--paper"]))
    assert paper.of_stage("pretrain") == plain.of_stage("pretrain")
    assert plain.PAPER is False and plain.PROTOCOL == "" and paper.PROTOCOL == "the paper's"
    names = {name for name in vars(plain) if vars(plain)[name] != vars(paper)[name]}
    assert names - {"PAPER", "PROTOCOL"} <= script.PAPER.keys()


def test_flags_win_and_the_demo_keeps_its_epochs_and_rate(script: ModuleType) -> None:
    given = from_flags(vars(script), ["--batch-size", "8", "--paper", "--norm-momentum", "0.01"])
    assert given.BATCH_SIZE == 8 and given.PROTOCOL == "the paper's but for BATCH_SIZE"
    demo = from_flags(vars(script), ["--demo", "--paper"])
    kept = {"FINETUNE_EPOCHS", "FINETUNE_LR"}
    for name, wanted in (script.DEMO | script.PAPER).items():
        assert vars(demo)[name] == (script.DEMO[name] if name in kept else wanted), name
    assert demo.PROTOCOL == "the paper's but for FINETUNE_EPOCHS, FINETUNE_LR"


@pytest.mark.parametrize(("momentum", "used"), [(None, 0.1), (0.01, 0.01), (0.5, 0.5)])
def test_the_momentum_is_that_of_the_running_statistics(tmp_path: Path, momentum: float | None,
                                                        used: float) -> None:
    net, task = Net(), Watched()
    fitted(tmp_path, task, replace(RECIPE, epochs=1, steps=1, norm_momentum=momentum), net)
    [layer], [batch] = batch_norms(net), task.trained
    assert layer.momentum == used and layer.running_var is not None
    inputs = torch.tensor(batch) / 10  # the first layer's weights were .5 then
    expected = (1 - used) + used * float((0.5 * inputs).var())
    assert layer.running_var.tolist() == pytest.approx([expected] * 3)


def test_finetuning_lies_beside_and_starts_from_the_same_encoders(
        trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, tuple[float | None, int]] = {}
    start = Fit.start

    def watched(self: Fit) -> None:
        start(self)
        momenta = {layer.momentum for layer in batch_norms(self.model)}
        assert len(momenta) == 1
        seen[self.run.name] = momenta.pop(), self.recipe.steps
    monkeypatch.setattr(Fit, "start", watched)
    trial.copy(tmp_path)
    home, before = trial.runs(tmp_path), numbers(trial.runs(tmp_path))
    flags = ["--paper", "--tasks", "baseline", "rotation", "oracle"]
    said = trial.run(tmp_path, *flags)
    assert said.returncode == 0, said.stderr
    beside = home.with_name(f"{home.name}-paper")
    assert numbers(home) == before and f"{home / 'splits.json'}" in said.stdout
    assert "protocol  of finetuning: the paper's but for" in said.stdout
    ran = [json.loads((beside / f"finetune/baseline/fraction{share}/seed0/log.jsonl").read_text()
                      .splitlines()[-1])["step"] for share in ("050", "100")]
    assert (f"steps     {ran[0]}, {ran[1]} optimiser steps a finetuning run, at 50, 100 %"
            in said.stdout)
    assert {path.name for path in (beside / "pretrain").iterdir()} == {"oracle"}
    assert not (beside / "splits.json").exists()
    assert len(seen) == 7 and {momentum for momentum, _ in seen.values()} == {0.01}
    assert seen["finetune/rotation/fraction050/seed0"][1] < seen[
        "finetune/rotation/fraction100/seed0"][1]
    run = "finetune/rotation/fraction050/seed0/config.json"
    ours, papers = (json.loads((folder / run).read_text())["identity"] for folder in (home, beside))
    assert papers["splits"] == ours["splits"] and papers["labelled"] == ours["labelled"]
    same = {name: ours["encoder"][name] for name in ours["encoder"] if name not in HOW}
    assert same == {name: papers["encoder"][name] for name in same}
    again = trial.run(tmp_path, *flags)
    assert again.returncode == 0 and "8 done, 0 to do" in again.stdout
    back = trial.run(tmp_path)
    assert back.returncode == 0 and "5 done, 0 to do" in back.stdout

    found = records.read(beside)
    assert found.dataset == beside.name and found.splits["val"]
    assert {(one["task"], one["seed"]) for one in found.pretrain} == {("rotation", 0),
                                                                      ("oracle", 0)}
    drawn = call(f"{trial.tree}/graph.py", "--results", tmp_path / "results")
    assert drawn.returncode == 0, drawn.stderr
    texts = {name: (tmp_path / "results" / f"train_{name}.md").read_text()
             for name in (home.name, beside.name)}
    assert "Protocol of finetuning: the paper's but for" in texts[beside.name]
    assert "splits, encoders and the choice of weights are ours" in texts[beside.name]
    assert "| rotation | accuracy |" in texts[beside.name]
    assert "Protocol of finetuning" not in texts[home.name]


def test_the_papers_dice_is_drawn_first_of_the_small_panels() -> None:
    graph: Any = importlib.import_module("3d.graph")
    run: dict[str, Any] = {"classes": ["a", "b"], "test": {"dice_whole": 0.5}}
    assert [one.name for one in graph.classes(graph.measures(run))] == ["dice_a", "dice_b"]
    measures = graph.measures(run | {"protocol": "the paper's"})
    assert measures[0].name == "dice"
    assert [one.name for one in graph.classes(measures)] == ["dice_paper", "dice_a", "dice_b"]

