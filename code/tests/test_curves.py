"""Records with known scores become the tables they should, number by number."""

import csv
import importlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import t as student
from test_family import rest_by_loops

from common.errors import InputError
from common.report import curves, missing, tables
from common.report.curves import Curves
from common.runs import records
from common.runs.records import Records
from common.stats import dunnett
from common.stats.measures import Measure, accuracy_of, kappa_of, mean_of

DICE = [mean_of("dice", "Dice"), mean_of("dice_a", "Dice, a")]
GRADES = [kappa_of("kappa", "QWK", 3), accuracy_of("accuracy", "Accuracy")]
GAINS = {"cpc": (0.1, 0.2, 0.3), "rpl": (0.02, -0.01, 0.05)}  # over the baseline, seed by seed
LEVELS = {5: 0.4, 25: 0.45, 100: 0.55}


SQUARE, DF = rest_by_loops([[0.01 * seed + gain for seed, gain in enumerate(gains)]
                            for gains in ((0, 0, 0), *GAINS.values())])  # s^2 of every fraction
ERROR = (2 * SQUARE / 3) ** 0.5


def write(folder: Path, task: str, fraction: int, seed: int, *, cases: Any, test: Any,
          encoder: Any = None, **identity: Any) -> None:
    run = folder / f"finetune/{task}/fraction{fraction:03d}/seed{seed}"
    save(run, {"stage": "finetune", "task": task, "fraction": fraction, "seed": seed,
               "metric": next(iter(test)), "classes": ["a", "b", "c"], "resolution": 32,
               "labelled": fraction, "validation": 7, "test_cases": len(cases),
               "steps": 90 + (fraction == 5) * 10, "generated": True, "test": test,
               "selected": {"step": 3, "rule": "highest score on validation"},
               "last": {"test": {name: value / 2 if isinstance(value, float) else value
                                 for name, value in test.items()}}, "cases": cases},
         {"settings": {"RESOLUTION": 32}, "data": "d", "splits": "s", "encoder": encoder,
          **identity})


def save(run: Path, scores: Any, identity: Any) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "scores.json").write_text(json.dumps(scores))
    (run / "config.json").write_text(json.dumps({"identity": identity}))


def made(folder: Path) -> Path:
    """A baseline and two arms, three seeds; all cases of a run alike, so that seeds alone vary."""
    for fraction, level in LEVELS.items():
        for task in ("baseline", *GAINS):
            for seed in range(3):
                gain = GAINS[task][seed] if task in GAINS else 0.0
                score = level + 0.01 * seed + gain
                encoder = {"stage": "pretrain", "task": task, "seed": seed, "settings": {"LR": 1},
                           "weights": f"{task}{seed}"} if task in GAINS else None
                write(folder, task, fraction, seed, encoder=encoder, test={"dice": score},
                      cases={f"c{i}": {"dice": score, "dice_a": score / 2} for i in range(4)})
    return folder


def rows(found: Curves) -> dict[tuple[str, str, str], dict[str, str]]:
    return {(row["task"], row["fraction"], row["measure"]): row
            for row in csv.DictReader(io.StringIO(tables.csv_text(found)))}


def test_differences_their_intervals_and_p_are_those_of_the_seeds(tmp_path: Path) -> None:
    found = curves.of(records.read(made(tmp_path)), DICE)
    row = rows(found)["cpc", "25", "dice"]
    assert float(row["mean"]) == pytest.approx(0.45 + 0.01 + 0.2)
    assert float(row["difference"]) == pytest.approx(0.2)
    wide = dunnett.quantile(2, DF)  # two arms beside the baseline
    for name, quantile in (("difference", student.ppf(0.975, DF)), ("adjusted", wide)):
        half = quantile * ERROR
        assert float(row[f"{name}_low"]) == pytest.approx(0.2 - half, abs=1e-6)
        assert float(row[f"{name}_high"]) == pytest.approx(0.2 + half, abs=1e-6)
    p = 2 * student.sf(0.2 / ERROR, DF)
    assert float(row["p"]) == pytest.approx(p, rel=1e-3)
    assert float(row["p_adjusted"]) == pytest.approx(dunnett.outside(0.2 / ERROR, 2, DF), rel=1e-3)
    assert p < float(row["p_adjusted"]) < 2 * p
    assert row["arms"] == "2" and DF == 4
    assert float(row["shown_half"]) == pytest.approx(wide * ERROR, abs=1e-6)
    assert float(row["shown_80"]) == pytest.approx((wide + 0.8416) * ERROR, abs=1e-6)
    assert row["seeds"] == "3" and row["labelled"] == "25"
    small = rows(found)["cpc", "25", "dice_a"]
    assert float(small["mean"]) == pytest.approx(0.33) and small["difference"] == ""
    for other in (small, rows(found)["baseline", "25", "dice"]):
        assert {other[name] for name in ("difference", "p", "arms", "shown_half", "shown_80")
                } == {""}


