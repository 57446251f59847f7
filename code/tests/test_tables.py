"""Tables of studies with controls, a primary comparison, draws and folds; and once more, alike."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student
from test_curves import DF, DICE, ERROR, GAINS, LEVELS, SQUARE, made, rows, save, write
from test_reading import TWO, said
from test_reading import made as read_of

from common.files import Json
from common.report import curves, reading, tables
from common.runs import records
from common.runs.records import Records
from common.stats import dunnett, family
from common.stats.measures import resamples


def test_the_gains_that_could_be_shown_are_those_of_the_arms(tmp_path: Path) -> None:
    folder = made(tmp_path)
    for seed in range(3):  # a control, with the widest interval: it does not count
        score = 0.5 + 0.2 * seed
        write(folder, "oracle", 25, seed, test={"dice": score},
              cases={f"c{i}": {"dice": score, "dice_a": score} for i in range(4)})
    (folder / "finetune/rpl/fraction025/seed1/scores.json").unlink()
    write(folder, "jigsaw", 25, 0, test={"dice": 0.5}, cases={"c0": {"dice": 0.5, "dice_a": 0.5}})
    found = curves.of(records.read(folder), DICE)
    half, most = dunnett.quantile(2, DF) * ERROR, (dunnett.quantile(2, DF) + 0.8416) * ERROR
    for fraction in (5, 100):
        could = found.could_show(fraction)
        assert could == (pytest.approx((half, half)), pytest.approx((most, most)))
    cpc = next(point for point in found.points if (point.task, point.fraction) == ("cpc", 25))
    assert cpc.could_show and found.could_show(25) == tuple((x, x) for x in cpc.could_show)
    text = tables.markdown(found).splitlines()
    for name, gain, other in zip(tables.COULD, (half, most), cpc.could_show, strict=True):
        row = next(line for line in text if line.startswith(f"| {name} |"))
        assert row == f"| {name} | {gain:.3f} | {other:.3f} | {gain:.3f} |  |"
    two = {fraction: found.could_show(fraction) for fraction in (5, 25)}
    assert two[5] != two[25]


def test_with_unequal_arms_the_rows_go_from_the_narrowest_to_the_widest(tmp_path: Path) -> None:
    folder = made(tmp_path)
    for task, missing in (("cpc", 0), ("rpl", 1)):  # four seeds, three of them of each arm
        for seed in (1, 3):
            if seed == 3 and missing:
                continue
            score = 0.44 + 0.01 * seed + 0.2
            write(folder, task, 5, seed, test={"dice": score},
                  cases={f"c{i}": {"dice": score, "dice_a": score} for i in range(4)})
    write(folder, "baseline", 5, 3, test={"dice": 0.43},
          cases={f"c{i}": {"dice": 0.43, "dice_a": 0.2} for i in range(4)})
    found = curves.of(records.read(folder), DICE)
    could = found.could_show(5)
    by_arm = {point.task: point.could_show for point in found.points if point.fraction == 5}
    assert could is not None and by_arm["cpc"] and by_arm["rpl"]
    assert could == tuple(zip(by_arm["cpc"], by_arm["rpl"], strict=True))  # 4 seeds, 3 seeds
    row = next(line for line in tables.markdown(found).splitlines() if tables.COULD[0] in line)
    assert f"| {could[0][0]:.3f} to {could[0][1]:.3f} |" in row and could[0][0] < could[0][1]


def test_controls_and_the_primary_comparison_are_not_adjusted(
        tmp_path: Path) -> None:
    folder = made(tmp_path)
    for seed, score in enumerate((0.6, 0.8, 0.7)):
        write(folder, "oracle", 25, seed, test={"dice": score},
              cases={f"c{i}": {"dice": score, "dice_a": score} for i in range(4)})
    read = records.read(folder)
    plain = curves.of(read, DICE)
    named = curves.of(replace(read, plan={"primary": {"arm": "cpc", "fraction": 25}}), DICE)
    one, other = ({(point.task, point.fraction): point for point in found.points}
                  for found in (plain, named))
    oracle = one["oracle", 25]
    assert oracle.difference is not None and oracle.difference.arms == 1 and oracle.alone
    error = float(np.std([0.15, 0.34, 0.23], ddof=1)) / 3**0.5
    half = student.ppf(0.975, 2) * error
    assert oracle.interval == pytest.approx((0.24 - half, 0.24 + half))
    assert oracle.p == oracle.difference.p == oracle.difference.adjusted_p
    for key, point in other.items():
        assert point.primary == (key == ("cpc", 25)) and point.difference == one[key].difference
        assert point.primary or (point.interval, point.p) == (one[key].interval, one[key].p)
    cpc = other["cpc", 25]
    assert cpc.difference is not None and cpc.difference.interval == cpc.interval
    assert cpc.p == cpc.difference.p and cpc.interval != one["cpc", 25].interval
    assert cpc.could_show == pytest.approx(((t := student.ppf(0.975, DF)) * ERROR,
                                            (t + 0.8416) * ERROR))
    row, marked = rows(named)["cpc", "25", "dice"], tables.markdown(named)
    assert row["adjusted_low"] < row["difference_low"] and row["p"] < row["p_adjusted"]
    assert row == rows(plain)["cpc", "25", "dice"] | {
        name: row[name] for name in ("shown_half", "shown_80")}
    assert "| cpc (primary) | 25 % |" in marked and marked.count("(primary)") == 1
    claim = "The claim about the primary comparison rests on the first interval."
    assert claim in marked and "of controls and the primary comparison their own." in marked
    assert not any(words in tables.markdown(plain) for words in (
        "(primary)", claim, "and the primary comparison"))


def test_the_last_weights_are_a_family_of_their_own(tmp_path: Path) -> None:
    found = curves.of(records.read(made(tmp_path)), DICE)  # their scores: half of the others
    for fraction in found.fractions:
        chosen, last = found.families[fraction], found.lasts[fraction]
        assert last.differences["cpc"].mean == pytest.approx(chosen.differences["cpc"].mean / 2)
        assert last.pooled is not None and last.pooled.block == pytest.approx(SQUARE / 4)
        assert last.differences["cpc"].arms == 2


def test_draws_are_runs_of_one_seed(tmp_path: Path) -> None:
    folder = made(tmp_path)
    read = records.read(folder)
    more = []
    for run in read.finetune:  # a second draw, .1 better at the same labels
        cases = {name: {key: value + 0.1 for key, value in case.items()}
                 for name, case in run["cases"].items()}
        more.append({**run, "draw": 1, "cases": cases, "labelled": run["labelled"] + 1})
    found = curves.of(replace(read, finetune=[*read.finetune, *more]), DICE)
    plain = curves.of(read, DICE)
    for one, other in zip(found.points, plain.points, strict=True):
        assert one.means["dice"].mean == pytest.approx(other.means["dice"].mean + 0.05)
        assert one.means["dice"].seeds == other.means["dice"].seeds == (0, 1, 2)
        assert one.difference == other.difference or (
            one.difference and other.difference
            and one.difference.interval == pytest.approx(other.difference.interval))
    assert found.labelled(25) == "25-26" and plain.labelled(25) == "25"
    assert rows(found)["cpc", "25", "dice"]["labelled"] == "25-26"


def test_rotated_folds_are_read_from_the_settings(tmp_path: Path) -> None:
    for task, gains in {"baseline": (0, 0, 0, 0), "cpc": (0.1, 0.12, 0.08, 0.1)}.items():
        for seed, gain in enumerate(gains):
            score = 0.4 + 0.01 * seed + gain
            write(tmp_path, task, 50, seed, test={"dice": score},
                  cases={f"c{seed}{i}": {"dice": score, "dice_a": score} for i in range(3)},
                  settings={"RESOLUTION": 32, "FOLDS": 5})
    found = curves.of(records.read(tmp_path), DICE)
    assert found.folds == 5 and found.test_cases == 12 and found.missing == []
    [one] = [point.difference for point in found.points if point.task == "cpc"]
    assert one is not None and one.mean == pytest.approx(0.1)
    square = float(np.var((0.1, 0.12, 0.08, 0.1), ddof=1))
    half = student.ppf(0.975, 3) * (square * (1 / 4 + 0.5 / 4)) ** 0.5
    assert one.interval == pytest.approx((0.1 - half, 0.1 + half))
    assert ("n = 12 test cases in 4 of 5 folds, each seed tested on one, 4 seeds"
            in tables.markdown(found))


def test_cases_and_draws_left_out_are_said(tmp_path: Path) -> None:
    folder = made(tmp_path)
    read = records.read(folder)
    first = read.finetune[0]
    extra = {**first["cases"], "c9": {"dice": 0.5, "dice_a": 0.5}}
    found = curves.of(replace(read, finetune=[{**first, "cases": extra}, *read.finetune[1:],
                                              {**first, "draw": 1}]), DICE)
    assert found.missing[-2:] == [f"{first['fraction']} %: draw 1 not of every arm, left out",
                                  f"{first['fraction']} %: case c9 not in every run, left out"]
    lacking = f"{first['task']} at {first['fraction']} %: draw 1 of seed"
    assert found.missing[:2] == [f"{lacking} 1", f"{lacking} 2"]  # and of the other arms
    assert len(found.missing) == 2 + 2 + 6 and found.draws[first["fraction"]] == "1-2"
    assert "## Missing" in tables.markdown(found)


def varied(folder: Path) -> Records:
    """Three arms and a control whose scores have no pattern."""
    rng = np.random.default_rng(0)
    for task in ("baseline", "oracle", *GAINS):
        for fraction in LEVELS:
            for seed in range(3):
                write(folder, task, fraction, seed, test={"dice": rng.random()},
                      cases={f"c{i}": {"dice": rng.random(), "dice_a": rng.random()}
                             for i in range(4)})
    for seed in range(3):
        save(folder / f"pretrain/cpc/seed{seed}", {
            "stage": "pretrain", "task": "cpc", "seed": seed, "chance": {"accuracy": 0.1},
            "score": {"accuracy": rng.random()}, "epochs": 9, "best_epoch": 7}, {})
    return records.read(folder)


def turned(read: Records) -> Records:
    """The same runs, and cases of each, the other way round."""
    return replace(read, finetune=[{**run, "cases": dict(reversed(run["cases"].items()))}
                                   for run in reversed(read.finetune)])


def test_tables_come_out_again_byte_for_byte(tmp_path: Path) -> None:
    first = curves.of(varied(tmp_path), DICE)
    texts = tables.markdown(first), tables.csv_text(first)
    for cache in (resamples, dunnett.quantile, family._limit):
        cache.cache_clear()
    second = curves.of(records.read(tmp_path), DICE)
    assert (tables.markdown(second), tables.csv_text(second)) == texts
    third = curves.of(turned(records.read(tmp_path)), DICE)  # whatever was read first
    assert tables.csv_text(third) == texts[1]
    whole, again = (text.partition("## Labels saved") for text in (texts[0],
                                                                  tables.markdown(third)))
    assert again[0] == whole[0] and sorted(again[2].split("\n")) == sorted(whole[2].split("\n"))


def test_labels_saved_are_in_the_order_of_the_tables_whatever_was_read_first(
        tmp_path: Path) -> None:
    read = varied(tmp_path)
    first, second = curves.of(read, DICE), curves.of(turned(read), DICE)
    assert list(first.reached) == list(second.reached)
    assert tables.markdown(first) == tables.markdown(second)


def test_a_seed_whose_arms_have_no_draw_in_common_is_left_out_and_named(tmp_path: Path) -> None:
    read = records.read(made(tmp_path))
    runs = [{**run, "draw": 1} if (run["task"], run["seed"]) == ("cpc", 2) else run
            for run in read.finetune]  # draw 0 is still being trained
    found = curves.of(replace(read, finetune=runs), DICE)
    assert any("draws 0, 1" in line for line in found.missing)


def test_the_last_weights_are_compared_on_the_draws_that_every_arm_has(tmp_path: Path) -> None:
    read = records.read(made(tmp_path))
    more = [{**run, "draw": 1, "last": {"test": {"dice": 1.0}}} for run in read.finetune
            if run["task"] == "cpc"]
    plain, found = (curves.of(replace(read, finetune=[*read.finetune, *some]), DICE)
                    for some in ([], more))
    for fraction in found.fractions:
        assert (found.families[fraction].differences["cpc"]
                == plain.families[fraction].differences["cpc"])
        assert (found.lasts[fraction].differences["cpc"]
                == plain.lasts[fraction].differences["cpc"])


def rated(read: Records, change: Callable[[Json], Json] = lambda rates: rates) -> Records:
    """The same runs, at rates that --tune has chosen for each arm; ``change`` alters one."""
    own = {"baseline": {"lr": 0.01, "factor": 1.0, "warmup": 0},
           "oracle": {"lr": 0.003, "factor": 0.0, "warmup": 0},
           **dict.fromkeys(GAINS, {"lr": 0.003, "factor": 0.1, "warmup": 2})}
    runs = [{**run, "identity": {**run["identity"], "rates": own[run["task"]]}}
            for run in read.finetune]
    runs[-1] = {**runs[-1], "identity": change(runs[-1]["identity"])}
    arms = {arm: {"chosen": rates, "trials": [
        {**rates, "lr": 0.1, "scores": [0.2, 0.75]}, {**rates, "scores": [0.512, 0.7]}]}
        for arm, rates in own.items()}
    arms["oracle"] |= {"own": 0.8, "kept": 0.64}
    return replace(read, finetune=runs, plan={"rates": {
        "seeds": [10, 11], "fractions": [5, 25], "arms": arms}})


def test_chosen_rates_are_told_arm_by_arm(tmp_path: Path) -> None:
    read = varied(tmp_path)
    text = tables.markdown(curves.of(rated(read), DICE))
    assert "## Rates" in text and "seeds 10 11" in text
    first, *others = [line for line in text.partition("## Rates")[2].partition("##")[0].split("\n")
                      if line.startswith("| ") and "0." in line]
    assert first == ("| baseline | 0.01 | - | - | 0.512 (0.200 to 0.512) | 0.700 (0.700 to 0.750) "
                     "| 2 |  |")
    assert others[-1] == ("| oracle (control) | 0.003 | 0 | 0 | 0.512 (0.200 to 0.512) | "
                          "0.700 (0.700 to 0.750) | 2 | 64 % |")
    assert len(others) == len(GAINS) + 1 and "| 0.003 | 0.1 | 2 |" in others[0]
    plain = curves.of(replace(read, plan=rated(read).plan), DICE)  # runs of before the choice
    assert "## Rates" not in tables.markdown(plain)


@pytest.mark.parametrize("change", [
    lambda identity: {**identity, "rates": {"lr": 1, "factor": 1, "warmup": 0}},
    lambda identity: {name: value for name, value in identity.items() if name != "rates"}])
def test_an_arm_has_one_choice_and_every_arm_has_one(
        tmp_path: Path, change: Callable[[Json], Json]) -> None:
    read = varied(tmp_path)
    assert curves.unlike(rated(read).finetune) is None
    assert "made with other settings" in str(curves.unlike(rated(read, change).finetune))
    without = [{**run, "identity": {name: value for name, value in run["identity"].items()
                                    if name != "rates" or run["task"] != "oracle"}}
               for run in rated(read).finetune]  # a whole arm
    assert "rates chosen: True -> False" in str(curves.unlike(without))


def test_an_oracle_that_kept_little_when_its_rates_were_chosen_is_named() -> None:
    found = read_of({**TWO, "oracle": 0.15})
    own = [{**run, "identity": {**run["identity"], "rates": {}}} for run in found.runs]
    arms = {"oracle": {"kept": 0.844, "least": 0.95}, "baseline": {},
            "oracle@decoder": {"kept": 0.96, "least": 0.95}}
    tuned = replace(found, runs=own, plan={"rates": {"fractions": [5, 100], "arms": arms}})
    assert ("When its rates were chosen the oracle kept 84 % of its own validation score at 5 %, "
            "under the 95 % asked for: there the recipe holds a part of a gain back."
            ) in reading.sentences(tuned)
    assert "oracle@decoder kept" not in said(tuned) and "kept" not in said(found)
