"""All cases of a patient stay on one side: validation, test folds, training, and every pool."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from commands import alone
from PIL import Image
from test_inputs_2d import picture

from common.data import splits
from common.data.cache import Cache
from common.data.groups import joined, of_patients, suggestion
from common.errors import InputError
from common.settings import Settings, from_flags

loader = importlib.import_module("2d.loader")
SIDES = ("left", "right")


def cache(labelled: list[str], free: list[str]) -> Cache:
    facts = {case: {"pixels": case, "truth": 0, "contains": [0]} for case in [*labelled, *free]}
    return Cache(Path(), facts, {case: case for case in facts}, len(labelled), {})


def divided(folder: Path, made: Cache, **given: Any) -> tuple[splits.Splits, list[str]]:
    values = {"SPLIT_SEED": 0, "FOLDS": 5, "STRICT": False, "RERUN": False, "PLAN": False,
              "GROUP_PATTERN": "", **{k: v for k, v in given.items() if k.isupper()}}
    labelled = list(made.facts)[:made.labelled]
    return splits.divide(made, dict.fromkeys(labelled, 0), folder, generated=True,
                         settings=Settings(**values), groups=given.get("groups"))


LABELLED = [f"p{number:02d}_{side}" for number in range(30) for side in SIDES]
FREE = [f"p{number:02d}_later" for number in range(35)]


def test_no_patient_is_on_two_sides_pools_included(tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    made, free = divided(tmp_path / "set", cache(LABELLED, FREE), GROUP_PATTERN="^(p[0-9]+)_")
    assert "patients  35 of 95 cases" in capsys.readouterr().out
    for part in made.every():
        sides = [{case[:3] for case in cases} for cases in (part.val, part.test, part.train)]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        pool = splits.pool_of(part, free)
        assert {case[:3] for case in pool} == sides[2] | {f"p{n}" for n in range(30, 35)}
        assert set(part.train) <= set(pool)
    again, _ = divided(tmp_path / "set", cache(LABELLED, FREE), GROUP_PATTERN="^(p[0-9]+)_")
    assert again == made
    with pytest.raises(InputError, match="made for other data; .*patients"):
        divided(tmp_path / "set", cache(LABELLED, FREE))


def test_without_patients_splits_are_as_before(tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    made, _ = divided(tmp_path / "set", cache(LABELLED, FREE))
    assert made == splits.hold_out(dict.fromkeys(LABELLED, 0), seed=0, folds=5)
    assert "groups" not in made.to_json()
    assert '"groups": {}' in (tmp_path / "set/splits.json").read_text()  # of duplicates alone
    said = capsys.readouterr().out
    assert "several cases of one patient (p00_left, p00_right)" in said and said.count("\n") == 1
    pattern = said.split("'")[1]
    made, _ = divided(tmp_path / "other", cache(LABELLED, []), GROUP_PATTERN=pattern)
    assert len(set(made.groups.values())) == 30


def test_a_column_wins_and_the_pattern_finds_the_others() -> None:
    found = of_patients(["a_1", "b_1", "c_2"], {"a_1": "b"}, "^([a-z])_")
    assert found == {"a_1": "b", "b_1": "b", "c_2": "c"}
    assert joined({"x": "1", "y": "1"}, {"y": "2", "z": "2"}) == dict.fromkeys("xyz", "x")


@pytest.mark.parametrize(("pattern", "message"), [
    ("(", "no regular expression"), ("p", "has 0 groups"), ("(p)(0)", "has 2 groups"),
    ("^(q)", "finds no patient in 2 of 2 cases")])
def test_a_pattern_that_does_not_fit_is_one_line(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        of_patients(["p1", "p2"], {}, pattern)


@pytest.mark.parametrize("ids", [[f"a{n}" for n in range(40)], [f"c_{n}" for n in range(8)],
                                 [f"case_{n:03d}" for n in range(200)]])
def test_numbers_of_cases_are_no_patients(ids: list[str]) -> None:
    assert suggestion(ids) is None


def test_the_column_of_a_table_names_patients(tmp_path: Path) -> None:
    for number in range(4):
        Image.fromarray(picture(number)).save(tmp_path / f"a{number}.png")
    table = tmp_path / "train.csv"
    table.write_text("id_code,diagnosis,who\n" + "".join(f"a{n},{n % 2},p{n // 2}\n"
                                                         for n in range(4)))
    assert loader.open_dataset(tmp_path, group_column="who").groups == {
        "a0": "p0", "a1": "p0", "a2": "p1", "a3": "p1"}
    assert loader.open_dataset(tmp_path).groups == {}
    with pytest.raises(InputError, match="no column patient, .*; name it with --group-column"):
        loader.open_dataset(tmp_path, group_column="patient")
    table.write_text("id_code,diagnosis,who\na0,0,p\na1,1,\n")
    with pytest.raises(InputError, match="line 3: no patient in who"):
        loader.open_dataset(tmp_path, group_column="who")


def test_in_folders_of_classes_the_file_s_own_name_says_the_patient(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, side = tmp_path / "set", 0
    for number in range(20):  # the left eye is well, the right one ill; a third image has no label
        for part in ("train/well/{}_left", "train/ill/{}_right", "test_images/{}_later"):
            file = folder / f"{part.format(f'p{number:02d}')}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(side := side + 1)).save(file)
    with alone("2d"):
        import exp
        flags = ["--data", folder, "--results", tmp_path / "results", "--cache", tmp_path,
                 "--classes", 2, "--resolution", 32, "--tasks", "baseline", "--seeds", 0, 1]
        plain = from_flags(vars(exp), [str(flag) for flag in flags])
        exp.make_study(plain, "float32", {})
        assert "several cases of one patient" in capsys.readouterr().out
        asked = from_flags(vars(exp), [*map(str, flags), "--group-pattern", "^(p[0-9]+)_",
                                       "--results", str(tmp_path / "other")])
        study = exp.make_study(asked, "float32", {})
    assert len(set(study.splits.groups.values())) == 20 and len(study.splits.groups) == 60
    for seed in (0, 1):
        part = study.part(seed)
        held = {case.split("_")[1] for case in [*part.test, *part.val]}
        pool = {re.search("p[0-9]+", case)[0] for case in study.pool(seed)}  # type: ignore[index]
        assert held and not held & pool
