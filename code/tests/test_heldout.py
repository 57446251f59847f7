"""Splits are made once and read again; duplicates are on one side, contradictions on none."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.data import splits
from common.errors import InputError
from common.runs import encoders
from common.settings import Settings

LABELLED = [f"c{i:02d}" for i in range(40)]
UNLABELLED = ["u0", "u1", "u2"]


class Fake:
    """What a cache knows of its cases: c00 to c03 twins that agree, c10 and c11 that do not."""

    def __init__(self) -> None:
        pixels = {case: case for case in [*LABELLED, *UNLABELLED]}
        pixels |= dict.fromkeys(["c01", "c02", "c03"], "c00") | {"c11": "c10", "u1": "c05"}
        truth = {case: i % 3 for i, case in enumerate(LABELLED)}
        truth |= dict.fromkeys(["c00", "c01", "c02", "c03"], 1)
        self.facts = {case: {"pixels": value, **({"truth": truth[case]} if case in truth else {})}
                      for case, value in pixels.items()}
        self.contents = {case: f"digest of {case}" for case in self.facts}
        self.labelled = len(LABELLED)


def made(folder: Path, fake: Any = None, **given: Any) -> splits.Splits:
    cache: Any = fake or Fake()
    strata = {case: cache.facts[case]["truth"] for case in LABELLED}
    settings = Settings(**{"SPLIT_SEED": 0, "FOLDS": 5, "STRICT": False, "RERUN": False,
                           "GROUP_PATTERN": "", "PLAN": False, **given})
    return splits.make_splits(cache, strata, folder, generated=True, settings=settings)


def test_twins_are_on_one_side_and_contradictions_in_no_part(tmp_path: Path) -> None:
    for seed in range(12):
        for folds in (1, 5):
            parts = made(tmp_path / str(seed) / str(folds), SPLIT_SEED=seed, FOLDS=folds)
            every = [parts.val, *parts.folds, parts.rest]
            assert sorted(case for part in every for case in part) == [
                case for case in LABELLED if case not in ("c10", "c11")]
            sides = [len({"c00", "c01", "c02", "c03"} & set(part)) for part in every]
            assert sorted(sides) == [0] * (folds + 1) + [4]
    written = json.loads((tmp_path / "0/5/splits.json").read_text())
    assert written["duplicates"]["contradicting"] == ["c10", "c11"]
    assert written["duplicates"]["unlabelled"] == ["u1"]


def test_the_pool_is_the_training_cases_and_the_unlabelled_that_are_no_twins(
        tmp_path: Path) -> None:
    parts = made(tmp_path)
    fake: Any = Fake()
    free = splits.unlabelled(fake)
    assert free == ["u0", "u2"]
    for seed in range(7):
        part = parts.of(seed)
        assert splits.pool_of(part, free) == [*part.train, "u0", "u2"]
        assert not {*part.test, *part.val} & set(splits.pool_of(part, free))
        with pytest.raises(InputError, match=part.test[0]):
            splits.pool_of(part._replace(train=[*part.train, part.test[0]]), free)


def test_a_leak_in_any_fold_stops_before_training(tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a test case of the last fold among the unlabelled, that fold alone would leak."""
    cache, strata = Fake(), {case: int(case[1:]) % 3 for case in LABELLED}
    settings = Settings(SPLIT_SEED=0, FOLDS=5, STRICT=False, RERUN=False, PLAN=False,
                        GROUP_PATTERN="")

    def divide() -> Any:
        fake: Any = cache
        return splits.divide(fake, strata, tmp_path, generated=True, settings=settings)
    parts, free = divide()
    assert free == ["u0", "u2"]
    for leaked in (parts.folds[-1][0], parts.folds[0][0], parts.val[0]):
        monkeypatch.setattr(splits, "unlabelled", lambda cache, leaked=leaked: [leaked])
        with pytest.raises(InputError, match=f"{leaked}: held out"):
            divide()


