"""Both user commands of the 2D tree; what differs from 3D (test_commands_3d.py)."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from commands import WITHOUT_TORCH, Result, Trial, call, numbers, shell
from drawn import caught, looks_drawn


def test_the_command_says_what_it_will_do(trial_2d: Trial) -> None:
    for said in ("test cases in the pretraining pool: 0", "5: 1 pretraining, 4 finetuning",
                 "14 train, 2 validation, 4 test", "16 cases to pretrain on"):
        assert said in trial_2d.said.stdout


def test_a_data_set_of_the_other_tree_with_the_same_name_is_not_drawn_over(
        trial: Trial, tmp_path: Path) -> None:
    tree = {"3d": "2d", "2d": "3d"}[trial.tree]
    [name] = [path.name for path in (trial.folder / "results" / trial.tree).iterdir()]
    other = tmp_path / "results" / tree / name
    other.mkdir(parents=True)
    result = trial.run(tmp_path)
    assert result.returncode == 2 and len(result.lines) == 1, result
    assert f"{other}: a data set of code/{tree} with the name of this one" in result.stderr
    assert not (tmp_path / "results" / trial.tree).exists()


@pytest.mark.slow  # 3D does the same in the fast suite
def test_from_a_shell_two_workers_give_the_numbers_of_one(trial_2d: Trial, tmp_path: Path) -> None:
    result = shell("2d/exp.py", *trial_2d.flags(tmp_path, "--workers", 2, "--tasks", "baseline"))
    assert result.returncode == 0, result.stderr
    assert "2 to do" in result.stdout and "2 runs at a time" in result.stdout
    whole = numbers(trial_2d.folder)
    assert numbers(tmp_path).items() <= whole.items()
    assert "2 done, 3 to do" in trial_2d.run(tmp_path, "--workers", 1).stdout
    assert numbers(tmp_path) == whole


def test_records_hold_kappa_accuracy_and_the_confusion_matrix(trial_2d: Trial) -> None:
    run = trial_2d.folder / "results/2d/fundusphantom/finetune/rotation/fraction050/seed0"
    content = json.loads((run / "scores.json").read_text())
    assert {"kappa", "accuracy", "confusion"} <= content["test"].keys()
    assert len(content["cases"]) == 4 == sum(map(sum, content["test"]["confusion"]))
    right = sum(case["truth"] == case["predicted"] for case in content["cases"].values())
    assert content["test"]["accuracy"] == right / 4
    assert content["generated"] is True and content["labelled"] == 7


def test_a_second_start_repeats_nothing(trial_2d: Trial, tmp_path: Path) -> None:
    trial_2d.copy(tmp_path)
    result = trial_2d.run(tmp_path)
    assert result.returncode == 0 and "5 done, 0 to do" in result.stdout
    assert numbers(tmp_path) == numbers(trial_2d.folder)


def test_patch_tasks_name_the_smallest_resolution_that_serves(trial_2d: Trial,
                                                              tmp_path: Path) -> None:
    for task in ("rpl", "jigsaw"):
        result = trial_2d.run(tmp_path, "--tasks", "baseline", task)
        assert result.returncode == 2 and "RESOLUTION to at least 96" in result.stderr
    result = trial_2d.run(tmp_path, "--resolution", 28)
    assert result.returncode == 2 and "RESOLUTION to at least 29" in result.stderr


@pytest.mark.parametrize(("flags", "message"), [
    (["--grades", "1"], "at least 2"), (["--grades", "3"], "expected; correct the row"),
    (["--blocks", "1", "1"], "four numbers"), (["--augment-zoom", "1"], "below 1"),
    (["--grade-column", "level"], "no column level"), (["--data", "/nowhere"], "no such folder"),
    (["--tasks", "baseline", "examplar"], "did you mean 'exemplar'"),
])
def test_bad_flags_are_one_line_and_status_2(flags: list[str], message: str, trial_2d: Trial,
                                             tmp_path: Path) -> None:
    result = trial_2d.run(tmp_path, *flags)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert len(result.lines) == 1
    assert not (tmp_path / "results").exists()


def test_graph_draws_what_is_there_without_torch(trial_2d: Trial, tmp_path: Path) -> None:
    trial_2d.copy(tmp_path)
    result = shell("2d/graph.py", "--results", tmp_path / "results", program=WITHOUT_TORCH)
    assert result.returncode == 0, result.stderr
    drawn = tmp_path / "results/train_fundusphantom"
    table = drawn.with_suffix(".md").read_text()
    assert "Quadratic-weighted kappa" in table and "| task | 50 % (7) | 100 % (14) |" in table
    assert "generated data" in table and "Confusion" in table
    for name in ("train", "learning", "examples", "views", "difference"):
        looks_drawn(drawn.with_name(f"{name}_fundusphantom.png"))


def test_published_records_draw_the_same_figures(trial_2d: Trial, tmp_path: Path) -> None:
    records, kept = trial_2d.folder / "results/2d/fundusphantom", tmp_path / "a"
    result = graph(records, kept, "--publish", "x")
    assert result.returncode == 0, result.stderr
    study = kept / "published/fundusphantom-x"
    with np.load(records / "examples.npz") as saved:
        assert len(saved["ids"]) == 4 and saved["images"].shape[1:] == (32, 32, 3)
    names = sorted(path.name for path in kept.glob("*_*"))
    curves = [name for name in names if not name.startswith(("examples_", "views_"))]
    assert len(names) == 9 and sorted(path.name for path in study.iterdir()) == sorted(
        ["records.json.gz", *curves])  # no weights, no images
    for name in ("examples.npz", "views.npz"):  # they stay with who has them
        (study / name).write_bytes((records / name).read_bytes())
    result = graph(study, tmp_path / "b")
    assert result.returncode == 0, result.stderr
    names.append("fundusphantom.html")  # none in the study
    assert sorted(names) == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in names:
        for folder in (tmp_path / "b", *([study] if name in curves else [])):
            assert (kept / name).read_bytes() == (folder / name).read_bytes(), name


def graph(records: Path, results: Path, *more: object) -> Result:
    return call("2d/graph.py", "--records", records, "--results", results, *more)


def test_records_are_published_again_without_a_change_and_only_under_a_name(
        trial_2d: Trial, tmp_path: Path) -> None:
    records = trial_2d.folder / "results/2d/fundusphantom"
    study = tmp_path / "published/fundusphantom-x"
    with caught():
        assert graph(records, tmp_path, "--publish", "x").returncode == 0
        first = (study / "records.json.gz").read_bytes()
        assert b"host" not in gzip.decompress(first)
        assert graph(records, tmp_path, "--publish", "x").returncode == 0
        assert (study / "records.json.gz").read_bytes() == first
        result = graph(study, tmp_path, "--publish", "x")
        assert result.returncode == 2 and "another --publish NOTE" in result.stderr
        for note in ("../up", "a/b"):
            result = graph(records, tmp_path, "--publish", note)
            assert result.returncode == 2 and "letters, digits" in result.stderr
        (study / "examples.npz").write_bytes(b"no zip")
        result = graph(study, tmp_path)
        assert result.returncode == 2 and "examples.npz: not readable" in result.stderr
        result = graph(tmp_path / "nothing", tmp_path)
        assert result.returncode == 2 and "no records.json.gz in it or below" in result.stderr
