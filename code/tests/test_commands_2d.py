"""Both user commands of the 2D tree in a subprocess; what differs from 3D (test_commands_3d.py)."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

CODE = Path(__file__).resolve().parents[1]
TINY = ["--resolution", "32", "--blocks", "1", "1", "1", "1", "--growth", "4", "--batch-size", "4",
        "--pretext-epochs", "2", "--finetune-epochs", "3", "--warmup-epochs", "1",
        "--validations", "2", "--device", "cpu", "--workers", "1", "--fractions", "50", "100",
        "--seeds", "0", "--tasks", "baseline", "rotation"]


def call(script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, str(CODE / "2d" / script), *map(str, arguments)],
                          capture_output=True, text=True, check=False, cwd="/")


def scores(results: Path) -> dict[str, str]:
    return {str(path.relative_to(results)): path.read_text()
            for name in ("scores.json", "log.jsonl") for path in results.rglob(name)}


@pytest.fixture(scope="module")
def finished(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exp")
    result = call("exp.py", "--data", photographs, "--results", folder / "results",
                  "--cache", folder / "data", *TINY)
    assert result.returncode == 0, result.stderr
    for said in ("test cases in the pretraining pool: 0", "5: 1 pretraining, 4 finetuning",
                 "14 train, 2 validation, 4 test", "16 cases to pretrain on"):
        assert said in result.stdout
    return folder


def test_records_hold_kappa_accuracy_and_the_confusion_matrix(finished: Path) -> None:
    run = finished / "results/2d/fundusphantom/finetune/rotation/fraction050/seed0"
    content = json.loads((run / "scores.json").read_text())
    assert {"kappa", "accuracy", "confusion"} <= content["test"].keys()
    assert len(content["cases"]) == 4 == sum(map(sum, content["test"]["confusion"]))
    right = sum(case["truth"] == case["predicted"] for case in content["cases"].values())
    assert content["test"]["accuracy"] == right / 4
    assert content["generated"] is True and content["labelled"] == 7


def test_a_second_start_repeats_nothing_and_two_workers_agree(finished: Path, photographs: Path,
                                                              tmp_path: Path) -> None:
    before = scores(finished)
    given = ["--data", photographs, "--cache", finished / "data", *TINY]
    result = call("exp.py", *given, "--results", finished / "results")
    assert result.returncode == 0 and "5 done, 0 to do" in result.stdout
    result = call("exp.py", *given, "--results", tmp_path / "results", "--workers", 2)
    assert result.returncode == 0, result.stderr
    assert scores(tmp_path) == before == scores(finished)


def test_patch_tasks_name_the_smallest_resolution_that_serves(photographs: Path,
                                                              tmp_path: Path) -> None:
    for task in ("rpl", "jigsaw"):
        result = call("exp.py", "--data", photographs, "--results", tmp_path / "r", *TINY,
                      "--tasks", "baseline", task)
        assert result.returncode == 2 and "--resolution 96" in result.stderr
    result = call("exp.py", "--data", photographs, "--results", tmp_path / "r", *TINY,
                  "--resolution", 28)
    assert result.returncode == 2 and "--resolution 29" in result.stderr


@pytest.mark.parametrize(("flags", "message"), [
    (["--grades", "1"], "at least 2"), (["--grades", "3"], "expected; correct the row"),
    (["--blocks", "1", "1"], "four numbers"), (["--augment-zoom", "1"], "below 1"),
    (["--grade-column", "level"], "no column level"), (["--data", "/nowhere"], "no such folder"),
    (["--tasks", "baseline", "examplar"], "did you mean 'exemplar'"),
])
def test_bad_flags_are_one_line_and_status_2(flags: list[str], message: str, photographs: Path,
                                             tmp_path: Path) -> None:
    result = call("exp.py", "--data", photographs, "--results", tmp_path / "r", "--cache",
                  tmp_path / "c", *TINY, *flags)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_graph_draws_what_is_there_without_torch(finished: Path) -> None:
    program = ("import sys, runpy; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
               "runpy.run_path(sys.argv[0], run_name='__main__')")
    command = [sys.executable, "-c", program, str(CODE / "2d/graph.py"), "--results",
               str(finished / "results")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    drawn = finished / "results/train_fundusphantom"
    assert drawn.with_suffix(".png").stat().st_size > 20000
    table = drawn.with_suffix(".md").read_text()
    assert "Quadratic-weighted kappa" in table and "| rotation | 50 % | 7 | 0 |" in table
    assert "generated data" in table and "Confusion" in table
    for name in ("learning", "examples", "views"):
        assert (drawn.parent / f"{name}_fundusphantom.png").stat().st_size > 10000


def test_published_records_draw_the_same_figures(finished: Path, tmp_path: Path) -> None:
    records = finished / "results/2d/fundusphantom"
    result = call("graph.py", "--records", records, "--results", tmp_path / "a", "--publish", "x")
    assert result.returncode == 0, result.stderr
    copied = tmp_path / "a/published/fundusphantom-x"
    assert not [*copied.rglob("*.pt"), *copied.rglob("*.npz")]
    config = json.loads(next(copied.rglob("config.json")).read_text())
    assert "host" not in config["provenance"] and config["identity"]
    (copied / "finetune/left/over").mkdir(parents=True)
    again = call("graph.py", "--records", records, "--results", tmp_path / "a", "--publish", "x")
    assert again.returncode == 0 and not (copied / "finetune/left").exists()
    for note, message in (("../up", "letters, digits"), ("a/b", "letters, digits")):
        result = call("graph.py", "--records", records, "--results", tmp_path, "--publish", note)
        assert result.returncode == 2 and message in result.stderr
    result = call("graph.py", "--records", copied, "--results", tmp_path / "a", "--publish", "x")
    assert result.returncode == 2 and "another --publish NOTE" in result.stderr
    with np.load(records / "examples.npz") as saved:
        assert len(saved["ids"]) == 4 and saved["images"].shape[1:] == (32, 32, 3)
    for name in ("examples.npz", "views.npz"):  # images: they stay with who has them
        (copied / name).write_bytes((records / name).read_bytes())
    result = call("graph.py", "--records", copied, "--results", tmp_path / "b")
    assert result.returncode == 0, result.stderr
    names = sorted(path.name for path in (tmp_path / "b").iterdir())
    assert len(names) == 7 and names == sorted(p.name for p in (tmp_path / "a").glob("*_*"))
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    (copied / "examples.npz").write_bytes(b"no zip")
    result = call("graph.py", "--records", copied, "--results", tmp_path / "b")
    assert result.returncode == 2 and "examples.npz: not readable" in result.stderr


def test_bench_protocol_finetunes_the_same_encoders_in_three_ways(photographs: Path,
                                                                  tmp_path: Path) -> None:
    results = tmp_path / "results"
    given = ["2d", "--", *TINY, "--data", photographs, "--cache", tmp_path / "data",
             "--results", results]
    said = call("../bench/protocol.py", *given)
    assert said.returncode == 0, said.stderr
    rows = [line.split(" | ") for line in said.stdout.splitlines()
            if line.count("|") == 7 and "% |" in line]
    assert len(rows) == 3 * 2 * 2 and all(-1 <= float(row[3].split()[0]) <= 1 for row in rows)
    folders = [results / name / "2d/fundusphantom"
               for name in ("", "protocol-steps", "protocol-steps-slow")]
    encoders = {(folder / "pretrain/rotation/seed0/encoder.pt").read_bytes() for folder in folders}
    assert len(encoders) == 1
    runs = [folder / "finetune/rotation/fraction050/seed0" for folder in folders]
    assert [json.loads((run / "scores.json").read_text())["steps"] for run in runs] == [12, 6, 6]
    weights = [torch.load(run / "best.pt", weights_only=True) for run in runs]
    assert weights[1].keys() == weights[2].keys()
    assert any(not torch.equal(weights[1][name], weights[2][name]) for name in weights[1]
               if "running" in name)
    said = call("../bench/protocol.py", *given, "--tasks", "rotation")
    assert said.returncode == 2 and said.stderr.startswith("error: --tasks: no baseline")


def test_bench_tries_changes_settings_and_reports_validation_only(photographs: Path,
                                                                  tmp_path: Path) -> None:
    results = tmp_path / "results"
    given = ["--", *TINY, "--data", photographs, "--cache", tmp_path / "data",
             "--results", results]
    said = call("../bench/tries.py", "2d", "--try", "encoder-lr=0",
                "--try", "pretext-lr=3e-3,validations=3", *given)
    assert said.returncode == 0, said.stderr
    rows = [line.split(" | ") for line in said.stdout.splitlines() if "% |" in line]
    assert len(rows) == 3 * 2 * 2
    folders = [results / name / "2d/fundusphantom" for name in
               ("", "tries/encoder-lr=0", "tries/pretext-lr=3e-3,validations=3")]
    given_, lent, own = (torch.load(folder / "pretrain/rotation/seed0/encoder.pt")
                         for folder in folders)
    same = [torch.equal(given_[name], lent[name]) for name in given_]
    assert all(same) and any(not torch.equal(given_[name], own[name]) for name in given_)
    run = "finetune/rotation/fraction050/seed0"
    plain, still = (torch.load(folder / run / "best.pt") for folder in folders[:2])
    weights = [name for name in plain if name.startswith("encoder.") and name.endswith("weight")]
    assert weights and all(torch.equal(still[name], given_[name.removeprefix("encoder.")])
                           for name in weights)
    assert any(not torch.equal(plain[name], still[name]) for name in weights)
    log = [json.loads(line) for line in (folders[2] / run / "log.jsonl").read_text().splitlines()]
    kappas = [line["val"]["kappa"] for line in log if "val" in line]
    row = next(row for row in rows if row[0].startswith("| pretext-lr") and row[2] == "rotation"
               and row[1] == "50 %")
    assert row[4:6] == [f"{np.mean(kappas[1:]):.3f}", f"{max(kappas):.3f}"]
    pretext = json.loads((folders[2] / "pretrain/rotation/seed0/scores.json").read_text())
    assert len(kappas) == 3 and row[3] == f"{pretext['score']['accuracy']:.2f}"
    said = call("../bench/tries.py", "2d", "--try", "encoder-lr=much", *given)
    assert said.returncode == 2 and "encoder-lr=much is not a number" in said.stderr
    said = call("../bench/tries.py", "2d", "--try", "pretxt-lr=1", *given)
    assert said.returncode == 2 and "did you mean --pretext-lr" in said.stderr


def test_bench_probe_reads_encoders_and_says_where_one_is_missing(finished: Path,
                                                                  photographs: Path) -> None:
    given = ["../bench/probe.py", "2d", "--", *TINY, "--data", photographs, "--cache",
             finished / "data", "--results", finished / "results"]
    said = call(*given)
    assert said.returncode == 0, said.stderr
    baseline, rotation = (line.split(" | ") for line in said.stdout.splitlines()
                          if line.startswith(("| baseline", "| rotation")))
    assert baseline[3] == "0.000 |" and 0 < float(rotation[3].split()[0]) < 1
    assert -1 <= float(baseline[1]) == float(baseline[2]) <= 1
    said = call(*given, "--seeds", "1")
    assert said.returncode == 2 and "seed1: no encoder trained with these settings" in said.stderr
