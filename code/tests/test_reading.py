"""Every wording of the reading, from records that meet its condition and from some that do not."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.report import curves, reading
from common.report.curves import Curves, Point
from common.runs.records import Records
from common.stats.measures import mean_of

DICE = [mean_of("dice", "Dice")]
WAVE = (0.0, 0.01, -0.01, 0.005, -0.005)  # what an arm's seeds vary by
LEVELS = {5: 0.4, 10: 0.45, 25: 0.5, 50: 0.55, 100: 0.6}  # of the baseline
Gains = Mapping[str, Any]                 # arm -> gain at every fraction, or fraction -> gain

UP, LEVEL, DOWN = 0.1, 0.001, -0.1  # shown above, not shown, shown below


def made(gains: Gains, *, fractions: Sequence[int] = (5, 100), seeds: Sequence[int] = range(5),
         lasts: Gains | None = None, folds: int = 1, plan: Any = None,
         pretrain: Sequence[Any] = ()) -> Curves:
    """A study of these gains over the baseline; ``lasts`` are those of the last weights.

    Every arm's seeds vary by a WAVE of its own.
    """
    runs = []
    for number, arm in enumerate(gains):
        for fraction in fractions:
            if (gain := _at(gains[arm], fraction)) is None:
                continue
            for place, seed in enumerate(seeds):
                wave = WAVE[(place * (number + 1) + number) % 5]
                last = _at((lasts or {}).get(arm, gain), fraction)
                score, other = (LEVELS[fraction] + one + wave for one in (gain, last))
                runs.append(run(arm, fraction, seed, score, other, folds))
    return curves.of(Records(Path("x"), "x", {}, runs, list(pretrain), plan=plan or {}), DICE)


def _at(value: Any, fraction: int) -> Any:
    return value.get(fraction) if isinstance(value, Mapping) else value


def run(arm: str, fraction: int, seed: int, score: float, last: float, folds: int) -> Any:
    cases = {f"c{seed % folds}{i}": {"dice": score} for i in range(4)}
    return {"stage": "finetune", "task": arm, "fraction": fraction, "seed": seed,
            "labelled": fraction, "generated": False, "cases": cases, "steps": 900,
            "test": {"dice": score}, "last": {"test": {"dice": last}}, "validation": 2,
            "selected": {"rule": "best"}, "identity": {"settings": {"FOLDS": folds}}}


def pretrained(task: str, **scores: tuple[float, float]) -> Any:
    """A pretraining run with scores, each with its chance."""
    return {"stage": "pretrain", "task": task, "seed": 0, "epochs": 9, "best_epoch": 7,
            "validations": {}, "chance": {name: chance for name, (_, chance) in scores.items()},
            "score": {name: score for name, (score, _) in scores.items()}}


def said(found: Curves) -> str:
    lines = reading.sentences(found)
    assert all(line.endswith(".") and "\n" not in line for line in lines)
    return " ".join(lines)


def point(found: Curves, arm: str, fraction: int) -> Point:
    return next(one for one in found.points if (one.task, one.fraction) == (arm, fraction))


def gain(found: Curves, arm: str, fraction: int) -> str:
    """As every sentence has it: the mean and the interval that a claim rests on."""
    one = point(found, arm, fraction)
    assert one.difference is not None and one.interval is not None
    return (f"{arm} at {fraction} % {one.difference.mean:+.3f} "
            f"({one.interval[0]:+.3f} to {one.interval[1]:+.3f})")


def ends(found: Curves, arm: str, fraction: int) -> str:
    return gain(found, arm, fraction).partition(" % ")[2]


TWO = {"baseline": 0.0, "cpc": UP, "rpl": LEVEL}


def test_without_a_baseline_nothing_is_compared() -> None:
    assert said(made({"cpc": UP})) == "There is no baseline: nothing is compared."
    assert "no baseline" not in said(made(TWO))


def test_a_baseline_alone_has_nothing_beside_it() -> None:
    line = "There is nothing beside the baseline to compare with it."
    assert said(made({"baseline": 0.0})) == line
    assert said(made({"baseline": {5: 0.0}, "cpc": {100: UP}})) == line  # at no fraction both
    assert line not in said(made(TWO))


def test_under_three_seeds_nothing_can_be_claimed() -> None:
    found = made(TWO, seeds=range(2), pretrain=[pretrained("cpc", accuracy=(0.2, 0.2))])
    first, second = reading.sentences(found)
    assert first == "Under 3 seeds there are no intervals: nothing can be claimed."
    assert second.startswith("Not learnt: cpc")
    assert "Under" not in said(made(TWO, seeds=range(3)))
    same = made(TWO, seeds=(0, 1, 5), folds=5)  # three seeds, of two folds
    assert said(same) == ("Under 3 seeds on different folds there are no intervals: nothing can "
                          "be claimed.")
    assert "Under" not in said(made(TWO, seeds=(0, 1, 2), folds=5))


@pytest.mark.parametrize(("size", "words"), [
    (UP, "a gain is shown"), (DOWN, "a loss is shown"), (LEVEL, "no difference is shown")])
def test_the_primary_comparison_comes_first_and_is_not_adjusted(size: float, words: str) -> None:
    plan = {"primary": {"arm": "cpc", "fraction": 5}}
    found = made({**TWO, "cpc": size}, plan=plan)
    one = point(found, "cpc", 5).difference
    assert one is not None and one.interval is not None and one.adjusted is not None
    assert one.interval[1] < one.adjusted[1]
    assert reading.sentences(found)[0] == (
        f"Primary comparison, named before it was made: cpc at 5 % {one.mean:+.3f} "
        f"({one.interval[0]:+.3f} to {one.interval[1]:+.3f}), not adjusted: {words}.")
    assert "Primary" not in said(made({**TWO, "cpc": size}, plan={}))
    other: Any = {"primary": {"arm": "mae", "fraction": 5}}
    assert reading.sentences(made({**TWO, "cpc": size}, plan=other))[0] == (
        "Primary comparison: mae at 5 %, not run yet.")


def test_the_primary_comparison_is_not_one_of_those_shown_besides() -> None:
    plan = {"primary": {"arm": "cpc", "fraction": 5}}
    found = made({"baseline": 0.0, "cpc": {5: UP}, "rpl": {5: LEVEL}}, fractions=[5], plan=plan)
    assert "No other comparison is shown to lie above the baseline" in said(found)
    assert "largest estimate is rpl" in said(found) and "Shown to" not in said(found)
    alone = made({"baseline": 0.0, "cpc": UP}, fractions=[5], plan=plan)
    assert "comparison is shown" not in said(alone) and "Shown to" not in said(alone)


def test_an_oracle_above_the_baseline_says_how_far_it_goes() -> None:
    found = made({**TWO, "oracle": {5: 0.15, 100: DOWN}})
    line = (f"The oracle, which has seen all labels, lies above the baseline at 5 %: "
            f"{ends(found, 'oracle', 5)}, 75 % of the way to the baseline on all labels.")
    assert line in reading.sentences(found)  # .15 of .6 - .4; what it does at 100 % is not asked
    few = made({**TWO, "oracle": 0.15}, fractions=[5, 10])
    assert "lies above the baseline at 5 %: " + ends(few, "oracle", 5) + "." in said(few)
    assert "of the way" not in said(few)
    assert "No oracle" not in said(found) and "cannot judge" not in said(found)
    flat = made({"baseline": {5: 0.2, 100: 0.0}, "cpc": {5: 0.2}, "oracle": {5: 0.35}})
    assert "of the way" not in said(flat)  # the baseline does not rise


@pytest.mark.parametrize("size", [LEVEL, DOWN])
def test_an_oracle_that_is_not_above_the_baseline_judges_no_arm(size: float) -> None:
    found = made({**TWO, "oracle@decoder": {5: size, 100: UP}})
    assert ("The oracle@decoder, which has seen all labels, is not shown to lie above the baseline "
            f"at 5 %: {ends(found, 'oracle@decoder', 5)}. There this study cannot judge any arm."
            ) in said(found)
    other = made({**TWO, "oracle": {5: 0.15}, "oracle@decoder": {5: size, 100: UP}})
    assert "oracle@decoder, which has seen all labels, is not shown" in said(other)
    assert "cannot judge" not in said(other)  # one that is above shows that there is something


def test_without_an_oracle_the_recipe_is_not_known() -> None:
    line = "No oracle was run at 5 %: whether this recipe lets a gain through is not known."
    assert line in reading.sentences(made(TWO))
    assert line in reading.sentences(made({**TWO, "oracle": {100: UP}}))
    assert line in reading.sentences(made({**TWO, "oracle@shuffled": UP}))  # a negative control
    assert line not in reading.sentences(made({**TWO, "oracle": {5: LEVEL}}))


def test_an_oracle_with_few_seeds_is_not_said_not_to_have_been_run() -> None:
    runs = [one for one in made({**TWO, "oracle": UP}).runs
            if one["task"] != "oracle" or one["seed"] < 2]
    found = curves.of(Records(Path("x"), "x", {}, runs, []), DICE)
    assert point(found, "oracle", 5).difference is not None
    assert "No oracle was run" not in said(found)


def test_arms_shown_above_and_below_the_baseline() -> None:
    found = made({**TWO, "jigsaw": {5: DOWN, 100: LEVEL}, "oracle": UP, "mae@shuffled": DOWN})
    lines = reading.sentences(found)
    adjusted = "(95 % intervals adjusted for the 3 arms of a fraction)."
    assert (f"Shown to lie above the baseline: {gain(found, 'cpc', 5)} and "
            f"{gain(found, 'cpc', 100)} {adjusted}") in lines  # controls are not among them
    assert f"Shown to lie below the baseline: {gain(found, 'jigsaw', 5)} {adjusted}" in lines
    assert "No arm is shown" not in said(found)
    assert "below the baseline: " not in said(made(TWO))


def test_no_arm_shown_above_names_the_largest_estimate() -> None:
    found = made({"baseline": 0.0, "cpc": {5: 0.002, 100: -0.001}, "rpl": DOWN, "oracle": UP})
    assert (f"No arm is shown to lie above the baseline (95 % intervals adjusted for the 2 arms of "
            f"a fraction); the largest estimate is {gain(found, 'cpc', 5)}."
            ) in reading.sentences(found)
    assert "Shown to lie below" in said(found) and "Shown to lie above" not in said(found)
    only = said(made({"baseline": 0.0, "oracle": UP}))
    assert "Shown to" not in only and "No arm is shown to lie" not in only  # controls alone


def test_what_the_intervals_are_adjusted_for() -> None:
    one = said(made({"baseline": 0.0, "cpc": UP}))
    assert "(one arm, so not adjusted)" in one
    some = said(made({**TWO, "jigsaw": {5: UP}}))
    assert "(95 % intervals adjusted for the 2 to 3 arms of a fraction)" in some


def test_fractions_where_arms_vary_unequally_are_named() -> None:
    arms: dict[str, float] = dict.fromkeys(("baseline", "cpc", "rpl", "jigsaw", "mae"), LEVEL)
    found = made(arms)
    line = "At 5 % the arms vary unequally; those that vary more have wider intervals there."
    assert not any(one.moderated for one in found.families.values())
    assert "unequally" not in said(found)
    pooled = found.families[5].pooled
    assert pooled is not None
    unequal = replace(found, families={**found.families, 5: replace(
        found.families[5], pooled=replace(pooled, own=((1e-4, 9.0),) * 4))})
    assert line in reading.sentences(unequal)
    both = replace(unequal, families=dict.fromkeys((5, 100), unequal.families[5]))
    assert line.replace("5 %", "5 and 100 %") in reading.sentences(both)


def test_what_could_be_shown_is_said_at_the_ends() -> None:
    runs = [one for one in made(TWO, fractions=[5, 10, 100]).runs
            if (one["task"], one["fraction"], one["seed"]) != ("rpl", 5, 4)]
    found = curves.of(Records(Path("x"), "x", {}, runs, []), DICE)
    few, all_ = found.could_show(5), found.could_show(100)
    assert few is not None and all_ is not None and few[0][0] < few[0][1]  # rpl lacks a seed
    assert ("By its spread alone, a study like this shows in half of its repetitions a gain of "
            f"{few[0][1]:.3f} at 5 % ({few[1][1]:.3f} in four of five) and {all_[0][1]:.3f} at "
            f"100 % ({all_[1][1]:.3f} in four of five).") in reading.sentences(found)
    named = replace(found, points=[replace(one, primary=(one.task, one.fraction) == ("rpl", 10))
                                   for one in found.points])
    mine = point(named, "rpl", 10).could_show
    assert mine is not None and mine[0] < few[0][1]
    assert (f"a gain of {mine[0]:.3f} at 10 % for the primary comparison ({mine[1]:.3f} in four of "
            f"five), {few[0][1]:.3f} at 5 % (") in said(named)
    one = made(TWO, fractions=[5])
    assert (could := one.could_show(5)) is not None
    assert (f"a gain of {could[0][1]:.3f} at 5 % ({could[1][1]:.3f} in four of five)."
            ) in said(one)
    assert "By its spread" not in said(made(TWO, seeds=range(2)))


@pytest.mark.parametrize(("times", "word"), [
    (1.0, "alike"), (1.24, "alike"), (0.81, "alike"), (1.26, "less, 0.8 times as much"),
    (4, "less, 0.2 times as much"), (0.79, "1.3 times as much"), (0.2, "5.0 times as much")])
def test_what_was_expected_before_training_is_compared(times: float, word: str) -> None:
    could = made(TWO).could_show(5)
    assert could is not None
    half = could[0][1] * times  # the gain that was expected to be shown
    plan = {"power": [{"fraction": 25, "seeds": 5, "half": 1.0, "source": "none"},
                      {"fraction": 5, "seeds": 5, "half": half, "source": "a study"},
                      {"fraction": 100, "seeds": 5, "half": 1.0, "source": "none"}]}
    assert (f"Expected at 5 % before training were {half:.3f}, by the spread of a study: these "
            f"runs scatter {word}.") in reading.sentences(made(TWO, plan=plan))
    assert "Expected at" not in said(made(TWO))
    assert "Expected at" not in said(made(TWO, plan={"power": plan["power"][:1]}))
    other = {"power": [{**plan["power"][1], "seeds": 3}]}  # it was of another study's size
    assert "Expected at" not in said(made(TWO, plan=other))


def test_labels_are_saved_by_arms_whose_interval_ends_before_the_baselines_begins() -> None:
    found = made({"baseline": 0.0, "cpc": 0.3, "rpl": LEVEL}, fractions=[5, 10, 100])
    one, base = found.reached["cpc"], found.reached["baseline"]
    assert one.high is not None and base.low is not None and one.high < base.low
    assert (f"As good as the baseline on all labels: cpc at {one.estimate} of the labels "
            f"({one.interval}); the baseline itself not before {base.low:.0f} %."
            ) in reading.sentences(found)
    assert "rpl at" not in said(found).partition("As good as")[2].partition(".")[0]
    assert "no arm is shown to be as good" not in said(found)
    never = replace(found, reached={**found.reached, "baseline": replace(base, low=None)})
    assert (f"As good as the baseline on all labels: cpc at {one.estimate} of the labels "
            f"({one.interval}).") in reading.sentences(never)


def test_no_labels_are_saved() -> None:
    line = ("At the measured fractions no arm is shown to be as good with fewer labels as the "
            "baseline on all.")
    assert line in reading.sentences(made({"baseline": 0.0, "cpc": LEVEL, "oracle": 0.3}))
    flat = made({"baseline": {5: 0.2, 100: 0.0}, "cpc": {5: 0.3, 100: UP}})
    assert "The baseline gains nothing from labels here (0." in said(flat)
    assert line not in reading.sentences(flat) and "As good as" not in said(flat)
    assert "gains nothing" not in said(made(TWO)) + said(made(TWO, fractions=[5, 10]))
    assert "Runs of" not in said(flat)
    short = replace(flat, runs=[{**run, "steps": 99} for run in flat.runs])
    assert reading.sentences(short)[0] == "Runs of 99 steps learn little."
    for none in (made({"baseline": 0.0, "oracle": 0.3}), made(TWO, fractions=[5, 10])):
        assert line not in reading.sentences(none) and "As good as" not in said(none)


def test_a_shuffled_start_above_the_baseline_is_pointed_out() -> None:
    found = made({**TWO, "rpl+cpc@shuffled": {5: UP, 100: LEVEL}})
    assert (f"rpl+cpc@shuffled, whose start has lost all it had learnt, lies above the baseline "
            f"too: {gain(found, 'rpl+cpc@shuffled', 5)}. What rpl gains there may be a matter of "
            "the weights' scale.") in reading.sentences(found)
    assert said(found).count("lost all it had learnt") == 1
    for size in (LEVEL, DOWN):
        assert "lies above the baseline too" not in said(made({**TWO, "cpc@shuffled": size}))


def test_pretext_tasks_that_were_not_learnt_are_named() -> None:
    runs = [pretrained("cpc", accuracy=(0.28, 0.2)), pretrained("cpc", accuracy=(0.26, 0.2)),
            pretrained("rpl", accuracy=(0.3, 0.2), second=(0.21, 0.2)),
            pretrained("mae")]
    found = made(TWO, pretrain=runs)  # a tenth of the way: .28
    assert ("Not learnt: cpc (accuracy 0.270, chance 0.200) and rpl (second 0.210, chance 0.200); "
            "what it starts from knows nothing.") in reading.sentences(found)
    assert "Not learnt" not in said(made(TWO, pretrain=[pretrained("cpc", accuracy=(0.285, 0.2))]))
    assert "Not learnt" not in said(made(TWO))


SAME = "With the last weights instead of those chosen on validation it reads the same."


def test_the_last_weights_read_the_same_or_otherwise() -> None:
    assert SAME in reading.sentences(made(TWO))
    assert SAME in reading.sentences(made(TWO, lasts={"cpc": 2 * UP, "rpl": -LEVEL}))
    for lasts, words in (({"cpc": {5: LEVEL, 100: UP}}, "not shown"), ({"cpc": {5: DOWN, 100: UP}},
                                                                      "below")):
        found = made(TWO, lasts=lasts)
        other = found.lasts[5].differences["cpc"]
        assert other.adjusted is not None
        assert (f"With the last weights instead of those chosen on validation it reads otherwise "
                f"for cpc at 5 % ({other.mean:+.3f}, {other.adjusted[0]:+.3f} to "
                f"{other.adjusted[1]:+.3f}: {words}).") in reading.sentences(found)
    gained = said(made(TWO, lasts={"rpl": {5: UP, 100: LEVEL}}))
    assert "reads otherwise for rpl at 5 %" in gained and ": above)" in gained
    control = said(made({**TWO, "oracle": UP}, lasts={"oracle": {5: LEVEL, 100: UP}}))
    assert "reads otherwise for oracle at 5 %" in control


def test_the_primary_comparisons_last_weights_are_not_adjusted() -> None:
    plan = {"primary": {"arm": "cpc", "fraction": 5}}
    plain = made(TWO)
    one = plain.lasts[5].differences["cpc"]
    assert one.interval is not None and one.adjusted is not None
    between = (one.mean - one.interval[0] + one.mean - one.adjusted[0]) / 2  # of both halves
    lasts = {"cpc": {5: between, 100: UP}}
    assert "otherwise for cpc at 5 %" in said(made(TWO, lasts=lasts))
    assert SAME in reading.sentences(made(TWO, lasts=lasts, plan=plan))


def test_the_sentences_come_in_the_order_in_which_they_are_read() -> None:
    found = made({**TWO, "oracle": 0.15, "cpc@shuffled": {5: UP}}, plan={
        "primary": {"arm": "rpl", "fraction": 5},
        "power": [{"fraction": 5, "seeds": 5, "half": 0.01, "source": "a study"}]},
        pretrain=[pretrained("cpc", accuracy=(0.2, 0.2))])
    starts = ("Primary", "The oracle", "Shown to lie above", "By its spread", "Expected at",
              "As good as", "To reach", "cpc@shuffled", "Not learnt", "With the last")
    for line, start in zip(reading.sentences(found), starts, strict=True):
        assert line.startswith(start), line
