"""The guide of results/published/README.md is what the records say, and says no more."""

import re
from dataclasses import replace

import pytest

from bench import guide, spreads
from common.files import ROOT
from common.report import curves, published, rates
from common.report.claims import apart, verdict
from common.report.curves import Curves


@pytest.fixture(scope="module")
def nodules() -> Curves:
    return next(one for one in guide.studies() if one.dataset == "lidcnodule")


def row_of(study: Curves, arm: str, fraction: int) -> list[str]:
    point = next(one for one in study.points if (one.task, one.fraction) == (arm, fraction))
    return next(row for _, row in guide.rows(study) if row[0] == study.labelled(point.fraction)
                and row[3].startswith(arm))


def test_the_table_in_the_readme_is_that_of_the_records() -> None:
    text = guide.README.read_text(encoding="utf-8")
    part = text.partition(guide.HEADING)[2].partition(guide.END)[0]
    assert guide.table() in part and part.count("\n| --- ") == 1
    assert all(study.folds > 1 and not study.generated and study.protocol == ""
               for study in guide.studies())


def test_a_row_has_the_numbers_of_the_study(nodules: Curves) -> None:
    labelled, data, pool, arm, task, base, whole, gain, undone, oracle, seeds, said = row_of(
        nodules, "rpl", 1)
    at = {(one.task, one.fraction): one for one in nodules.points}
    assert (labelled, data, arm) == ("3", "lidcnodule (dice)", "rpl (primary)")
    assert {run["pool"] for run in nodules.pretraining if run["task"] == "rpl"} == {int(pool)}
    assert task.startswith("learnt (accuracy 0.1") and task.endswith("chance 0.04)")
    assert float(base) == round(at["baseline", 1].means["dice"].mean, 3)
    assert float(whole) == round(at["baseline", 100].means["dice"].mean, 3) and seeds == "5"
    for cell, name in ((gain, "rpl"), (undone, "rpl@shuffled"), (oracle, "oracle")):
        point = at[name, 1]
        assert point.difference is not None and point.interval is not None
        low, high = point.interval
        assert cell == f"{point.difference.mean:+.3f} ({low:+.3f} to {high:+.3f})"
    assert said == ("**gain shown**, but not over the shuffled start; not with the last "
                    "weights")


def test_what_is_read_follows_the_interval(nodules: Curves) -> None:
    at = {(one.task, one.fraction): one for one in nodules.points}
    shown, undone = at["rpl", 1], at["rpl@shuffled", 1]
    assert shown.difference is not None
    assert guide.read_as(nodules, shown, None) == "**gain shown**; not with the last weights"
    assert guide.read_as(nodules, shown, undone).startswith("**gain shown**, but not")
    assert guide.read_as(nodules, at["oracle", 1], undone).startswith(
        "**gain shown**, over the shuffled start too")
    assert guide.read_as(nodules, at["oracle@decoder", 1], at["oracle", 1]).startswith(
        "**gain shown**, but its shuffled start gains too")  # as if the oracle were that
    lost = replace(shown, difference=replace(shown.difference, mean=-0.1))
    assert guide.read_as(nodules, lost, undone) == "**loss shown**; not with the last weights"
    last = replace(nodules.lasts[1], differences={"rpl": lost.difference})
    assert guide.read_as(replace(nodules, lasts={1: last}), lost, None) == "**loss shown**"
    could = at["rpl", 2].could_show
    assert could and guide.read_as(nodules, at["rpl", 2], None) == (
        f"not shown (80 % power needs {could[1]:.3f})")
    assert guide.gain(None) == "not run"
    bare = replace(shown, difference=replace(shown.difference, spread=None))
    assert guide.read_as(nodules, bare, undone) == "no interval yet"


