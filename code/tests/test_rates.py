"""What is said of exchange rates: table, csv, figure and reading; and of which runs."""

import csv
import importlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import looks_drawn
from test_curves import save
from test_exchange import LABELS, line

from common.errors import InputError
from common.report import curves, main, rates, reading, tables
from common.report.curves import Curves
from common.report.figures import exchange
from common.report.section import some
from common.runs import records
from common.runs.records import Records
from common.stats.exchange import Fit
from common.stats.measures import mean_of
from common.stats.worth import Value

DICE = [mean_of("dice", "Dice")]
TREE = replace(importlib.import_module("3d.graph").TREE, measures=lambda run: DICE)
SHARES = {25: 100, 50: 200, 100: 400}  # percent of the pool -> images


def finetuned(folder: Path, task: str, fraction: int, seed: int, score: float,
              share: int = 100) -> None:
    noise = [((7 * case + 13 * seed + 3 * fraction + len(task)) % 11 - 5) / 5000
             for case in range(12)]
    cases = {f"c{case}": {"dice": score + more} for case, more in enumerate(noise)}
    value = sum(case["dice"] for case in cases.values()) / len(cases)
    pool = {"pool": share} if share < 100 else {}
    encoder = None if task == "baseline" else {
        "stage": "pretrain", "task": task, "seed": seed, "settings": {"LR": 1},
        "pool images": f"digest {share}", **pool}
    part = f"/pool{share:03d}" if pool else ""
    save(folder / f"finetune/{task}/fraction{fraction:03d}{part}/seed{seed}", {
        "stage": "finetune", "task": task, "fraction": fraction, "seed": seed, "metric": "dice",
        "classes": ["a"], "resolution": 32, "labelled": int(LABELS[fraction]), "validation": 7,
        "test_cases": 12, "steps": 90, "generated": True, "test": {"dice": value},
        "selected": {"step": 3, "rule": "highest score on validation"},
        "last": {"test": {"dice": value}}, "cases": cases, **pool},
        {"settings": {"RESOLUTION": 32}, "data": "d", "splits": "s", "encoder": encoder, **pool})


def study(folder: Path, *, seeds: int = 3, gain: float = 3.0, shares: bool = False,
          fractions: tuple[int, ...] = tuple(LABELS)) -> Records:
    """A baseline and rpl, for which a label counts ``gain`` times; rpl on shares of its pool."""
    for seed in range(seeds):
        for fraction in fractions:
            for task, times in (("baseline", 1.0), ("rpl", gain)):
                finetuned(folder, task, fraction, seed, float(line(LABELS[fraction], times)))
        for share, images in SHARES.items() if shares else ():
            part = f"/pool{share:03d}" if share < 100 else ""
            own: dict[str, Any] = {"pool_share": share} if share < 100 else {}
            save(folder / f"pretrain/rpl{part}/seed{seed}", {
                "stage": "pretrain", "task": "rpl", "seed": seed, "epochs": 9, "chance": {},
                "score": {"loss": 0.1}, "best_epoch": 7, "pool": images, **own},
                {"pool": share} if share < 100 else {})
            if share < 100:
                level = float(line(LABELS[10], gain)) - 0.002 * (400 / images)
                finetuned(folder, "rpl", 10, seed, level, share)
    return records.read(folder)


def test_lists_in_words() -> None:
    assert some(["a", "b", "c"]) == "a, b and c" and some(["a"]) == "a"
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def row(found: Curves, task: str, title: str = "Exchange rates") -> list[str]:
    """An arm's cells in a table."""
    section = tables.markdown(found).partition(f"## {title}")[2]
    return next(line for line in section.splitlines() if line.startswith(f"| {task} |")
                ).strip("| ").split(" | ")


def numbers(found: Curves) -> dict[tuple[str, str, str], dict[str, str]]:
    return {(one["task"], one["what"], one["at"]): one
            for one in csv.DictReader(io.StringIO(rates.csv_text(found)))}


