"""What the reading says against a gain that it has just claimed."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student
from test_reading import (
    DOWN,
    LEVEL,
    LEVELS,
    TWO,
    UP,
    ends,
    gain,
    made,
    point,
    pretrained,
    run,
    said,
)

from common.report import claims, curves, reading, tables
from common.report.page import answer, provenance
from common.runs.records import Records
from common.stats.measures import mean_of

DICE = [mean_of("dice", "Dice")]


def test_a_gain_that_a_shuffled_start_has_as_well_is_not_laid_to_what_was_learnt() -> None:
    found = made({**TWO, "rpl": {5: UP, 100: LEVEL}, "rpl@shuffled": {5: 0.2, 100: LEVEL}})

    def unsure(*gains: float) -> curves.Curves:
        """The same with a shuffled start whose gains at 5 % differ from seed to seed."""
        runs = [one if (one["task"], one["fraction"]) != ("rpl@shuffled", 5) else run(
            "rpl@shuffled", 5, one["seed"], LEVELS[5] + gains[one["seed"]],
            LEVELS[5] + gains[one["seed"]], 1) for one in found.runs]
        return curves.of(Records(Path("x"), "x", {}, runs, [], plan={}), DICE)
    for gains in ((0.4, -0.1, 0.4, -0.1, 0.4), (0.2, -0.15, 0.2, -0.2, 0.2)):  # more; less
        seen = unsure(*gains)
        assert claims.verdict(point(seen, "rpl@shuffled", 5)) == "not shown"
        line = next(one for one in reading.sentences(seen) if "Not shown to lie above its" in one)
        apart = np.array([point(seen, "rpl", 5).difference.scores]) - np.array([gains])
        middle, half = apart.mean(), student.ppf(0.975, 4) * apart.std(ddof=1) / 5**0.5
        theirs = ends(seen, "rpl@shuffled", 5)
        shown, low, high = map(float, re.findall(r"[+-]\d\.\d+", line.replace(theirs, "")))
        assert shown == pytest.approx(middle, abs=6e-4)
        assert 1 <= (high - low) / (2 * half) < 1.05  # training sets overlap, so a little wider
        assert low + high == pytest.approx(2 * middle, abs=2e-3)
        assert line == (
            "Not shown to lie above its shuffled start, which has lost all it had learnt: rpl at "
            f"5 % by {shown:+.3f} ({low:+.3f} to {high:+.3f}), that start itself at {theirs} (not "
            "adjusted). What is gained there need not come from what was learnt.")
    assert "above its shuffled" not in said(found)  # shown above itself: said elsewhere
    less = made({**TWO, "rpl": {5: UP, 100: LEVEL}, "rpl@shuffled": {5: LEVEL, 100: LEVEL}})
    assert "Not shown to lie above its" not in said(less)
    line = next(one for one in reading.sentences(less) if "above its shuffled" in one)
    assert line.startswith("Shown to lie above its shuffled start, which has lost all it had "
                           "learnt: rpl at 5 % by +0.099 (+0.")
    assert line.endswith(f"that start itself at {ends(less, 'rpl@shuffled', 5)} (not adjusted).")
    ours = made({**TWO, "oracle@decoder": {5: UP, 100: LEVEL},
                 "oracle@decoder@shuffled": {5: LEVEL, 100: LEVEL}})
    assert "above its shuffled" not in said(ours)  # controls claim nothing
    none = made({**TWO, "rpl": LEVEL, "rpl@shuffled": {5: 0.002, 100: 0.002}})
    assert "above its shuffled" not in said(none)  # nothing is claimed that could be in doubt


def test_a_doubt_at_another_fraction_is_none_of_the_primary_comparisons() -> None:
    gains = {"baseline": 0, "rpl": UP, "rpl@shuffled": {5: LEVEL, 100: UP}}
    less = {"baseline": 0, "rpl": 0.3, "rpl@shuffled": UP}
    assert claims.verdict(point(made(less), "rpl@shuffled", 5)) == "above"
    assert answer.tiles(made(less))[0].answer == "Yes"  # gains too, and less
    assert "rpl at 5 % by +0.2" in said(made(less))
    for plan, told in (({}, "Doubtful"),
                       ({"primary": {"arm": "rpl", "fraction": 5}}, "Yes"),
                       ({"primary": {"arm": "rpl", "fraction": 100}}, "Doubtful"),
                       ({"primary": {"arm": "cpc", "fraction": 5}}, "Doubtful")):
        tile = answer.tiles(made(gains, plan=plan))[0]
        assert tile.answer == told
        assert any(line.startswith("Shown to lie above its") and "rpl at 5 %" in line
                   for line in tile.lines)
        assert any("lies above the baseline too: rpl@shuffled at 100 %" in line
                   for line in tile.lines)  # said all the same


def test_beside_shuffled_starts_the_primary_comparison_is_read_first() -> None:
    gains = {"baseline": 0, "cpc": UP, "cpc@shuffled": LEVEL, "rpl": UP,
             "rpl@shuffled": {5: LEVEL, 100: 0.099}}
    wild = made(gains)
    runs = [run(one["task"], one["fraction"], one["seed"], score, score, 1) for one in wild.runs
            for score in [one["test"]["dice"] + (one["task"] == "rpl@shuffled" and
                                                 one["fraction"] == 100) * (-1)**one["seed"] * 0.3]]

    def lines(**plan: Any) -> list[str]:
        seen = curves.of(Records(Path("x"), "x", {}, runs, [], plan=plan), DICE)
        return [line for line in reading.sentences(seen) if "lie above its shuffled" in line]
    first, second = lines()
    assert first.startswith("Shown to lie above its shuffled start, which has lost all it had")
    assert second.startswith("Not shown to lie above its shuffled start: rpl at 100 % by ")
    assert [*re.findall(r"(\w+ at \d+) % by", first)] == ["cpc at 5", "rpl at 5", "cpc at 100"]
    turned, other = lines(primary={"arm": "rpl", "fraction": 100})
    assert turned.startswith("Not shown to lie above its shuffled start, which has lost all it had")
    assert other.startswith("Shown to lie above its shuffled start: cpc at 5 % by ")
    named, _ = lines(primary={"arm": "cpc", "fraction": 100})
    assert [*re.findall(r"(\w+ at \d+) % by", named)] == ["cpc at 100", "cpc at 5", "rpl at 5"]


def test_the_oracle_is_asked_where_the_primary_comparison_is_made() -> None:
    plan = {"primary": {"arm": "cpc", "fraction": 100}}
    found = made({**TWO, "oracle": {5: 0.15, 100: LEVEL}}, plan=plan)
    there, few = said(found).index("baseline at 100 %: "), said(found).index("baseline at 5 %: ")
    assert there < said(found).index("There this study cannot judge any arm.") < few
    assert said(found).count("cannot judge") == 1
    alone = made({**TWO, "oracle": {100: UP}}, plan=plan)
    assert "lies above the baseline at 100 %" in said(alone) and "No oracle" not in said(alone)


def test_an_arm_that_is_as_good_no_sooner_than_the_baseline_may_be_saves_no_labels() -> None:
    late = made({"baseline": 0.0, "cpc": {5: DOWN, 10: DOWN, 100: 0.02}}, fractions=(5, 10, 100))
    base, arm = (late.reached[task] for task in ("baseline", "cpc"))
    assert base.low is not None and arm.high is not None and base.low < arm.high < 100
    assert "no arm is shown to be as good with fewer labels as the baseline on all." in (
        " ".join(reading.sentences(late)))


def test_every_shown_gain_is_named() -> None:
    found = made({"baseline": 0.0, "cpc": UP, "rpl": UP, "jigsaw": UP})
    names = [gain(found, arm, fraction) for arm in ("cpc", "jigsaw", "rpl")
             for fraction in (5, 100)]
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    assert f"Shown to lie above the baseline: {listed} (95 %" in said(found)


def test_a_gain_that_the_scale_has_no_room_for_is_said_to_be_one() -> None:
    wild = made({"baseline": 0, "rpl": LEVEL})
    assert "no room for" not in said(wild)
    runs = [run(one["task"], one["fraction"], one["seed"], score, score, 1) for one in wild.runs
            for score in [0.5 + 0.49 * (-1) ** (one["seed"] + (one["task"] == "rpl"))]]
    seen = curves.of(Records(Path("x"), "x", {}, runs, [], plan={}), DICE)
    assert (could := seen.could_show(5)) is not None and could[1][1] > 0.6
    assert f"{could[1][1]:.3f}, which the scale has no room for, in four of five" in said(seen)


def test_how_far_each_pretext_task_was_learnt_is_told_with_its_numbers() -> None:
    gains = {"baseline": 0, "rpl": LEVEL, "cpc": LEVEL}
    for half, told in ((0.96, "Solved"), (0.6, "In part"), (0.21, "Not all")):
        study = made(gains, pretrain=[pretrained("rpl", accuracy=(0.99, 0.1)),
                                      pretrained("cpc", accuracy=(half, 0.2))])
        tile = answer.tiles(study)[-1]
        assert (tile.question, tile.answer) == ("Were the pretext tasks learnt?", told)
        share = 100 * (half - 0.2) / 0.8
        assert (f"cpc: accuracy {half:.3f}, where a guess has 0.200: {share:.0f} % of the way to a "
                "perfect score.") in tile.lines
        assert any(line.startswith("rpl: accuracy 0.990") for line in tile.lines)


def test_the_tables_have_every_arm_less_its_shuffled_start() -> None:
    found = made({**TWO, "rpl@shuffled": {5: DOWN}})
    less = claims.apart(found, point(found, "rpl", 5), point(found, "rpl@shuffled", 5))
    assert less.interval is not None and less.mean > 0
    [section] = [one for one in tables.sections(found) if "shuffled start" in one.title]
    low, high = less.interval
    said_so = f"{less.mean:+.3f} ({low:+.3f} to {high:+.3f})"
    assert section.rows == [["rpl", "5 %", said_so, said_so]]  # the last weights are the chosen
    assert not any("shuffled start" in one.title for one in tables.sections(made(TWO)))


def test_an_arm_less_its_shuffled_start_is_read_with_the_last_weights_too() -> None:
    gains = {**TWO, "rpl": {5: UP, 100: LEVEL}, "rpl@shuffled": LEVEL}
    found = made(gains, lasts={"rpl@shuffled": {5: UP, 100: LEVEL}})
    less = claims.apart(found, *claims.pairs(found)[0], last=True)
    theirs = claims.apart(made({**gains, "rpl@shuffled": {5: UP, 100: LEVEL}}),
                          *claims.pairs(found)[0])
    assert less.interval is not None and theirs.interval is not None
    assert (less.mean, *less.interval) == pytest.approx((theirs.mean, *theirs.interval), abs=1e-6)
    [section] = [one for one in tables.sections(found) if "shuffled start" in one.title]
    assert section.rows[0][2] != section.rows[0][3] == (
        f"{less.mean:+.3f} ({less.interval[0]:+.3f} to {less.interval[1]:+.3f})")
    [line] = [one for one in reading.sentences(found) if one.startswith("With the last weights")]
    assert "reads otherwise for rpl@shuffled at 5 %" in line and line.endswith(
        f" and rpl at 5 % less its shuffled start ({less.mean:+.3f}, {less.interval[0]:+.3f} to "
        f"{less.interval[1]:+.3f}: not shown).")


def test_a_page_has_how_what_is_handed_on_is_trained() -> None:
    found = made(TWO)
    for number, one in enumerate(found.runs):
        one["identity"]["encoder"] = {"start lr factor": 0.5, "norm": "eval"} if number else None
    rows = provenance.sections(found)[0].rows
    assert ["START_LR_FACTOR", "0.5"] in rows and ["START_NORM", "eval"] in rows


@pytest.mark.parametrize("arm", ["oracle", "rpl"])
def test_a_page_says_whose_constants_an_oracle_is_pretrained_with(arm: str) -> None:
    study = made(TWO, pretrain=[{**pretrained(arm), "identity": {"settings": {"SEED": 1}}}])
    words = {one.title: one.words for one in provenance.sections(study)}
    assert ("An oracle is pretrained with those of finetuning." in words["Pretraining"]) == (
        arm == "oracle")
    assert "oracle" not in words["Finetuning"]