def test_the_pages_tables_show_the_same_numbers(tmp_path: Path) -> None:
    text = tables.markdown(curves.of(records.read(made(tmp_path)), DICE))
    half = dunnett.quantile(2, DF) * ERROR
    adjusted = f"{0.2 - half:+.3f} to {0.2 + half:+.3f}"
    half = student.ppf(0.975, DF) * ERROR
    single = f"+0.200 ({0.2 - half:+.3f} to {0.2 + half:+.3f})"
    p, both = 2 * student.sf(0.2 / ERROR, DF), dunnett.outside(0.2 / ERROR, 2, DF)
    cell = f"+0.200 ({adjusted})"
    assert f"| cpc | {cell} | {cell} | {cell} |" in text  # at a glance: a cell a fraction
    assert f"| cpc | 5 % | 0 1 2 | {single} | {adjusted} | {p:.3f} | {both:.3f} |" in text
    last = (0.45 + 0.01 + 0.2) / 2  # last weights: half the score of those chosen
    scores = text.partition("### Dice\n")[2]
    head, _, base, cpc, *_ = scores.strip().splitlines()
    assert head == "| task | 5 % (5) | 25 % (25) | 100 % (100) |"
    assert base.startswith("| baseline | 0.410 (") and cpc.split("|")[3].startswith(" 0.660 (")
    lasts = text.partition("last weights instead of the best")[2].partition("##")[0]
    assert f"| {last:.3f} |" in next(line for line in lasts.splitlines() if "cpc" in line)
    assert "n = 4 test cases, 3 seeds, 90 to 100 optimiser steps a run" in text
    assert "chosen by highest score on validation (7 labelled cases" in text
    assert "generated data: says nothing about patients" in text.splitlines()[0]


def test_arms_come_in_one_order_controls_last_and_named_so(tmp_path: Path) -> None:
    folder = made(tmp_path)
    for task in ("oracle", "cpc@shuffled", "rotation"):
        write(folder, task, 25, 0, test={"dice": 0.5}, cases={"c0": {"dice": 0.5, "dice_a": 0.5}})
    found = curves.of(records.read(folder), DICE)
    assert found.tasks == ["baseline", "cpc", "rotation", "rpl", "cpc@shuffled", "oracle"]
    assert [point.task for point in found.points if point.fraction == 25] == found.tasks
    text = tables.markdown(found)
    for part in ("## At a glance", "### Dice\n", "## Labels saved"):
        table = text.partition(part)[2].partition("##")[0]
        names = [line.split("|")[1].strip() for line in table.splitlines() if line[:1] == "|"][2:]
        assert [name for name in names if name not in tables.COULD] == [
            f"{task} (control)" if task in ("cpc@shuffled", "oracle") else task
            for task in found.tasks if part != "## Labels saved" or task in found.reached]


def test_reading_and_glance_come_first_and_the_baseline_is_the_reference(tmp_path: Path) -> None:
    text = tables.markdown(curves.of(records.read(made(tmp_path)), DICE))
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads[:3] == ["## Reading", "## At a glance", "## Scores"]
    base = next(line for line in text.splitlines() if line.startswith("| baseline"))
    assert base.endswith("| the reference |") and "not reached" not in base
    assert max(len(line.split("|")) for line in text.splitlines()) <= 2 + 8  # narrow


def test_a_pretext_task_without_a_chance_level_is_compared_with_nothing(tmp_path: Path) -> None:
    folder = made(tmp_path)
    save(folder / "pretrain/mae/seed0", {
        "stage": "pretrain", "task": "mae", "seed": 0, "chance": {}, "score": {}, "loss": 0.25,
        "epochs": 9, "best_epoch": 7}, {})
    text = tables.markdown(curves.of(records.read(folder), DICE))
    assert "| mae | loss | 0 | 0.250 | - | - | 9 | 7 |" in text


