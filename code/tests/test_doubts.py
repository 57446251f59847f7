"""What the reading says against a gain that it has just claimed."""

from pathlib import Path

from test_reading import LEVEL, LEVELS, TWO, UP, ends, made, point, run, said

from common.report import curves, reading
from common.runs.records import Records
from common.stats.measures import mean_of

DICE = [mean_of("dice", "Dice")]


def test_a_gain_that_a_shuffled_start_has_as_well_is_not_laid_to_what_was_learnt() -> None:
    wide = {5: {0: 0.4, 1: -0.1, 2: 0.4, 3: -0.1, 4: 0.4}, 100: LEVEL}
    found = made({**TWO, "rpl": {5: UP, 100: LEVEL}, "rpl@shuffled": {5: 0.2, 100: LEVEL}})
    runs = [one if (one["task"], one["fraction"]) != ("rpl@shuffled", 5) else run(
        "rpl@shuffled", 5, one["seed"], LEVELS[5] + wide[5][one["seed"]],
        LEVELS[5] + wide[5][one["seed"]], 1) for one in found.runs]
    unsure = curves.of(Records(Path("x"), "x", {}, runs, [], plan={}), DICE)
    assert reading.verdict(point(unsure, "rpl@shuffled", 5)) == "not shown"
    line = (f"But rpl@shuffled, whose start has lost all it had learnt, gains as much at 5 %: "
            f"{ends(unsure, 'rpl@shuffled', 5)}. So what rpl gains there need not come from what "
            "was learnt.")
    assert line in reading.sentences(unsure)
    assert "gains as much" not in said(found)  # shown above itself: said elsewhere
    less = made({**TWO, "rpl": {5: UP, 100: LEVEL}, "rpl@shuffled": {5: LEVEL, 100: LEVEL}})
    assert "gains as much" not in said(less)
    none = made({**TWO, "rpl": LEVEL, "rpl@shuffled": {5: 0.002, 100: 0.002}})
    assert "gains as much" not in said(none)  # nothing is claimed that could be in doubt
