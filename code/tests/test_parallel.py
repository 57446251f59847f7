"""One run over several ranks gives the numbers of one process, and never hangs."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

CODE = Path(__file__).resolve().parents[1]
TRAINED = ["3d/segmentation", "3d/checkpointing", "2d/grading", "3d/exemplar", "2d/exemplar",
           "3d/rotation", "2d/exemplar+rotation@stages", "3d/cpc"]
CLOSE = 5e-5  # rounding, which depends on the processor: 1e-5 holds on some only


def ranks(count: int, out: Path, *what: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, str(CODE / "tests/ranks.py"), str(count), str(out),
                           *what], capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ranks")
    for count in (1, 2):
        result = ranks(count, folder / str(count), *TRAINED)
        assert result.returncode == 0, result.stderr
    return {name: torch.load(folder / name) for name in ("1.0", "2.0", "2.1")}


@pytest.mark.parametrize("name", TRAINED)
def test_two_ranks_give_the_losses_and_weights_of_one_process(made: dict[str, Any],
                                                              name: str) -> None:
    one, first, second = (made[key][name] for key in ("1.0", "2.0", "2.1"))
    assert len(one["log"]) == len(first["log"]) == 7 and one["log"][0]["loss"] > 0
    for line, other in zip(one["log"], first["log"], strict=True):
        assert line.keys() == other.keys() and line["step"] == other["step"]
        if "loss" in line:
            assert other["loss"] == pytest.approx(line["loss"], rel=CLOSE, abs=CLOSE)
        else:
            assert other["val"]["loss"] == pytest.approx(line["val"]["loss"], rel=CLOSE, abs=CLOSE)
    assert one["weights"].keys() == first["weights"].keys()
    for key, weight in one["weights"].items():
        torch.testing.assert_close(first["weights"][key], weight, rtol=CLOSE, atol=CLOSE)
        assert torch.equal(first["weights"][key], second["weights"][key])
    assert second["history"] == first["history"]  # patience ends all ranks at the same epoch


@pytest.mark.slow
def test_a_run_over_ranks_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    result = ranks(2, tmp_path, "go_on")
    assert result.returncode == 1 and "RunFailed: broken off" in result.stderr
    result = ranks(2, tmp_path, "go_on")
    assert result.returncode == 0 and "gone on" in result.stdout, result.stderr
    both = torch.load(tmp_path / "both.pt")
    assert both["parts"]["log"] == both["whole"]["log"] and len(both["whole"]["log"]) == 7
    for key, weight in both["whole"]["weights"].items():
        assert torch.equal(weight, both["parts"]["weights"][key])


@pytest.mark.parametrize(("how", "said"), [
    ("killed", "RunFailed: a rank was ended by signal 9"), ("failed", "RunFailed: run: not finite"),
    pytest.param("broken", "KeyError: 'a defect'", marks=pytest.mark.slow)])
def test_a_rank_that_fails_ends_the_others(tmp_path: Path, how: str, said: str) -> None:
    result = ranks(2, tmp_path / "out", "fail", how)  # its time limit would tell of a hang
    assert result.returncode == 1 and said in result.stderr, result.stderr
    assert "never" not in result.stdout


def exp(scans: Path, folder: Path, *more: object) -> list[str]:
    return [sys.executable, str(CODE / "3d/exp.py"), "--data", str(scans), "--results",
            str(folder / "results"), "--cache", str(folder / "data"), "--resolution", "16",
            "--levels", "1", "--filters", "2", "--pretext-epochs", "2", "--finetune-epochs", "2",
            "--validations", "2", "--device", "cpu", "--fractions", "100", "--seeds", "0",
            "--tasks", "baseline", *map(str, more)]


def test_exp_trains_its_runs_over_ranks_and_says_so(scans: Path, tmp_path: Path) -> None:
    result = subprocess.run(exp(scans, tmp_path, "--ranks-per-run", 2, "--workers", 2,
                                "--seeds", 0, 1), capture_output=True, text=True, check=False,
                            timeout=240)
    assert result.returncode == 0, result.stderr
    assert "2 runs at a time, 2 ranks a run" in result.stdout
    runs = sorted(path.parent for path in tmp_path.rglob("scores.json"))
    assert len(runs) == 2
    for run in runs:
        assert json.loads((run / "config.json").read_text())["identity"]["ranks"] == 2
        epochs = [json.loads(line)["epoch"] for line in
                  (run / "time.jsonl").read_text().splitlines()]
        assert epochs == [1, 2]  # the records of one rank
    other = subprocess.run(exp(scans, tmp_path, "--workers", 1), capture_output=True, text=True,
                           check=False)
    assert other.returncode == 2 and "ranks: 2 -> None" in other.stderr


def test_more_ranks_than_cases_in_a_batch_is_one_line(scans: Path, tmp_path: Path) -> None:
    result = subprocess.run(exp(scans, tmp_path, "--ranks-per-run", 5), capture_output=True,
                            text=True, check=False)
    assert result.returncode == 2 and "RANKS_PER_RUN = 5" in result.stderr.splitlines()[-1]


def test_ranks_end_with_a_killed_command(scans: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        exp(scans, tmp_path, "--ranks-per-run", 2, "--workers", 1, "--finetune-epochs", 5000),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(of_session(process.pid)) >= 3
    process.kill()
    process.wait()
    time.sleep(3)
    assert not of_session(process.pid)


def of_session(session: int) -> list[str]:
    """Living processes of a session."""
    table = subprocess.run(["ps", "-eo", "sid,stat,args"], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    return [line for line in table if line.split()[0] == str(session)
            and not line.split()[1].startswith("Z")]