def test_network_and_size_are_those_of_the_records(tmp_path: Path) -> None:
    found = curves.of(records.read(made(tmp_path)), DICE)
    identity = found.runs[0]["identity"]
    assert found.network == ""
    identity["settings"] = {"RESOLUTION": 32, "LEVELS": 2, "FILTERS": 8}
    assert found.network == "3D U-Net (levels: 2, filters: 8), 32³"
    identity["settings"] = {"RESOLUTION": 224, "BLOCKS": [6, 12]}
    assert found.network == "DenseNet [6, 12], 224²"


def test_labels_are_saved_against_the_baseline_on_all_labels(tmp_path: Path) -> None:
    found = curves.of(records.read(made(tmp_path)), DICE).reached
    assert list(found) == ["baseline", "cpc", "rpl"]
    assert found["baseline"].fraction == 100 and found["cpc"].fraction == 5  # .6 > .55
    rpl = found["rpl"].fraction
    assert rpl is not None and 25 < rpl < 100  # gains .02: reached between .45 and .55
    assert rpl == pytest.approx(25 * 4 ** (0.08 / 0.1), rel=0.01)


def test_what_an_arm_or_seed_lacks_is_said(tmp_path: Path) -> None:
    folder = made(tmp_path)
    assert curves.of(records.read(folder), DICE).missing == []
    for seed in (0, 2):
        (folder / f"finetune/rpl/fraction025/seed{seed}/scores.json").unlink()
    assert curves.of(records.read(folder), DICE).missing == ["rpl at 25 %: seeds 0, 2"]


def test_pretrainings_of_trial_seeds_are_none_of_the_studys(tmp_path: Path) -> None:
    found = records.read(made(tmp_path))
    both: Any = [{"task": "rpl", "seed": seed, "chance": {}, "validations": {}, "identity": {}}
                 for seed in (0, 1000)]
    for plan, wanted in (({}, [0, 1000]), ({"rates": {"seeds": [1000]}}, [0])):
        read = curves.of(replace(found, pretrain=both, plan=plan), DICE)
        assert [run["seed"] for run in read.pretraining] == wanted


def test_a_baseline_with_fractions_of_its_own_lacks_nothing(tmp_path: Path) -> None:
    folder = made(tmp_path)

    def at_50(task: str, *seeds: int) -> None:
        for seed in seeds:
            write(folder, task, 50, seed, test={"dice": 0.5},
                  cases={"c0": {"dice": 0.5, "dice_a": 0.5}})

    at_50("baseline", 0, 1)
    assert curves.of(records.read(folder), DICE).missing == ["baseline at 50 %: seed 2"]
    at_50("baseline", 2)
    assert curves.of(records.read(folder), DICE).missing == []
    two = {0: {0: {}, 1: {}}, 1: {0: {}}}
    assert missing.runs({("baseline", 5): dict.fromkeys((0, 1), {0: {}}), ("baseline", 50): two,
                         ("rpl", 5): dict.fromkeys((0, 1), {0: {}})}, curves.order
                        ) == ["baseline at 50 %: draw 1 of seed 1"]
    at_50("rpl", 0, 1, 2)
    assert curves.of(records.read(folder), DICE).missing == ["cpc at 50 %: seeds 0, 1, 2"]
    at_50("cpc", 0, 1, 2)
    shutil.rmtree(folder / "finetune/cpc/fraction025")
    shutil.rmtree(folder / "finetune/rpl/fraction025")  # the baseline's alone, the others differ
    shutil.rmtree(folder / "finetune/rpl/fraction050")
    assert curves.of(records.read(folder), DICE).missing == ["rpl at 50 %: seeds 0, 1, 2"]


def test_a_fraction_that_an_arm_has_and_the_baseline_lacks_is_missing(tmp_path: Path) -> None:
    folder = made(tmp_path)
    shutil.rmtree(folder / "finetune/baseline/fraction025")
    assert curves.of(records.read(folder), DICE).missing == ["baseline at 25 %: seeds 0, 1, 2"]