def test_the_table_and_the_csv_show_the_same_and_mark_what_is_extrapolated(
        tmp_path: Path) -> None:
    found = curves.of(study(tmp_path), DICE, target=0.78)
    assert found.exchange is not None
    one = found.exchange.rates["rpl"]
    assert one.saved is not None
    cells = row(found, "rpl")
    assert cells[1:3] == ["line", rates.labels(one.reach, one.fit)]
    assert cells[3] == rates.saved(one.saved) and cells[4].endswith(" (extrapolated)")
    assert cells[4].startswith(f"+{one.twice.value:.3f} (+")
    assert row(found, "baseline")[3] == "the reference"
    there = numbers(found)
    assert float(there["rpl", "labels to reach", "0.78"]["value"]) == pytest.approx(
        one.reach.value, rel=1e-5)
    assert there["rpl", "labels to reach", "0.78"]["extrapolated"] == ""
    assert there["rpl", "labels saved", "0.78"]["low"] == f"{one.saved.low:.6g}"
    assert there["rpl", "twice the labels", "182"]["extrapolated"] == "yes"
    assert "labels to reach 0.780" in tables.markdown(found)
    far = curves.of(study(tmp_path), DICE, target=float(line(250.0)))
    assert " extrapolated" in row(far, "baseline")[2].partition(" (")[0]
    said = next(line for line in reading.sentences(far) if line.startswith("To reach"))
    assert " labelled cases, extrapolated (" in said
    assert "extrapolated" not in row(far, "rpl")[2].partition(" (")[0]
    at = f"{float(line(250.0)):.6g}"
    assert [numbers(far)[task, "labels to reach", at]["extrapolated"] for task in
            ("baseline", "rpl")] == ["yes", ""]
    assert numbers(far)["rpl", "labels saved", at]["extrapolated"] == "yes"


@pytest.mark.parametrize(("value", "text"), [
    (Value(120.0), "120"), (Value(9.0, 9.0, 40.4), "at most 9 (at most 9 to 40)"),
    (Value(250.0, 30.0, float("inf")), "250 extrapolated (30 to not reached)"),
    (Value(float("inf"), 183.0, float("inf")), "not reached (183 extrapolated to not reached)")])
def test_every_wording_of_labels(value: Value, text: str) -> None:
    none = np.zeros(1)
    assert rates.labels(value, Fit(none, none, none, 9, 182, 1.0)) == text


@pytest.mark.parametrize(("value", "text"), [
    (Value(63.4), "63"), (Value(63.4, -12.0, float("inf")), "63 (-12 to open)"),
    (Value(float("nan"), -float("inf"), float("inf")), "not given")])
def test_every_wording_of_labels_saved(value: Value, text: str) -> None:
    assert rates.saved(value) == text


def test_the_reading_says_what_is_saved_only_where_it_is_shown(tmp_path: Path) -> None:
    found = curves.of(study(tmp_path / "a"), DICE, target=0.78)
    assert found.exchange is not None
    base, arm = found.exchange.rates.values()
    assert arm.saved is not None and arm.saved.low is not None and arm.saved.low > 0
    number, bracket, rest = rates.labels(base.reach, base.fit).partition(" (")
    start = ("To reach 0.780 the baseline's curve, fitted through all its fractions, needs "
             f"{number} labelled cases{bracket}{rest}")
    assert (f"{start}; rpl {rates.labels(arm.reach, arm.fit)}, saving {rates.saved(arm.saved)} "
            "(intervals of one arm each; that they need fewer is shown for one arm).") in (
                reading.sentences(found))
    none = curves.of(study(tmp_path / "b", gain=1.0), DICE, target=0.78)
    said = " ".join(reading.sentences(none))
    assert "; that an arm needs fewer is not shown, the smallest estimate is rpl with " in said
    far = curves.of(study(tmp_path / "a"), DICE, target=0.9)
    assert ("To reach 0.900 the baseline's curve, fitted through all its fractions, needs more "
            "than are looked up; no arm is seen to reach it.") in " ".join(reading.sentences(far))
    bare = replace(found, exchange=replace(found.exchange, bounded=False))
    assert "To reach" not in " ".join(reading.sentences(bare))
    two = curves.of(study(tmp_path / "c", seeds=2), DICE)
    assert "To reach" not in " ".join(reading.sentences(two)) and two.exchange is not None
    assert "Without intervals: nothing can be claimed." in tables.markdown(two)
    assert " to " not in row(two, "rpl")[2] + row(two, "rpl")[3]


