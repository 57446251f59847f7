"""Who trains which run: nothing is written into another's, failures are tried again rightly."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common import files
from common.data import cache, splits
from common.data.splits import Splits
from common.errors import InputError, RunFailed
from common.runs.records import Run
from common.schedule import announce, grid, mending
from common.schedule import workers as crew
from common.schedule.plan import Job

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def run_of(folder: Path, stage: str, name: str, **more: Any) -> Run:
    parts = [stage, name, *(["fraction100"] if stage == "finetune" else []), "seed0"]
    return Run(folder.joinpath(*parts), {"stage": stage, "task": name, "seed": 0, **more})


def finish(run: Run, **scores: Any) -> Run:
    run.start({})
    run.finish({"stage": run.identity["stage"], **scores})
    return run


def job_of(run: Run, needs: Run | None = None) -> Job:
    return Job(lambda: run, None if needs is None else lambda: needs, 10, 100.0,
               run.identity["stage"] == "finetune")


Events = list[tuple[str, str, Any]]


def share(jobs: list[Job], trains: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Events:
    """What a process that shares the runs ``jobs`` tells."""
    told: Events = []
    trained_by(trains, monkeypatch)
    study: Any = SimpleNamespace(settings=SimpleNamespace(THREADS=1, RANKS_PER_RUN=1,
                                                          TRACK="none"))
    crew.Worker(study, lambda _: jobs, CPU, told.append).work()
    return told


def trained_by(trains: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``trains`` take the place of training a run."""
    monkeypatch.setattr(crew, "_set_up", lambda study, device: None)
    monkeypatch.setattr(crew.devices, "described", lambda device: {})
    monkeypatch.setattr(crew, "load_cases", lambda study, device: "cases")
    monkeypatch.setattr(crew, "train", lambda study, run, cases, report: trains(run, report))


def run_all(study: Any, places: list[torch.device], workers: int,
            monkeypatch: pytest.MonkeyPatch) -> int:
    """grid.run() without what is said before and drawn after."""
    monkeypatch.setattr(grid, "begin", lambda *_: None)
    monkeypatch.setattr(grid.snapshots, "save", lambda *_: None)
    return grid.run(study, places, workers)