def test_an_arm_at_the_primary_fraction_alone_lacks_nothing(tmp_path: Path) -> None:
    folder = made(tmp_path)
    for fraction in (25, 100):
        shutil.rmtree(folder / f"finetune/cpc/fraction{fraction:03d}")
    found = records.read(folder)

    def lacks(fraction: int, whole: Records = found) -> list[str]:
        plan = {"primary": {"arm": "rpl", "fraction": fraction}}
        return curves.of(replace(whole, plan=plan), DICE).missing

    assert lacks(5) == []
    assert lacks(25) == curves.of(found, DICE).missing == [
        f"cpc at {fraction} %: seeds 0, 1, 2" for fraction in (25, 100)]
    (folder / "finetune/cpc/fraction005/seed1/scores.json").unlink()  # it was stopped
    assert lacks(5, records.read(folder)) == ["cpc at 5 %: seed 1", *lacks(25)]


@pytest.mark.parametrize("changed", [{"data": "other"}, {"splits": "other"},
                                     {"settings": {"RESOLUTION": 64}}, {"precision": "bfloat16"}])
def test_points_of_other_data_splits_or_settings_are_refused(tmp_path: Path, changed: Any) -> None:
    folder = made(tmp_path)
    write(folder, "rpl", 25, 1, test={"dice": 0.5}, cases={"c0": {"dice": 0.5, "dice_a": 0.5}},
          **changed)
    with pytest.raises(InputError, match=next(iter(changed)).replace("settings", "RESOLUTION")):
        curves.of(records.read(folder), DICE)


def test_encoders_pretrained_with_other_settings_are_refused(tmp_path: Path) -> None:
    folder = made(tmp_path)
    write(folder, "rpl", 25, 1, test={"dice": 0.5}, cases={"c0": {"dice": 0.5, "dice_a": 0.5}},
          encoder={"stage": "pretrain", "task": "rpl", "seed": 1, "settings": {"LR": 2}})
    with pytest.raises(InputError, match="LR"):
        curves.of(records.read(folder), DICE)


def graded(folder: Path) -> Curves:
    """Two arms; at 5 and 100 % the first takes 0 for 1, the second is right."""
    for fraction in (5, 25, 100):
        for task, predicted in (("baseline", [1, 1, 2]), ("cpc", [0, 1, 2])):
            cases = {f"c{i}": {"truth": i, "predicted": p} for i, p in enumerate(predicted)}
            table = [[0] * 3 for _ in range(3)]
            for case in cases.values():
                table[case["truth"]][case["predicted"]] += 1
            for seed in range(2):
                write(folder, task, fraction, seed, test={"kappa": 0.5, "confusion": table},
                      cases=cases)
    return curves.of(records.read(folder), GRADES)


def test_the_confusion_table_has_the_truth_in_rows_and_an_arm_at_a_time(tmp_path: Path) -> None:
    text = tables.markdown(graded(tmp_path))
    assert "| truth | predicted a | predicted b | predicted c |" in text
    assert "| baseline | 5 % | a | 0 | 2 | 0 |" in text and "| cpc | 5 % | a | 2 | 0 | 0 |" in text
    assert "| baseline | 100 % | b | 0 | 2 | 0 |" in text and "| 25 % | a |" not in text


@pytest.mark.parametrize(("scores", "epoch"), [
    ([0.1, 0.9, 0.95, 0.9, 0.9, 0.9], 6), ([0.96] * 5, 5), ([0.96] * 4, None),
    ([0.905] * 9, None)])  # .91 is 90 % of the way from .1 to 1
def test_solved_is_the_first_mean_of_five_nine_tenths_from_chance_to_one(
        tmp_path: Path, scores: list[float], epoch: int | None) -> None:
    run = made(tmp_path) / "pretrain/cpc/seed0"
    save(run, {"stage": "pretrain", "task": "cpc", "seed": 0, "chance": {"accuracy": 0.1},
               "score": {"accuracy": 0.9}, "epochs": 9, "best_epoch": 7}, {})
    (run / "log.jsonl").write_text("".join(
        json.dumps({"epoch": i, "step": i, "val": {"accuracy": value}}) + "\n"
        for i, value in enumerate(scores, 1)))
    assert curves.of(records.read(tmp_path), DICE).solved == [{"accuracy": epoch}]


def test_each_trees_headline_and_classes_are_measured() -> None:
    run = {"classes": ["pancreas", "tumour"], "test": {"dice_whole": 0.5}}
    found: dict[str, list[Measure]] = {tree: importlib.import_module(f"{tree}.graph").measures(run)
                                       for tree in ("3d", "2d")}
    assert [measure.name for measure in found["3d"]] == [
        "dice", "dice_pancreas", "dice_tumour", "dice_whole", "dice_paper"]
    assert [measure.name for measure in found["2d"]] == ["kappa", "accuracy"]
