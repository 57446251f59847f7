"""One run over several ranks gives the numbers of one process, and never hangs."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from commands import Child, Result, Trial, forked, until

TRAINED = ["3d/segmentation", "3d/checkpointing", "2d/grading", "3d/exemplar", "2d/exemplar",
           "3d/rotation", "2d/exemplar+rotation@stages", "3d/cpc"]
CLOSE = 5e-5  # rounding, which depends on the processor: 1e-5 holds on some only


def over(count: int, folder: Path, job: Any) -> Result:
    """Do a job in a number of ranks, which are forks here; the time limit would tell of a hang."""
    return Child(partial(ranks.over, count, job), folder, change=forked).wait()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ranks")
    for count in (1, 2):
        job = partial(ranks.train_all, TRAINED, folder / str(count))
        result = over(count, folder, job)
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
    result = over(2, tmp_path, partial(ranks.go_on, tmp_path))
    assert result.returncode == 1 and "RunFailed: broken off" in result.stderr
    result = over(2, tmp_path, partial(ranks.go_on, tmp_path))
    assert result.returncode == 0 and "gone on" in result.stdout, result.stderr
    both = torch.load(tmp_path / "both.pt")
    assert both["parts"]["log"] == both["whole"]["log"] and len(both["whole"]["log"]) == 7
    for key, weight in both["whole"]["weights"].items():
        assert torch.equal(weight, both["parts"]["weights"][key])


@pytest.mark.parametrize(("how", "said"), [
    ("killed", "RunFailed: a rank was ended by signal 9"), ("failed", "RunFailed: run: not finite"),
    pytest.param("broken", "KeyError: 'a defect'", marks=pytest.mark.slow)])
def test_a_rank_that_fails_ends_the_others(tmp_path: Path, how: str, said: str) -> None:
    result = over(2, tmp_path, partial(ranks.fail, how))
    assert result.returncode == 1 and said in result.stderr, result.stderr
    assert "never" not in result.stdout


ONE = ["--tasks", "baseline", "--fractions", "100"]


def test_exp_trains_its_runs_over_ranks_and_says_so(trial_3d: Trial, tmp_path: Path) -> None:
    result = trial_3d.start(tmp_path, *ONE, "--ranks-per-run", 2, "--workers", 2, "--seeds", 0, 1,
                            change=forked).wait()
    assert result.returncode == 0, result.stderr
    assert "2 runs at a time, 2 ranks a run" in result.stdout
    runs = sorted(path.parent for path in tmp_path.rglob("scores.json"))
    assert len(runs) == 2
    for run in runs:
        assert json.loads((run / "config.json").read_text())["identity"]["ranks"] == 2
        epochs = [json.loads(line)["epoch"] for line in
                  (run / "time.jsonl").read_text().splitlines()]
        assert epochs == [1, 2, 3, 3]  # the records of one rank; the last of the test
    other = trial_3d.run(tmp_path, *ONE)
    assert other.returncode == 2 and "ranks: 2 -> None" in other.stderr


def test_more_ranks_than_cases_in_a_batch_is_one_line(trial_3d: Trial, tmp_path: Path) -> None:
    result = trial_3d.run(tmp_path, *ONE, "--ranks-per-run", 5)
    assert result.returncode == 2 and "RANKS_PER_RUN = 5" in result.lines[-1]


def test_ranks_end_with_a_killed_command(trial_3d: Trial, tmp_path: Path) -> None:
    child = trial_3d.start(tmp_path, *ONE, "--ranks-per-run", 2, "--finetune-epochs", 5000)
    until(lambda: list(tmp_path.rglob("log.jsonl")))
    assert len(child.alive()) >= 3
    child.kill()
    until(lambda: not child.alive(), within=30)