def test_strict_stops_at_any_duplicate(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exact duplicates found"):
        made(tmp_path, STRICT=True)
    fake = Fake()
    for case in LABELLED:  # only an unlabelled twin is left
        fake.facts[case]["pixels"] = case
    with pytest.raises(InputError, match="u1"):
        made(tmp_path, fake, STRICT=True)


def test_splits_are_read_as_they_were_written(tmp_path: Path) -> None:
    first = made(tmp_path)
    content = json.loads((tmp_path / "splits.json").read_text())
    one, other, val = content["folds"][0], content["folds"][1], content["val"]
    one[0], other[0], val[0] = other[0], val[0], one[0]
    (tmp_path / "splits.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="edited since it was made"):
        made(tmp_path)
    del content["digest"]  # as those of earlier versions
    (tmp_path / "splits.json").write_text(json.dumps(content))
    again = made(tmp_path)
    assert again != first
    assert (again.folds, again.val, again.rest) == (content["folds"], val, [])


def test_splits_of_an_earlier_version_are_named_and_set_aside(tmp_path: Path) -> None:
    """Those had one fixed test set, and no folds."""
    for folds in (1, 5):
        old = {"seed": 0, "test": ["a", "b"], "val": ["c", "d"], "train": ["e", "f"]}
        (tmp_path / "splits.json").write_text(json.dumps(old))
        with pytest.raises(InputError, match="made by an earlier version, with one fixed test set; "
                                             "give --results OTHER .* or --rerun") as caught:
            made(tmp_path, FOLDS=folds)
        assert "\n" not in str(caught.value)
        assert made(tmp_path, FOLDS=folds, RERUN=True) == made(tmp_path, FOLDS=folds)
        assert json.loads((tmp_path / f"splits.json.old-{1 + (folds > 1)}").read_text()) == old


def test_a_plan_writes_no_splits_and_moves_none(tmp_path: Path) -> None:
    planned = made(tmp_path, PLAN=True)
    assert not list(tmp_path.iterdir()) and planned == made(tmp_path)
    text = (tmp_path / "splits.json").read_text()
    assert made(tmp_path, PLAN=True, RERUN=True, SPLIT_SEED=1) != planned
    assert (tmp_path / "splits.json").read_text() == text
    with pytest.raises(InputError, match="--results OTHER"):  # as the run itself would
        made(tmp_path, PLAN=True, SPLIT_SEED=1)


@pytest.mark.parametrize("change", ["content", "case", "seed", "folds"])
def test_splits_of_other_data_are_refused_or_set_aside(tmp_path: Path, change: str) -> None:
    made(tmp_path)
    fake, seed, folds = Fake(), 0, 5
    if change == "content":
        fake.contents["c07"] = "another"
    elif change == "case":
        fake.contents.pop("c39")
        fake.facts.pop("c39")
        fake.labelled -= 1
        LABELLED.remove("c39")
    elif change == "folds":
        folds = 4
    else:
        seed = 1
    try:
        named = {"content": "c07", "case": "c39", "seed": "SPLIT_SEED", "folds": "FOLDS"}[change]
        with pytest.raises(InputError, match=named):
            made(tmp_path, fake, SPLIT_SEED=seed, FOLDS=folds)
        new = made(tmp_path, fake, SPLIT_SEED=seed, FOLDS=folds, RERUN=True)
        assert new.seed == seed and (tmp_path / "splits.json.old-1").exists()
        assert len(new.folds) == folds
        assert made(tmp_path, fake, SPLIT_SEED=seed, FOLDS=folds) == new
    finally:
        if change == "case":
            LABELLED.append("c39")


def test_an_encoder_from_elsewhere_that_has_seen_held_out_cases_is_refused(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "encoder.pt"
    file.touch()
    pixels = {case: f"pixels of {case}" for case in "abcdef"}

    def check(learnt_from: str, chosen_on: str) -> None:
        encoders.write_origin(file, "set", learnt_from=[pixels[c] for c in learnt_from],
                              chosen_on=[pixels[c] for c in chosen_on])
        encoders.check_origins({"mine": file}, pixels, val=["c", "d"], test=["e", "f"])
    check("ab", "cd")
    for learnt_from, chosen_on, named in (("abe", "cd", "test cases .e"), ("ab", "cf", "test cases "
                                                                           ".f"),
                                          ("abd", "c", "validation cases .d")):
        with pytest.raises(InputError, match=named):
            check(learnt_from, chosen_on)
    assert not capsys.readouterr().out
    file.with_suffix(".json").unlink()
    encoders.check_origins({"mine": file}, pixels, val=["c"], test=["e"])
    assert "nobody knows whether" in capsys.readouterr().out
