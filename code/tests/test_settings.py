"""Every constant of both exp.py is checked, and reaches the stages it says."""

import math
from functools import cache
from types import ModuleType
from typing import Any

import pytest

from common import settings
from common.errors import InputError
from common.schedule import grid
from common.settings import CHOICES, RANGES, Settings, from_flags


def numbers(script: ModuleType) -> dict[str, Any]:
    """Constants that are numbers, or lists of them, or may be a number."""
    found = {name: value for name, value in vars(script).items() if name.isupper()
             and isinstance(value, int | float | list) and not isinstance(value, bool)
             and not (isinstance(value, list) and not all(isinstance(x, int) for x in value))}
    return {**found, "WARMUP_EPOCHS": 1} | {"ENCODER": None}


@cache
def defaults(script: ModuleType) -> Settings:
    return from_flags(vars(script), [])


def changed(script: ModuleType, **values: Any) -> Settings:
    return Settings(**{**vars(defaults(script)), "TASKS": ["baseline"], **values})


def test_the_defaults_pass(script: ModuleType) -> None:
    grid.check(from_flags(vars(script), []), script.TREE)
    grid.check(from_flags(vars(script), ["--demo"]), script.TREE)


def test_every_number_has_a_range_and_its_ends_are_kept(script: ModuleType) -> None:
    for name, value in numbers(script).items():
        if value is None:
            continue
        assert name in RANGES, f"{name}: no range in settings.py"
        for bad in (RANGES[name].least - 1, math.nan, math.inf, RANGES[name].below):
            wrong = [bad] if isinstance(value, list) else bad
            with pytest.raises(InputError, match=f"{name} = {bad}: must be at least"):
                grid.check(changed(script, **{name: wrong}), script.TREE)


def test_every_word_has_its_choices(script: ModuleType) -> None:
    for name in CHOICES:
        if hasattr(script, name):
            with pytest.raises(InputError, match=f"{name} = other: expected "):
                grid.check(changed(script, **{name: "other"}), script.TREE)


@pytest.mark.parametrize(("values", "message"), [
    ({"PRETEXT_BATCH_SIZE": 1}, "PRETEXT_BATCH_SIZE = 1: .* at least 2"),
    ({"PRETEXT_BATCH_SIZE": -1}, "PRETEXT_BATCH_SIZE = -1: must be at least 0"),
    ({"FINETUNE_CLIP": -1.0}, "FINETUNE_CLIP = -1"), ({"START_LR_FACTOR": -0.1}, "START_LR_FACTOR"),
    ({"FOLDS": 2}, "FOLDS = 2: .* never give an interval; give 3 or more, or 1"),
    ({"FOLDS": 0}, "FOLDS = 0"), ({"DRAWS": 0}, "DRAWS = 0: must be at least 1"),
    ({"SEEDS": []}, "SEEDS is empty"), ({"FRACTIONS": [5, 5]}, "5 is given twice"),
    ({"WARMUP_EPOCHS": 10**6}, "smaller than FINETUNE_EPOCHS")])
def test_what_would_go_wrong_in_mid_grid_is_refused(script: ModuleType, values: dict[str, Any],
                                                    message: str) -> None:
    with pytest.raises(InputError, match=message):
        grid.check(changed(script, **values), script.TREE)


def test_constants_reach_their_stage_and_no_other(script: ModuleType) -> None:
    of_stage = {stage: from_flags(vars(script), []).of_stage(stage)
                for stage in ("pretrain", "finetune")}
    for stage, foreign in (("pretrain", ("FINETUNE_", "WARMUP_", "BATCH_SIZE", "START_LR_FACTOR",
                                         "EQUAL_STEPS", "VALIDATIONS", "AUGMENT_", "GRADES")),
                           ("finetune", ("PRETEXT_", "UNLABELLED", "WARMUP_", "START_LR_FACTOR"))):
        assert not [name for name in of_stage[stage] if name.startswith(foreign)]
        assert {"RESOLUTION", "LAYOUT"} <= of_stage[stage].keys()
        assert not of_stage[stage].keys() & set(settings.SCOPE)
    assert "FINETUNE_LR" in of_stage["finetune"] and "PRETEXT_LR" in of_stage["pretrain"]