def one_fraction(folder: Path, **how: Any) -> Records:
    """The baseline's whole curve; rpl at 10 % alone."""
    read = study(folder, **how)
    return replace(read, finetune=[run for run in read.finetune if run["task"] == "baseline"
                                   or run["fraction"] == 10])


def test_an_arm_of_one_fraction_has_what_its_labels_are_worth(tmp_path: Path) -> None:
    found = curves.of(one_fraction(tmp_path), DICE)
    assert found.exchange is not None and list(found.exchange.rates) == ["baseline"]
    value = found.exchange.worth["rpl"][10]
    assert value.value == pytest.approx(54, rel=0.02) and value.low and 18 < value.low < 54
    assert row(found, "rpl", "Labels worth") == ["rpl", rates.worth(value, found)]
    assert "| task | 18 are worth |" in tables.markdown(found)
    assert numbers(found)["rpl", "labels worth", "10 %"]["low"] == f"{value.low:.6g}"
    assert (f"In labelled cases of the baseline 18 are worth {rates.worth(value, found)} with rpl "
            "(95 % intervals of one arm each).") in reading.sentences(found)
    far = replace(value, high=float("inf"))
    assert rates.worth(far, found).endswith(" to over 182)")
    assert rates.worth(Value(9.0, 9.0, 9.0), found) == "at most 9"  # ends alike are not given


def test_worth_is_read_where_a_gain_is_shown_at_the_primary_fraction_first(tmp_path: Path) -> None:
    read = study(tmp_path / "a")
    found = curves.of(read, DICE)
    assert [point.fraction for point, _ in reading.worth(found)] == [5]
    named = replace(read, plan={"primary": {"arm": "rpl", "fraction": 25, "scores_then": 0}})
    assert [point.fraction for point, _ in reading.worth(curves.of(named, DICE))] == [25]
    for gain in (1.0, 0.5):  # neither a gain that is not shown nor a loss
        other = curves.of(study(tmp_path / str(gain), gain=gain), DICE)
        assert not reading.worth(other) and "are worth" not in " ".join(reading.sentences(other))
        assert other.exchange is not None  # an interval of one arm alone is no claim
        sure = replace(other.exchange, worth={"rpl": {5: Value(20.0, 15.0, 30.0)}})
        assert not reading.worth(replace(other, exchange=sure))
    assert found.exchange is not None
    low = {"rpl": {5: replace(found.exchange.worth["rpl"][5], low=9.0)}}
    assert not reading.worth(replace(found, exchange=replace(found.exchange, worth=low)))
    assert not reading.worth(replace(found, exchange=None))


def test_where_the_baseline_gains_nothing_from_labels_none_are_worth_more(tmp_path: Path) -> None:
    read = study(tmp_path)
    flat = curves.of(replace(read, finetune=[
        run if run["task"] == "rpl" else next(one for one in read.finetune if (
            one["task"], one["fraction"], one["seed"]) == ("baseline", 5, run["seed"]))
        | {name: run[name] for name in ("fraction", "labelled")} for run in read.finetune]), DICE)
    said = " ".join(reading.sentences(flat))
    assert "there are none to be saved" in said
    assert "are worth" not in said and "To reach" not in said


def test_arms_without_all_seeds_are_said_to_lack_their_worth(tmp_path: Path) -> None:
    read = study(tmp_path, seeds=4)
    assert "Left out" not in tables.markdown(curves.of(read, DICE))
    few = curves.of(replace(read, finetune=[run for run in read.finetune if (
        run["task"], run["fraction"], run["seed"]) != ("rpl", 25, 3)]), DICE)
    assert "Left out, without all of the baseline's seeds: rpl at 25 %." in tables.markdown(few)


def test_fewer_fractions_of_the_baseline_do_not_say_what_labels_are_worth(tmp_path: Path) -> None:
    found = curves.of(study(tmp_path, fractions=(5, 25, 100)), DICE)
    assert "## Labels worth" not in tables.markdown(found) and not reading.worth(found)


