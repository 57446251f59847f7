"""The bench of coverage on a few kinds of studies: intervals hold as often as they say.

A second each with 400 studies; code/bench/coverage.py has the whole table.
"""

import pytest

from bench.coverage import FOLDS, QUARTER, Row, across_table, count, count_across, table

STUDIES = 400
ROWS = [Row(1, 5, 0.0, 0.0, 3, 3), Row(1, 5, 0.0, 0.5, 5, 7), Row(FOLDS, 5, 0.0, 0.0, 3, 7),
        Row(FOLDS, 5, QUARTER, 0.5, 5, 3), Row(FOLDS, 100, QUARTER, 0.0, 5, 7),
        Row(FOLDS, 5, 0.0, 0.0, 10, 3)]


def name(row: Row) -> str:
    return (f"{'rotated' if row.folds > 1 else 'fixed'}-{row.fraction}%-{row.trained}-"
            f"{row.spread}-{row.seeds}seeds-{row.arms}arms")


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_intervals_hold_the_truth_as_often_as_they_say(row: Row) -> None:
    found = count(row, STUDIES)
    assert 0.925 < found.single < 0.995, found
    assert 0.01 < found.family < (0.14 if row.spread else 0.09), found
    assert 0.05 < found.guarded < 0.15 or row.spread, found
    assert count(row, 3) == count(row, 3)


@pytest.mark.parametrize("folds", [1, FOLDS])
def test_an_arm_less_the_baseline_on_all_labels_is_held_as_often(folds: int) -> None:
    assert 0.92 < count_across(Row(folds, 5, 0.0, 0.0, 5, 3), STUDIES) < 0.995


def test_the_tables_have_a_line_a_kind_and_the_arms_side_by_side() -> None:
    rows = [Row(folds, 5, QUARTER, 0.0, 3, arms) for folds in (1, FOLDS) for arms in (1, 3, 7)]
    found = [(row, count(row, 2)) for row in rows]
    head, rule, *lines = table(found).splitlines()
    assert [line.split(" | ")[:5] for line in lines] == [
        [f"| {kind}", "5 %", "a quarter", "equal", "3"] for kind in ("fixed", "rotated")]
    assert {line.count("|") for line in (head, rule, *lines)} == {13}
    assert f"{found[0][1].single:.3f}" in lines[0] and f"{found[5][1].half:.4f} |" in lines[1]
    lines = across_table([(row, 0.5 + number / 10) for number, row in enumerate(rows)]).splitlines()
    assert lines[2:] == ["| fixed | 3 | 0.500 | 0.600 | 0.700 |",
                         "| rotated | 3 | 0.800 | 0.900 | 1.000 |"]
