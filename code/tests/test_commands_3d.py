"""Both user commands of the 3D tree: what they leave, say and refuse."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import WITHOUT_TORCH, Trial, call, forked, numbers, shell
from drawn import looks_drawn


def test_the_command_says_what_it_will_do(trial_3d: Trial) -> None:
    for said in ("test cases in the pretraining pool: 0", "5: 1 pretraining, 4 finetuning",
                 "device    cpu, float32", "2 validation, 8 in 3 folds of 2 to 3: each "
                 "seed is tested on one, trains on the others (5 to 6); these seeds test 1 of the "
                 "folds\n", "pool      8 cases to pretrain on; ",
                 "note      2 validation cases: which epoch is best is partly chance",
                "steps     6 optimiser steps a finetuning run: too few to learn much; 100 and "
                 "more take FINETUNE_EPOCHS = 50"):
        assert said in trial_3d.said.stdout
    log = trial_3d.folder / "results/3d/ctphantom/pretrain/rotation/seed0/log.jsonl"
    steps = json.loads(log.read_text().splitlines()[-1])["step"]
    assert f"\n          at most {steps} a pretraining\n" in trial_3d.said.stdout


def test_a_seed_that_may_be_meant_as_a_number_of_seeds_is_pointed_out(
        trial_3d: Trial, tmp_path: Path) -> None:
    note = "note      seed number 3 alone; for 3 seeds give --seeds 0 1 2\n"
    assert note in trial_3d.run(tmp_path, "--seeds", 3, "--plan").stdout
    for seeds in ([1], [0], [0, 3], [1000]):
        assert "alone; for" not in trial_3d.run(tmp_path, "--seeds", *seeds, "--plan").stdout


def test_from_a_shell_it_gives_the_same_numbers(trial_3d: Trial, tmp_path: Path) -> None:
    result = shell("3d/exp.py", *trial_3d.flags(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "0 done, 5 to do" in result.stdout and "all runs are done" in result.stdout
    assert numbers(tmp_path) == numbers(trial_3d.folder)


@pytest.mark.slow  # test_commands_2d.py and test_reliability.py have two workers too
def test_two_workers_give_the_numbers_of_one(trial_3d: Trial, tmp_path: Path) -> None:
    # Forked, for speed; test_commands_2d.py and test_reliability.py start them as exp.py does.
    result = trial_3d.start(tmp_path, "--workers", 2, change=forked).wait()
    assert result.returncode == 0 and "2 runs at a time" in result.stdout, result.stderr
    assert numbers(tmp_path) == numbers(trial_3d.folder)
    result = trial_3d.start(tmp_path, "--fractions", 50, "--workers", 2, change=forked).wait()
    assert result.returncode == 0 and "3 done, 0 to do" in result.stdout


def test_records_hold_what_the_figure_needs(trial_3d: Trial) -> None:
    run = trial_3d.folder / "results/3d/ctphantom/finetune/rotation/fraction050/seed0"
    assert {p.name for p in run.iterdir()} == {"config.json", "log.jsonl", "time.jsonl",
                                               "scores.json", "best.pt", "best.json"}
    content = json.loads((run / "scores.json").read_text())
    assert {"dice", "dice_spleen", "dice_paper"} <= content["test"].keys()
    assert content["last"].keys() == {"test", "val"} and len(content["cases"]) == 2
    assert (content["task"], content["fraction"], content["seed"], content["labelled"]) == (
        "rotation", 50, 0, 3)
    splits = json.loads((run.parents[3] / "splits.json").read_text())
    assert set(content["cases"]) == set(splits["folds"][0]) and len(splits["folds"]) == 3
    assert set(content["labelled_cases"]) <= {*splits["folds"][1], *splits["folds"][2]}
    assert (content["seed"], content["fold"], content["draw"]) == (0, 0, 0)
    config = json.loads((run / "config.json").read_text())
    assert config["provenance"]["torch"] and config["identity"]["encoder"]["task"] == "rotation"
    assert (run.parents[3] / "pretrain/rotation/seed0/encoder.pt").exists()


def test_a_second_start_repeats_nothing_and_other_scope_reuses(trial_3d: Trial,
                                                               tmp_path: Path) -> None:
    trial_3d.copy(tmp_path)
    result = trial_3d.run(tmp_path)
    assert result.returncode == 0 and "5 done, 0 to do" in result.stdout
    result = trial_3d.run(tmp_path, "--fractions", 50, "--threads", 2)
    assert result.returncode == 0 and "3 done, 0 to do" in result.stdout
    assert numbers(tmp_path) == numbers(trial_3d.folder)


def test_a_changed_constant_stops_and_rerun_sets_old_runs_aside(trial_3d: Trial,
                                                                tmp_path: Path) -> None:
    trial_3d.copy(tmp_path)
    changed = ["--tasks", "baseline", "--finetune-epochs", 4]
    result = trial_3d.run(tmp_path, *changed)
    assert result.returncode == 2 and "FINETUNE_EPOCHS: 3 -> 4" in result.stderr
    assert len(result.lines) == 1 and "--rerun" in result.stderr
    result = trial_3d.run(tmp_path, *changed, "--rerun")
    assert result.returncode == 0, result.stderr
    run = trial_3d.runs(tmp_path) / "finetune/baseline/fraction050/seed0"
    old, new = (json.loads((folder / "scores.json").read_text())["steps"]
                for folder in (run.with_name("seed0.old-1"), run))
    assert (old, new) == (6, 8)


@pytest.mark.parametrize(("flags", "message"), [
    (["--resolution", "18"], "must be divisible by 4"),
    (["--resolution", "16", "--levels", "3", "--tasks", "baseline", "jigsaw"], "views of jigsaw"),
    (["--fractions", "0"], "a percentage from 1 to 100"),
    (["--fractions", "101"], "a percentage from 1 to 100"),
    (["--pretext-epochs", "-1"], "at least 1"),
    (["--warmup-epochs", "3"], "smaller than FINETUNE_EPOCHS"),
    (["--tasks", "baseline", "rotatoin"], "did you mean 'rotation'"),
    (["--tasks", "baseline", "baseline"], "given twice"),
    (["--seeds", "0", "0"], "given twice"),
    (["--finetune-epoch", "3"], "did you mean --finetune-epochs"),
    (["--batch-size", "many"], "invalid int value"),
    (["--batch-size", "1"], "at least 2"),
    (["--intensity", "log"], "percentile or minmax"),
    (["--precision", "bfloat16"], "non-finite"),
    (["--device", "tpu"], "expected auto"),
    (["--data", "/nowhere/Task00_None"], "no such folder"),
])
def test_bad_flags_are_one_line_and_status_2(flags: list[str], message: str, trial_3d: Trial,
                                             tmp_path: Path) -> None:
    result = trial_3d.run(tmp_path, *flags)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert len(result.lines) == 1
    assert not (tmp_path / "results").exists()


def test_from_a_shell_too_a_bad_flag_is_one_line_and_status_2(trial_3d: Trial,
                                                              tmp_path: Path) -> None:
    result = shell("3d/exp.py", *trial_3d.flags(tmp_path, "--finetune-epoch", 3))
    assert result.returncode == 2 and result.lines[0].startswith("error: unknown flag")
    assert len(result.lines) == 1 and not (tmp_path / "results").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_asked_for_where_there_is_none_is_one_line(trial_3d: Trial, tmp_path: Path) -> None:
    result = trial_3d.run(tmp_path, "--device", "cuda")
    assert result.returncode == 2 and "--device cpu" in result.stderr
    assert len(result.lines) == 1


def test_a_set_without_any_foreground_is_one_line(trial_3d: Trial, tmp_path: Path) -> None:
    data = tmp_path / trial_3d.data.name
    shutil.copytree(trial_3d.data, data)
    for file in (data / "labelsTr").glob("[!.]*.nii.gz"):
        label = nib.load(file)
        nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), file)
    result = trial_3d._replace(data=data).run(tmp_path)
    assert result.returncode == 2 and "no label map has any foreground" in result.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_days_on_a_cpu_have_to_be_asked_for(trial_3d: Trial, tmp_path: Path) -> None:
    result = trial_3d.run(tmp_path, "--finetune-epochs", 10**8, "--device", "auto",
                          "--validations", 2)
    assert result.returncode == 2 and "--device cpu" in result.lines[-1]
    assert not list(tmp_path.rglob("config.json"))


def test_graph_draws_what_is_there_without_torch(trial_3d: Trial, tmp_path: Path) -> None:
    trial_3d.copy(tmp_path)
    result = shell("3d/graph.py", "--results", tmp_path / "results", program=WITHOUT_TORCH)
    assert result.returncode == 0, result.stderr
    drawn = tmp_path / "results/train_ctphantom"
    table = drawn.with_suffix(".md").read_text()
    assert "generated data" in table and "| task | 50 % (3) | 100 % (6) |" in table
    assert "| rotation | accuracy | 0 |" in table  # pretext accuracy
    saved = table.partition("## Labels saved")[2].partition("##")[0]
    assert "| rotation | " in saved and "none under 3 seeds | 0 | 50 100 |" in saved
    for name in ("train", "learning", "examples", "views", "difference"):
        looks_drawn(drawn.with_name(f"{name}_ctphantom.png"))


def test_graph_without_records_says_where_it_looked(tmp_path: Path) -> None:
    result = call("3d/graph.py", "--results", tmp_path)
    assert result.returncode == 2 and str(tmp_path) in result.stderr
    assert len(result.lines) == 1


def test_bench_probe_fits_voxels_of_frozen_encoders(trial_3d: Trial) -> None:
    said = call("bench/probe.py", "3d", "--", *trial_3d.flags(trial_3d.folder))
    assert said.returncode == 0, said.stderr
    rows = {line.split()[1]: line.split(" | ") for line in said.stdout.splitlines()[-2:]}
    assert rows["baseline"][3] == "0.000 |" and rows["rotation"][3] != "0.000 |"
    assert all(0 <= float(row[1]) == float(row[2]) <= 1 for row in rows.values())
