"""Both user commands in a subprocess, as from a shell."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

CODE = Path(__file__).resolve().parents[1]
TINY = ["--resolution", "16", "--levels", "1", "--filters", "2", "--pretext-epochs", "2",
        "--finetune-epochs", "2", "--validations", "2", "--device", "cpu", "--workers", "1",
        "--fractions", "50", "100", "--seeds", "0", "--tasks", "baseline", "rotation"]


def call(script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, str(CODE / "3d" / script), *map(str, arguments)],
                          capture_output=True, text=True, check=False, cwd="/")


def scores(results: Path) -> dict[str, str]:
    return {str(path.relative_to(results)): path.read_text()
            for name in ("scores.json", "log.jsonl") for path in results.rglob(name)}


@pytest.fixture(scope="module")
def finished(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exp")
    result = call("exp.py", "--data", scans, "--results", folder / "results",
                  "--cache", folder / "data", *TINY)
    assert result.returncode == 0, result.stderr
    for said in ("test cases in the pretraining pool: 0", "5: 1 pretraining, 4 finetuning",
                 "device    cpu, float32", "6 train, 2 validation, 2 test"):
        assert said in result.stdout
    return folder


def again(finished: Path, scans: Path, *more: object, results: Path | None = None
          ) -> "subprocess.CompletedProcess[str]":
    return call("exp.py", "--data", scans, "--results", results or finished / "results",
                "--cache", finished / "data", *TINY, *more)


def test_records_hold_what_the_figure_needs(finished: Path) -> None:
    run = finished / "results/3d/ctphantom/finetune/rotation/fraction050/seed0"
    assert {p.name for p in run.iterdir()} == {"config.json", "log.jsonl", "time.jsonl",
                                               "scores.json", "best.pt"}
    content = json.loads((run / "scores.json").read_text())
    assert {"dice", "dice_pancreas", "dice_tumour", "dice_paper"} <= content["test"].keys()
    assert content["last"].keys() == {"test", "val"} and len(content["cases"]) == 2
    assert (content["task"], content["fraction"], content["seed"], content["labelled"]) == (
        "rotation", 50, 0, 3)
    splits = json.loads((run.parents[3] / "splits.json").read_text())
    assert set(content["cases"]) == set(splits["test"])
    assert set(content["labelled_cases"]) <= set(splits["train"])
    config = json.loads((run / "config.json").read_text())
    assert config["provenance"]["torch"] and config["identity"]["encoder"]["task"] == "rotation"
    assert (run.parents[3] / "pretrain/rotation/seed0/encoder.pt").exists()


def test_a_second_start_repeats_nothing_and_other_scope_reuses(finished: Path, scans: Path) -> None:
    before = scores(finished)
    result = again(finished, scans)
    assert result.returncode == 0 and "5 done, 0 to do" in result.stdout
    result = again(finished, scans, "--fractions", 50, "--workers", "2", "--threads", "1")
    assert "3 done, 0 to do" in result.stdout
    assert scores(finished) == before


def test_two_workers_give_the_numbers_of_one(finished: Path, scans: Path, tmp_path: Path) -> None:
    result = again(finished, scans, "--workers", 2, results=tmp_path / "results")
    assert result.returncode == 0, result.stderr
    assert scores(tmp_path) == scores(finished)


def test_a_changed_constant_stops_and_rerun_sets_old_runs_aside(finished: Path, scans: Path,
                                                                tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert again(finished, scans, "--tasks", "baseline", results=results).returncode == 0
    changed = ["--tasks", "baseline", "--finetune-epochs", 3]
    result = again(finished, scans, *changed, results=results)
    assert result.returncode == 2 and "FINETUNE_EPOCHS: 2 -> 3" in result.stderr
    assert result.stderr.count("\n") <= 1 and "--rerun" in result.stderr
    result = again(finished, scans, *changed, "--rerun", results=results)
    assert result.returncode == 0, result.stderr
    kept = results / "3d/ctphantom/finetune/baseline/fraction050/seed0.old-1/scores.json"
    assert json.loads(kept.read_text())["steps"] != 0


@pytest.mark.parametrize(("flags", "message"), [
    (["--resolution", "18"], "must be divisible by 4"),
    (["--resolution", "16", "--levels", "3", "--tasks", "baseline", "jigsaw"], "views of jigsaw"),
    (["--fractions", "0"], "not a percentage"),
    (["--fractions", "101"], "not a percentage"),
    (["--pretext-epochs", "-1"], "at least 1"),
    (["--warmup-epochs", "2"], "smaller than FINETUNE_EPOCHS"),
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
def test_bad_flags_are_one_line_and_status_2(flags: list[str], message: str, scans: Path,
                                             tmp_path: Path) -> None:
    result = call("exp.py", "--data", scans, "--results", tmp_path / "r", "--cache",
                  tmp_path / "c", *TINY, *flags)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_asked_for_where_there_is_none_is_one_line(scans: Path, tmp_path: Path) -> None:
    result = call("exp.py", "--data", scans, "--results", tmp_path / "r", *TINY, "--device", "cuda")
    assert result.returncode == 2 and "--device cpu" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_set_without_any_foreground_is_one_line(scans: Path, tmp_path: Path) -> None:
    data = tmp_path / scans.name
    shutil.copytree(scans, data)
    for file in (data / "labelsTr").glob("[!.]*.nii.gz"):
        label = nib.load(file)
        nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), file)
    result = call("exp.py", "--data", data, "--results", tmp_path / "r", "--cache", tmp_path / "c",
                  *TINY)
    assert result.returncode == 2 and "no label map has any foreground" in result.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_days_on_a_cpu_have_to_be_asked_for(finished: Path, scans: Path) -> None:
    result = again(finished, scans, "--finetune-epochs", 10**8, "--device", "auto",
                   "--validations", 2, results=finished / "other")
    assert result.returncode == 2 and "--device cpu" in result.stderr.splitlines()[-1]
    assert not list((finished / "other").rglob("config.json"))


def test_graph_draws_what_is_there_without_torch(finished: Path) -> None:
    program = ("import sys, runpy; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
               "runpy.run_path(sys.argv[0], run_name='__main__')")
    command = [sys.executable, "-c", program, str(CODE / "3d/graph.py"), "--results",
               str(finished / "results")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    drawn = finished / "results/train_ctphantom"
    assert drawn.with_suffix(".png").stat().st_size > 20000
    table = drawn.with_suffix(".md").read_text()
    assert "generated data" in table and "| rotation | 50 % | 3 | 0 |" in table
    assert "| rotation | accuracy | 0 |" in table  # pretext accuracy
    saved = table.partition("## Labels saved")[2].partition("##")[0]
    assert "| rotation | " in saved and "none under 3 seeds | 0 | 50 100 |" in saved
    for name in ("learning", "examples", "views"):
        assert (drawn.parent / f"{name}_ctphantom.png").stat().st_size > 10000


def test_graph_without_records_says_where_it_looked(tmp_path: Path) -> None:
    result = call("graph.py", "--results", tmp_path)
    assert result.returncode == 2 and str(tmp_path) in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_bench_probe_fits_voxels_of_frozen_encoders(finished: Path, scans: Path) -> None:
    said = call("../bench/probe.py", "3d", "--", *TINY, "--data", scans, "--cache",
                finished / "data", "--results", finished / "results")
    assert said.returncode == 0, said.stderr
    rows = {line.split()[1]: line.split(" | ") for line in said.stdout.splitlines()[-2:]}
    assert rows["baseline"][3] == "0.000 |" and rows["rotation"][3] != "0.000 |"
    assert all(0 <= float(row[1]) == float(row[2]) <= 1 for row in rows.values())