def test_runs_on_a_share_of_the_pool_are_no_points_of_the_arm(tmp_path: Path) -> None:
    whole, parts = (study(tmp_path / name, shares=name == "b") for name in "ab")
    plain, found = curves.of(whole, DICE), curves.of(parts, DICE)
    assert found.points == plain.points and found.runs == plain.runs
    assert len(found.pretraining) == 3 and not plain.pools
    (pool,) = found.pools
    assert (pool.task, pool.fraction, pool.images) == ("rpl", 10, SHARES)
    assert pool.gains[100].mean == pytest.approx(0.02 * 1.0986, abs=0.002)
    assert pool.gains[25].mean == pytest.approx(pool.gains[100].mean - 0.008, abs=0.002)
    text = tables.markdown(found)
    assert "## Shares of the pool" in text and "## Shares of the pool" not in (
        tables.markdown(plain))
    assert f"| rpl | 10 % | 25 % | 100 | {pool.gains[25].mean:+.3f} (" in text
    assert pool.worth is not None
    assert (f"At 10 % of the labels one more label is worth as much to rpl as "
            f"{rates.images(pool.worth)} more unlabelled images.") in reading.sentences(found)
    assert pool.doubling is not None
    assert (f"At 10 % of the labels a doubling of the pool, {SHARES[25]} to {SHARES[100]} images, "
            f"brings rpl {rates.score(pool.doubling)}, not adjusted: more images are better."
            ) in reading.sentences(found)
    for low, high, words in ((-0.1, 0.2, "that more images are better is not shown."),
                             (-0.2, -0.1, "more images are worse.")):
        other = replace(pool, doubling=replace(pool.doubling, low=low, high=high), images={})
        (line,) = (line for line in reading.sentences(replace(found, pools=[other]))
                   if "a doubling of the pool brings" in line)
        assert line.endswith(f"({low:+.3f} to {high:+.3f}), not adjusted: {words}")
    alone = replace(found, pools=[replace(pool, doubling=None)])
    assert "a doubling of the pool" not in " ".join(reading.sentences(alone))
    none = replace(found, pools=[replace(pool, worth=None)])
    assert ("How many unlabelled images are worth a label to rpl at 10 % is not shown."
            ) in reading.sentences(none)
    assert "| not shown |" in tables.markdown(none)
    assert numbers(found)["rpl", "gain at 10 %", "50 % of the pool"]["low"]


def test_shares_with_encoders_of_other_settings_are_refused(tmp_path: Path) -> None:
    read = study(tmp_path, shares=True)
    for run in read.finetune:
        if run.get("pool") == 25:
            run["identity"]["encoder"]["settings"] = {"LR": 2}
    with pytest.raises(InputError, match="LR: 1 -> 2"):
        curves.of(read, DICE)


def test_tables_csv_and_figure_are_the_same_byte_for_byte(tmp_path: Path) -> None:
    read = study(tmp_path, shares=True)
    files = []
    for name in "ab":
        found = curves.of(read, DICE)
        exchange.draw(found, tmp_path / f"{name}.png", axis="Dice")
        files.append((tables.markdown(found), rates.csv_text(found),
                      (tmp_path / f"{name}.png").read_bytes()))
    assert files[0] == files[1]


def test_the_command_takes_a_score_and_writes_the_csv_and_the_figure_beside(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(tmp_path / "3d" / "made")
    for name in ("difference", "learning", "efficiency"):
        module = importlib.import_module(f"common.report.figures.{name}")
        monkeypatch.setattr(module, "write", lambda figure, path: None)
    given = ["--results", str(tmp_path)]
    for score in ("80", "1.1", "-1"):
        with pytest.raises(InputError, match=rf"--target {score}: scores go up to 1; for Dice"):
            main.run(TREE, "", [*given, "--target", score])
    main.run(TREE, "", [*given, "--target", "0.78"])
    looks_drawn(tmp_path / "exchange_made.png")
    assert "rpl,labels to reach,0.78," in (tmp_path / "exchange_made.csv").read_text()
    assert "labels to reach 0.780" in (tmp_path / "train_made.md").read_text()
    for path in (tmp_path / "3d/made/finetune/baseline").glob("*/*/scores.json"):
        path.unlink()
    main.run(TREE, "", given)
    assert not [*tmp_path.glob("exchange_*")]  # old ones would not fit the tables
