"""A run's identity holds whatever reaches its numbers, and nothing else."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import TINY

from common import files
from common.arms import ORACLE
from common.errors import InputError
from common.runs import checkpoint, encoders, records
from common.runs import study as study_module
from common.runs.stages import load_cases
from common.runs.study import Study
from common.schedule import grid
from common.settings import Settings, from_flags

CPU = torch.device("cpu")
ARMS = ["baseline", "rotation", "rotation@shuffled", "oracle"]


def study_of(script: ModuleType, data: Path, folder: Path, *more: object) -> Study:
    tree = Path(str(script.__file__)).parent.name
    settings = from_flags(vars(script), [*TINY[tree], "--tasks", *ARMS, "--data", str(data),
                                         "--results", str(folder / "r"), "--cache",
                                         str(folder / "c"), *map(str, more)])
    grid.check(settings, script.TREE)
    made: Study = script.make_study(settings, "float32", {})
    return made


@pytest.fixture(scope="module")
def study(script: ModuleType, scans: Path, photographs: Path,
          tmp_path_factory: pytest.TempPathFactory) -> Study:
    data = {"3d": scans, "2d": photographs}[Path(str(script.__file__)).parent.name]
    return study_of(script, data, tmp_path_factory.mktemp("study"))


def identities(study: Study) -> dict[str, Any]:
    return {"pretrain": study.pretrain_run("rotation", 0).identity,
            "oracle": study.pretrain_run(ORACLE, 0).identity,
            "baseline": study.finetune_run("baseline", 50, 0).identity,
            "arm": study.finetune_run("rotation", 50, 0).identity}


def changed(study: Study, other: Study) -> set[str]:
    before, after = identities(study), identities(other)
    return {name for name in before if files.digest(before[name]) != files.digest(after[name])}


def with_settings(study: Study, **values: Any) -> Study:
    return replace(study, settings=Settings(**{**vars(study.settings), **values}))


def with_digest(study: Study, case: str, place: int) -> Study:
    digests = {**study.cache.digests, case: [*study.cache.digests[case]]}
    digests[case][place] = "another"
    return replace(study, cache=replace(study.cache, digests=digests))


FINETUNED = {"oracle", "baseline", "arm"}


@pytest.mark.parametrize(("values", "expected"), [
    ({"BATCH_SIZE": 3}, FINETUNED), ({"FINETUNE_LR": 0.5}, FINETUNED),
    ({"FINETUNE_CLIP": 0.5}, FINETUNED), ({"EQUAL_STEPS": False}, FINETUNED),
    ({"NORM_MOMENTUM": 0.01}, FINETUNED), ({"PAPER": True}, set()),
    ({"VALIDATIONS": 3}, FINETUNED), ({"PRETEXT_LR": 0.5}, {"pretrain", "arm"}),
    ({"PRETEXT_PATIENCE": 3}, {"pretrain", "arm"}), ({"WARMUP_EPOCHS": 2}, {"arm"}),
    ({"START_LR_FACTOR": 0.5}, {"arm"}), ({"LAYOUT": "contiguous"}, {"pretrain", *FINETUNED}),
    ({"FOLDS": 7}, {"pretrain", *FINETUNED}), ({"DRAWS": 3}, set()),
    ({"PRIMARY": ["rotation", 50]}, set()), ({"SEEDS": [0, 1]}, set()),
    ({"TASKS": ["baseline"]}, set()), ({"WORKERS": 2}, set()),
    ({"DEVICE": "cuda:0"}, set()), ({"CHECKPOINTING": True}, set())])
def test_constants_change_the_runs_that_they_reach(study: Study, values: dict[str, Any],
                                                   expected: set[str]) -> None:
    assert changed(study, with_settings(study, **values)) == expected


def test_images_and_labels_change_the_runs_that_they_reach(study: Study) -> None:
    part, free = study.part(0), study.unlabelled[0]
    train, val, test = part.train[0], part.val[0], part.test[0]
    everything = {"pretrain", *FINETUNED}
    for case, place, expected in ((train, 0, everything), (val, 0, everything),
                                  (test, 0, FINETUNED | {"arm"}), (free, 0, {"pretrain", "arm"}),
                                  (train, 1, FINETUNED), (val, 1, FINETUNED),
                                  (test, 1, FINETUNED)):
        assert changed(study, with_digest(study, case, place)) == expected, (case, place)
    # A label changes no encoder: neither its own identity nor that in the arm's.
    other = with_digest(study, train, 1)
    assert identities(other)["arm"]["encoder"] == identities(study)["arm"]["encoder"]


def test_classes_channels_precision_and_version_are_in(study: Study,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    everything = {"pretrain", *FINETUNED}
    swapped = replace(study, classes=[*study.classes[1:], "another"])
    assert changed(study, swapped) == FINETUNED
    assert changed(study, replace(study, channels=["other"])) == everything
    assert changed(study, replace(study, precision="bfloat16")) == everything
    before = {name: files.digest(identity) for name, identity in identities(study).items()}
    monkeypatch.setattr(records, "NUMBERS", records.NUMBERS + 1)
    after = identities(replace(study))  # another object: identities are computed once a study
    assert all(files.digest(after[name]) != digest for name, digest in before.items())


def test_another_subset_of_the_same_cases_is_another_run(study: Study) -> None:
    seeds = [study.finetune_run("baseline", 50, seed).identity["labelled"] for seed in range(9)]
    assert len(set(seeds)) > 3  # few cases: some subsets are the same
    others = [replace(study, strata={case: (number + shift) % 2 for number, case in
                                     enumerate(study.part(0).train)}) for shift in range(2)]
    others += [replace(study, strata=dict.fromkeys(study.part(0).train, 0))]
    drawn = [other for other in others if other.labelled(50, 0) != study.labelled(50, 0)]
    assert drawn and all("baseline" in changed(study, other) for other in drawn)


def test_an_arm_and_its_shuffled_control_share_one_pretraining(study: Study) -> None:
    assert study.pretrain_run("rotation@shuffled", 0) == study.pretrain_run("rotation", 0)
    assert study.pretrainings() == ["rotation", "oracle"]
    plain, shuffled = (study.finetune_run(task, 50, 0) for task in ("rotation",
                                                                    "rotation@shuffled"))
    assert plain.folder != shuffled.folder
    assert shuffled.identity["encoder"] == {**plain.identity["encoder"], "shuffled": True}


def test_encoders_do_not_depend_on_the_batch_of_finetuning(study: Study) -> None:
    cases = load_cases(study, CPU)
    weights = []
    for batch in (2, 4, 32):
        torch.manual_seed(0)
        trained = {f"encoder.{name}": value
                   for name, value in study.networks.encoder().state_dict().items()}
        made = encoders.for_whole_images(with_settings(study, BATCH_SIZE=batch), trained, cases, 0)
        weights.append(checkpoint.weights_digest(made))
    assert len(set(weights)) == 1


def test_arrays_name_a_run_and_not_the_files_or_the_version(
        script: ModuleType, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if Path(str(script.__file__)).parent.name != "3d":
        pytest.skip("one tree is enough")
    data = tmp_path / scans.name
    shutil.copytree(scans, data)
    study = study_of(script, data, tmp_path / "a")
    monkeypatch.setattr(script.loader, "VERSION", script.loader.VERSION + 1)
    assert not changed(study, study_of(script, data, tmp_path / "a"))
    content = json.loads((data / "dataset.json").read_text())
    labels = content["labels"]
    content["labels"] = {"0": labels["0"], "1": "another"}
    (data / "dataset.json").write_text(json.dumps(content))
    assert changed(study, study_of(script, data, tmp_path / "a")) == FINETUNED
    content["labels"] = labels
    (data / "dataset.json").write_text(json.dumps(content))
    file = data / "labelsTr" / f"{study.part(0).train[0]}.nii.gz"
    label = nib.load(file)
    voxels = np.asarray(label.dataobj).copy()
    voxels = np.roll(voxels, 1, axis=0)  # as much foreground as before: the same splits
    nib.save(nib.Nifti1Image(voxels, label.affine), file)
    with pytest.raises(InputError, match="made for other data"):
        study_of(script, data, tmp_path / "a")
    relabelled = study_of(script, data, tmp_path / "a", "--rerun")
    assert relabelled.splits == study.splits and changed(study, relabelled) == FINETUNED


def test_runs_are_identified_once_a_start(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, calls = replace(study), []
    monkeypatch.setattr(type(study.cache), "arrays",
                        lambda *_, **__: calls.append("arrays") or "digest")
    drawn = study_module.subset
    monkeypatch.setattr(study_module, "subset",
                        lambda *a, **k: calls.append("subset") or drawn(*a, **k))
    for _ in range(5):
        identities(fresh)
    assert calls.count("arrays") == 3 and calls.count("subset") == 1


def test_a_shuffled_start_has_the_values_and_not_their_places(study: Study) -> None:
    torch.manual_seed(0)
    encoder, other = study.networks.encoder(), study.networks.encoder()
    other.load_state_dict(encoder.state_dict())
    encoders.shuffle([other], 0)
    moved = 0
    for before, after in zip(encoder.parameters(), other.parameters(), strict=True):
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)
        moved += not torch.equal(before, after)
    assert moved >= sum(weight.std() > 0 for weight in encoder.parameters() if weight.numel() > 1)
    again = study.networks.encoder()
    again.load_state_dict(encoder.state_dict())
    encoders.shuffle([again], 1)
    assert not all(map(torch.equal, again.parameters(), other.parameters()))  # by seed


def test_an_encoder_that_has_seen_held_out_cases_is_refused(
        study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = {case: fact["pixels"] for case, fact in study.cache.facts.items()}
    file = tmp_path / "encoder.pt"
    file.touch()
    part = study.part(0)
    train, val, test = ([pixels[case] for case in cases] for cases in
                        (part.train, part.val, part.test))

    def check() -> None:
        encoders.check_origins({"mine": file}, pixels, val=part.val, test=part.test)
    check()
    assert "nobody knows" in capsys.readouterr().out
    encoders.write_origin(file, "other", learnt_from=train, chosen_on=val)
    check()
    assert not capsys.readouterr().out
    for learnt_from, chosen_on, what in (
            ([*train, test[0]], val, f"1 of the test cases.*{part.test[0]}"),
            (train, [test[1]], "1 of the test cases"), ([*train, *val], val, "validation cases")):
        encoders.write_origin(file, "other", learnt_from=learnt_from, chosen_on=chosen_on)
        with pytest.raises(InputError, match=what):
            check()
    (tmp_path / "encoder.json").write_text("[]")
    with pytest.raises(InputError, match="not the record of an encoder's images"):
        check()


def test_a_bfloat16_encoder_has_a_digest() -> None:
    state = {"weight": torch.arange(6.0).view(2, 3).bfloat16(), "steps": torch.tensor(3)}
    other = {**state, "weight": state["weight"] + 1}
    assert checkpoint.weights_digest(state) != checkpoint.weights_digest(other)