def test_a_run_begun_with_other_settings_is_left_as_it_is(tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = run_of(tmp_path, "pretrain", "rotation", settings={"PRETEXT_LR": 2})
    theirs.start({})
    ours = run_of(tmp_path, "pretrain", "rotation", settings={"PRETEXT_LR": 1})
    arm = run_of(tmp_path, "finetune", "rotation")
    other = run_of(tmp_path, "finetune", "baseline")
    before = sorted(path.name for path in theirs.folder.iterdir())

    def trains(run: Run, report: Callable[[int], None]) -> str:
        finish(run)
        return "trained"
    told = share([job_of(ours), job_of(arm, ours), job_of(other)], trains, monkeypatch)
    assert sorted(path.name for path in theirs.folder.iterdir()) == before  # no failed.json
    failed = [what for kind, _, what in told if kind == "failed"]
    assert len(failed) == 1 and "PRETEXT_LR: 2 -> 1" in failed[0] and "--rerun" in failed[0]
    assert other.done() and not arm.done()  # and the process has ended, without what it lacks


def test_what_a_killed_save_left_is_collected(tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, "finetune", "baseline")
    run.start({})
    for name in (".last.pt.4711", ".scores.json.k3j", "last.pt"):
        (run.folder / name).write_text("half")
    seen = []

    def trains(run: Run, report: Callable[[int], None]) -> str:
        seen.extend(sorted(path.name for path in run.folder.iterdir()))
        finish(run)
        return ""
    share([job_of(run)], trains, monkeypatch)
    assert seen == ["config.json", "last.pt"]


def test_progress_tells_resumed_done_and_saved_steps_apart(tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, "finetune", "baseline")

    def trains(run: Run, report: Callable[[int], None]) -> str:
        for steps in (4, 2, 1):  # resumed, then done
            report(steps)
        finish(run)
        return "trained"
    told = share([job_of(run)], trains, monkeypatch)  # 10 steps are 100 of work
    assert [(kind, what) for kind, _, what in told[:-1]] == [("skip", 40.0), ("work", 20.0),
                                                            ("work", 10.0), ("skip", 30.0)]
    assert told[-1][0] == "done"


def test_a_stop_and_the_next_start_say_the_same_share_of_the_whole_study(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, begun, new, other, bad = (run_of(tmp_path, "finetune", name) for name in (
        "done", "begun", "new", "other", "bad"))
    jobs = [replace(job_of(run), epochs=5) for run in (finish(done), begun, new, other, bad)]
    assert announce._states(jobs, 1) == "1 done, 4 to do; 20 % of the work is done"
    bad.start({})
    (bad.folder / "last.pt").write_text("half")  # begins anew
    other.start({})
    torch.save({"state": {"epoch": 5}}, other.folder / "last.pt")
    jobs[3] = job_of(run_of(tmp_path, "finetune", "other", settings=1))  # not with these settings
    assert [job.behind() for job in jobs] == [100.0, 0.0, 0.0, 0.0, 0.0]

    def trains(run: Run, report: Callable[[int], None]) -> str:
        report(0)
        for epoch in (1, 2, 3):  # 2 of 10 steps each
            report(2)
            if epoch == 2:
                torch.save({"state": {"epoch": epoch}}, run.folder / "last.pt")
        raise KeyboardInterrupt
    trained_by(trains, monkeypatch)
    study: Any = SimpleNamespace(settings=SimpleNamespace(THREADS=1, RANKS_PER_RUN=1,
                                                          TRACK="none"))
    jobs = jobs[:3]
    with pytest.raises(KeyboardInterrupt, match="47 % .6 % since the last checkpoints .*; finet"):
        crew.work_off(study, lambda _: jobs, [CPU], 1)  # 100 and 40 of 300; 60 made
    assert announce._states(jobs, 1) == "1 done, 1 begun, 1 to do; 47 % of the work is done"
    assert [job.behind() for job in jobs] == [100.0, 40.0, 0.0]
    finish(begun), finish(new)
    assert announce._states(jobs, 3) == "3 done, 0 to do"


@pytest.mark.parametrize(("workers", "tries"), [(2, 2), (1, 1)])
def test_out_of_memory_beside_another_run_is_tried_once_more_alone(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
        workers: int, tries: int) -> None:
    large, bad = (run_of(tmp_path, "finetune", name) for name in ("large", "bad"))
    made: list[int] = []

    def trains(run: Run, report: Callable[[int], None]) -> str:
        if run is bad:
            raise RunFailed("bad: the loss is not finite")
        made.append(current[0])
        if current[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finish(run)
        return ""
    current = [1]
    monkeypatch.setattr(grid, "plan", lambda study: jobs)
    trained_by(trains, monkeypatch)
    jobs = [job_of(large), job_of(bad)]

    def in_turn(study: Any, jobs_of: Any, places: Any, at_once: int, progress: Any) -> None:
        current[0] = at_once
        crew.Worker(study, jobs_of, CPU, progress.put).work()
    monkeypatch.setattr(crew, "_share", in_turn)
    study: Any = SimpleNamespace(settings=SimpleNamespace(THREADS=1, RANKS_PER_RUN=1, PLAN=False,
                                                          TUNE=False, TRACK="none"),
                                 folder=tmp_path)
    assert run_all(study, [GPU], workers, monkeypatch) == 1  # the bad one
    said = capsys.readouterr()
    assert large.done() and made == [2, 1][-tries:]
    assert said.err.count("failed: bad") == 1 and "large: out of GPU memory" not in said.err.split(
        "failed:")[-1]
    assert ("each alone" in said.out) == (workers > 1)


def test_only_encoders_that_an_unfinished_run_needs_are_made_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(mending, "encoder_damage", lambda run: f"{run.encoder}: missing")
    needed, idle = (finish(run_of(tmp_path, "pretrain", name)) for name in ("needed", "idle"))
    jobs = [job_of(needed), job_of(idle),
            job_of(run_of(tmp_path, "finetune", "needed"), needed),
            job_of(finish(run_of(tmp_path, "finetune", "idle")), idle)]
    mending.mend(jobs)
    assert idle.done() and not needed.done()
    assert needed.folder.with_name("seed0.old-1").exists()
    assert "idle" not in capsys.readouterr().err


def test_files_set_aside_are_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    for name in ("splits.json.old-1", "splits.json.old-3"):
        (tmp_path / name).write_text(name)
    for text in ("second", "fourth"):
        path.write_text(text)
        files.set_aside(path)
    kept = {one.name: one.read_text() for one in tmp_path.iterdir()}
    assert kept == {"splits.json.old-1": "splits.json.old-1", "splits.json.old-2": "second",
                    "splits.json.old-3": "splits.json.old-3", "splits.json.old-4": "fourth"}


@pytest.mark.parametrize(("edit", "message"), [
    ({"rest": ["a", "b", "c", "e"]}, "listed twice"), ({"val": "cd"}, "not the splits"),
    ({"folds": []}, "not the splits"), ({"folds": [["e", "f"], ["g"]]}, "not the splits"),
    ({"folds": [["e", "f"], ["a", "c"]], "rest": []}, "listed twice"), ({"rest": ["a"]}, "two or"),
    ({"folds": [["e", "zzz"]]}, "zzz: no labelled"), ({"val": []}, "two or more"),
    ({"seed": None}, "SPLIT_SEED"),
    ({"folds": [[["e"], "f"]]}, "no labelled case"),
    ({"folds": [["c", "d"]], "val": ["e", "f"], "digest": True}, "edited since it was made")])
def test_a_hand_edited_splits_file_is_one_line(tmp_path: Path, edit: dict[str, Any],
                                               message: str) -> None:
    parts = Splits(0, ["c", "d"], [["e", "f"]], ["a", "b"])
    content = {**parts.to_json(), "contents": dict.fromkeys("abcdef", "x")}
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({**content, **edit, **(
        {"digest": files.digest(parts.to_json())} if "digest" in edit else {})}))
    with pytest.raises(InputError, match=message) as caught:
        splits._read_or_write(path, parts, content, rerun=False)
    assert "\n" not in str(caught.value) and "splits.json" in str(caught.value)


def test_a_script_without_a_main_guard_is_told_so(monkeypatch: pytest.MonkeyPatch,
                                                  tmp_path: Path) -> None:
    # A spawned worker imports its parent's script again; there it would wait for its parent's lock.
    monkeypatch.setattr(cache, "current_process", lambda: SimpleNamespace(_inheriting=True))
    with pytest.raises(InputError, match='if __name__ == "__main__":'):
        how = cache.Preprocessing(lambda source: (_ for _ in ()).throw(KeyError), {}, (1, 2),
                                  float, label_maps=False)
        cache.build([], tmp_path, how, workers=1)


def test_no_more_workers_than_runs_that_are_left(tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    done, due = finish(run_of(tmp_path, "finetune", "a")), run_of(tmp_path, "finetune", "b")
    monkeypatch.setattr(grid, "plan", lambda study: [job_of(done), job_of(due)])
    monkeypatch.setattr(crew, "multiprocessing", None)  # no processes for one run
    monkeypatch.setattr(crew, "Worker", lambda *_: SimpleNamespace(
        work=lambda: started.append(1) or finish(due)))
    study: Any = SimpleNamespace(folder=tmp_path, settings=SimpleNamespace(
        PLAN=False, TUNE=False, TRACK="none"))
    for _ in range(2):  # the second time nothing is left: none is started
        assert run_all(study, [CPU], 8, monkeypatch) == 0 and started == [1]