def test_a_task_is_solved_learnt_or_not(nodules: Curves) -> None:
    def scored(value: float, epoch: int | None) -> str:
        runs = [{**run, "score": {"accuracy": value}} for run in nodules.pretraining
                if run["task"] == "rpl"]
        return guide.pretext(replace(nodules, pretraining=runs,
                                     solved=[{"accuracy": epoch}] * len(runs)), "rpl")
    assert scored(0.99, 7).startswith("solved (accuracy 0.99")
    assert scored(0.99, None).startswith("learnt (")
    assert scored(0.13, None).startswith("not learnt (") and scored(0.14, None).startswith("learnt")
    assert guide.pretext(nodules, "meanteacher") == "-" == guide.pool(nodules, "meanteacher")


def found_so_far() -> list[list[str]]:
    """The rows of the front page's table; a study's name, score, arm stand in its first rows."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What was found so far")[2]
    lines = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    return [[cell.strip().replace("**", "") for cell in line.split("|")[1:-1]]
            for line in lines[1:]]


def test_the_front_page_has_the_records_numbers() -> None:
    rows, study = found_so_far(), None
    assert len(rows) >= 8
    for first, labels, base, arm, gain, worth, over, oracle in rows:
        if link := re.search(r"\((results/published/[a-z_-]+)/", first):
            found = published.read(ROOT / link[1] / published.NAME)
            study = curves.of(found, spreads.measures(found.finetune[0])[:1])
        assert study is not None
        at = {(one.task, one.fraction): one for one in study.points}
        [fraction] = [one for one in study.fractions if study.labelled(one) == labels]
        low, whole = (short(f"{at['baseline', one].means[study.measures[0].name].mean:.3f}")
                      for one in (fraction, 100))
        assert base == (low if fraction == 100 else f"{low} ({whole})")
        control = at["oracle", fraction].difference
        assert control is not None and oracle == short(f"{control.mean:+.3f}")
        name = arm.partition(",")[0]
        point, undone = at[name, fraction], at.get((f"{name}@shuffled", fraction))
        assert (", primary" in arm) == point.primary and gain == short(guide.gain(point))
        assert study.exchange is not None
        assert worth == (rates.worth(study.exchange.worth[name][fraction], study)
                         if verdict(point) == "above" else "not shown")
        if undone is None:
            assert over == "not run"
        else:
            more = apart(study, point, undone)
            assert more.interval is not None
            assert over == short(f"{more.mean:+.3f} ({more.interval[0]:+.3f} "
                                 f"to {more.interval[1]:+.3f})")


def short(text: str) -> str:
    """Numbers without the naught before the point."""
    return re.sub(r"(?<!\d)0\.", ".", text)


INTERVAL = re.compile(r"(?:([+-]0?\.\d{3}),? )?\(?([+-]0?\.\d{3}) to ([+-]0?\.\d{3})")
# Of trials whose tables lie in recipe/, and of studies before arms or seeds were added to them.
NOT_ON_RECORD = {("+.125", "+.050", "+.200"), ("+.014", "-.094", "+.121"), ("", "+.035", "+.096"),
                 ("", "+.010", "+.039"), ("+.025", "+.017", "+.033")}


def in_words(text: str) -> set[tuple[str, ...]]:
    """Differences with their intervals, as ("+.065", "+.029", "+.102"); the first may be ""."""
    plain = " ".join(text.replace("**", "").split())
    return {tuple((number or "").replace("0.", ".") for number in found.groups())
            for found in INTERVAL.finditer(plain)}


def test_every_interval_in_words_is_one_of_the_records() -> None:
    folder = guide.README.parent
    tables = [*folder.glob("*/train_*.md"), *folder.glob("protocols_*.md")]
    told = {one for file in tables for one in in_words(file.read_text(encoding="utf-8"))}
    for file, heading in ((ROOT / "README.md", "## What was found so far"),
                          (guide.README, "## Read")):
        text = file.read_text(encoding="utf-8").partition(heading)[2]
        found = in_words(text.partition("\n## ")[0] if file != guide.README else text)
        assert len(found) > 20
        unknown = [one for one in found if one not in told and not (
            one[0] == "" and any(other[1:] == one[1:] for other in told))]
        assert set(unknown) <= NOT_ON_RECORD, f"{file}: {unknown}"
