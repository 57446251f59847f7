"""Records of runs: logs cut at an epoch, folders set aside, what has changed, and by how much."""

import json
from pathlib import Path

import pytest

from common import files, settings
from common.errors import InputError
from common.runs import records
from common.runs.records import Run

IDENTITY = {"stage": "finetune", "task": "rpl", "settings": {"RESOLUTION": 32},
            "encoder": {"seed": 0, "weights": "w"}}


def made(folder: Path) -> Run:
    run = Run(folder / "finetune/rpl/fraction005/seed0", IDENTITY)
    run.start({"commit": "c", "host": "h"})
    return run


def test_a_torn_line_of_a_log_is_cut_off(tmp_path: Path) -> None:
    run = made(tmp_path)
    (run.folder / "log.jsonl").write_text(
        '{"epoch": 1}\n{"epoch": 2, "val": {}}\n{"epoch": 3}\n{"ep')
    run.cut_log("log", 2)
    assert [line["epoch"] for line in records.read_log(run.folder)] == [1, 2]


def test_a_run_is_done_when_its_scores_are_those_of_its_identity(tmp_path: Path) -> None:
    run = made(tmp_path)
    assert run.name == "finetune/rpl/fraction005/seed0" and not run.done() and not run.changes()
    (run.folder / "last.pt").write_text("state")
    run.finish({"stage": "finetune"})
    assert run.done() and not (run.folder / "last.pt").exists()
    other = Run(run.folder, {**IDENTITY, "settings": {"RESOLUTION": 64}})
    assert other.changes() == ["RESOLUTION: 32 -> 64"] and not other.done()
    encoder = Run(run.folder, {**IDENTITY, "encoder": {"seed": 0, "weights": "v"}})
    assert encoder.changes() == ["encoder.weights: w -> v"]
    unknown = Run(run.folder, {**IDENTITY, "encoder": {"seed": 0}})
    assert not unknown.changes()  # known once the encoder is trained again, if it has to be
    other.start({})
    assert run.stored() == IDENTITY  # the identity is that of the first start


def test_what_is_set_aside_never_overwrites_what_was(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        run = made(tmp_path)
        (run.folder / "note").write_text(str(number))
        assert run.set_aside().name == f"seed0.old-{number}" and not run.folder.exists()
    kept = sorted(tmp_path.rglob("note"))
    assert [path.read_text() for path in kept] == ["1", "2", "3"]
    made(tmp_path).finish({"stage": "finetune"})
    assert len(records.read_runs(tmp_path, "finetune")) == 1


def test_differences_are_named_by_their_place() -> None:
    old, new = {"a": 1, "b": {"c": [1], "d": 2}}, {"a": 1, "b": {"c": [2]}, "e": 5}
    assert files.differences(old, new) == ["b.c: [1] -> [2]", "b.d: 2 -> None", "e: None -> 5"]
    assert files.differences(old, json.loads(json.dumps(old))) == []
    assert files.differences({"f": {"g": 1}}, {}) == ["f.g: 1 -> None"]  # part by part, no dump
    assert files.differences({"f": None}, {"f": {}}) == ["f: None -> {}"]


def test_a_constant_added_since_at_what_all_runs_had_is_no_difference() -> None:
    for share, said in ((1.0, []), (0.2, ["AUGMENT_SHARE: None -> 0.2"])):
        old, new = {"settings": {"LR": 1}}, {"settings": {"LR": 1, "AUGMENT_SHARE": share}}
        assert files.differences(old, new) == said
        assert files.differences(new, old) == [one.replace("None -> 0.2", "0.2 -> None")
                                               for one in said]
    other = {"settings": {"LR": 1, "AUGMENT_SHARE": 0.2}}
    assert files.differences(new | {"settings": {"LR": 1, "AUGMENT_SHARE": 1.0}}, other) == [
        "AUGMENT_SHARE: 1.0 -> 0.2"]
    assert files.differences({"LR": 1.0}, {}) == ["LR: 1.0 -> None"]
    assert files.digest({"a": 1, "b": 2}) == files.digest({"b": 2, "a": 1}) != files.digest(
        {"a": 1, "b": 3})


def test_validations_are_read_in_order_and_a_torn_log_is_named(tmp_path: Path) -> None:
    run = made(tmp_path)
    assert records.validations(run.folder, "dice") == []
    for step, value in ((3, 0.5), (6, None), (9, 0.7)):
        run.log("log", {"epoch": step, "step": step, "val": {"dice": value}})
        run.log("log", {"epoch": step, "step": step, "loss": 0.1})
    assert records.validations(run.folder, "dice") == [(3, 0.5), (9, 0.7)]
    run.log("time", {"epoch": 3, "seconds": 1.5})
    run.log("time", {"epoch": 6, "seconds": 2.25})
    run.finish({"stage": "finetune", "metric": "dice"})
    found = records.read(tmp_path)
    assert found.dataset == tmp_path.name and found.splits == found.plan == {}
    assert found.pretrain == []
    assert found.finetune == [{
        "stage": "finetune", "metric": "dice", "identity": IDENTITY, "seconds": 3.75,
        "provenance": {"commit": "c"}, "validations": {"dice": [(3, 0.5), (9, 0.7)]},
        "digest": files.digest(run.scores())}]
    with (run.folder / "log.jsonl").open("a") as file:
        file.write("{")
    with pytest.raises(InputError, match="not one JSON record a line"):
        records.read_log(run.folder)


def test_the_frozen_phase_is_a_share_of_the_epochs_or_what_is_given() -> None:
    for given, share, epochs, expected in ((None, 1 / 16, 150, 9), (None, 3 / 20, 20, 3),
                                           (4, 1 / 16, 150, 4), (0, 1 / 16, 150, 0)):
        assert settings.warmup_epochs(settings.Settings(
            WARMUP_EPOCHS=given, WARMUP_SHARE=share, FINETUNE_EPOCHS=epochs)) == expected
