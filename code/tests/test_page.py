"""The page of a study: it is whole, it is safe, and it says what the tables say."""

import importlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import caught
from paged import Node, parsed, rows, spots
from PIL import Image
from test_graph import make
from test_reading import DOWN, LEVEL, UP, made, pretrained

from common.files import ROOT
from common.report import curves, main, published, reading, tables
from common.report.curves import Curves
from common.report.page import answer, document, panels, provenance
from common.report.page.document import MOST_BYTES, page

graph = importlib.import_module("3d.graph")
DEMO = ROOT / "results/published/ctphantom-demo"
ODD = 'a<b>&"c\'</title><script>x'  # a name that is no markup, wherever it stands
SPARE = {"oracle": UP, "rotation": UP}


@pytest.fixture(scope="module")
def demo() -> Curves:
    """A published study with controls, labels saved, exchange rates and provenance."""
    found = published.read(DEMO / published.NAME)
    return curves.of(found, graph.measures(found.finetune[0]))


@pytest.fixture(scope="module")
def text(demo: Curves) -> str:
    return page(demo, axis="Test Dice", pictures=sorted(DEMO.glob("*.png")))


@pytest.fixture(scope="module")
def root(text: str) -> Node:
    return parsed(text)


def test_it_is_one_whole_page_in_the_order_of_the_questions(root: Node, text: str) -> None:
    assert text.startswith("<!DOCTYPE html>")
    assert [one.attributes for one in root.every("meta")][0] == {"charset": "utf-8"}
    assert any(one.attributes.get("name") == "viewport" for one in root.every("meta"))
    [html], [main_part] = root.every("html"), root.every("main")
    assert html.attributes["lang"] == "en"
    headings = [one.text for one in main_part.every() if one.tag in ("h1", "h2")]
    assert headings == [
        "ctphantom", "Was a gain shown?", "Could this study show one?", "Were labels saved?",
        "Were the pretext tasks learnt?", "Score against labels", "Difference to the baseline",
        "Labels saved", "Learnt or not", "Examples", "All numbers", "Settings and provenance",
        "How to cite"]
    assert answer.GENERATED in main_part.text and document.NOTICE in main_part.text
    assert len(text.encode()) < MOST_BYTES


def test_nothing_is_fetched_from_anywhere(root: Node, text: str) -> None:
    for one in root.every():
        assert one.tag not in ("link", "base", "iframe", "object", "embed", "form", "image")
        for name, value in one.attributes.items():
            if name in ("src", "href", "srcset", "poster", "action"):
                assert value.startswith(("data:image/png;base64,", "#")) or (
                    one.tag == "a" and value == "https://arxiv.org/abs/2006.03829"), value
            assert not name.startswith("on")
            assert "url(" not in value.replace("url(#", "")
    [script], [style] = root.every("script"), list(root.every("style"))
    assert not re.search(r"fetch|XMLHttp|import|src|http|eval|innerHTML", script.text)
    assert not re.search(r"url\(|@import|http", style.text)
    assert "default-src 'none'" in text
    assert text.count("http") == 2  # the link to the paper, and http-equiv


def test_tables_are_those_of_the_markdown(demo: Curves, root: Node) -> None:
    lines = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in tables.markdown(demo).splitlines()
             if line.startswith("|") and not line.startswith("| ---")]
    own = [row for part in provenance.sections(demo) for row in (part.head, *part.rows)]
    assert sorted(rows(root)) == sorted([*lines, *own]) and len(lines) > 30
    said = root.text
    for part in tables.sections(demo):
        assert part.words in said, part.title


def test_every_sentence_of_the_reading_is_there_once(demo: Curves, root: Node) -> None:
    said = [one.text for one in root.every("p")]
    for line in reading.sentences(demo):
        assert said.count(line) == 1, line


def test_numbers_in_words_and_hovers_are_those_of_the_tables(demo: Curves, root: Node) -> None:
    known = set(re.findall(r"[+-]?\d*\.\d+|\d+", tables.markdown(demo)))
    words = [one.text for kind in ("tile", "small") for block in root.of(kind)
             for one in block.every()]
    words += [said for panel in root.of("panel") for *_, said in spots(panel)]
    found = {number for line in words for number in re.findall(r"[+-]?\d*\.\d+|\d+", line)}
    assert found - known <= {"10"}  # per cent of the way from a guess, which is LEARNT
    assert len(found) > 30 and reading.LEARNT == 0.1


def test_hovers_say_score_and_difference_and_lie_on_their_marks(demo: Curves, root: Node) -> None:
    [panel] = [one for one in root.of("panel") if next(one.every("svg")).attributes[
        "aria-label"].startswith("Test Dice")]
    there = spots(panel)
    assert len(there) == len(demo.points) == 9
    marks = np.array([[float(one.attributes[axis]) for axis in "xy"] for one in panel.every("use")])
    for x, y, _ in there:
        assert np.abs(marks - (x, y)).max(axis=1).min() < 0.06  # points: they are rounded
    for point in demo.points:
        [said] = [said for *_, said in there
                  if said.startswith(f"{tables.marked(point.task)} at {point.fraction} %")]
        assert tables.shown(point.means["dice"]) in said
        assert f"({demo.labelled(point.fraction)} cases)" in said
        assert ("to the baseline" in said) == (point.task != "baseline")
        if point.difference:
            claim = ", above it" if point.interval and point.interval[0] > 0 else ", not shown"
            assert f"to the baseline: {tables.cell(point, demo)}{claim}" in said
    scores = {said: y for _, y, said in there}
    ordered = sorted(demo.points, key=lambda point: -point.means["dice"].mean)
    heights = [next(y for said, y in scores.items() if said.startswith(
        f"{tables.marked(point.task)} at {point.fraction} %")) for point in ordered]
    assert heights == sorted(heights)  # higher scores lie higher


def test_a_fraction_that_an_arm_lacks_has_no_hover(demo: Curves) -> None:
    lacks = next(point for point in demo.points if (point.task, point.fraction) == (
        demo.tasks[1], demo.fractions[1]))
    gap = replace(demo, points=[point for point in demo.points if point is not lacks])
    there = "".join(panels.curve_panels(gap))
    assert panels.words(lacks, demo) not in there
    assert all(panels.words(point, gap).split(":")[0] in there for point in gap.points)


def test_hovers_claim_what_the_reading_claims() -> None:
    study = made({"baseline": 0, "rpl": UP, "cpc": DOWN, "jigsaw": LEVEL})
    ends = {point.task: panels.words(point, study).rpartition(")")[2] for point in study.points}
    assert ends == {"baseline": "", "rpl": ", above it", "cpc": ", below it",
                    "jigsaw": ", not shown"}


def test_differences_and_labels_saved_have_a_row_an_arm(demo: Curves, root: Node) -> None:
    drawn = {next(one.every("svg")).attributes["aria-label"]: one for one in root.of("panel")}
    for fraction in demo.fractions:
        [panel] = [one for alt, one in drawn.items()
                   if alt.startswith("Difference") and f"at {fraction} % of" in alt]
        title = f"{fraction} %: {demo.labelled(fraction)} labels"
        assert title in [one.text for one in panel.every("text")]
        for row, (_, y, said) in enumerate(spots(panel)):
            assert said == panels.words(demo.of_task(demo.tasks[row + 1])[
                demo.fractions.index(fraction)], demo)
            marks = [float(one.attributes["y"]) for one in panel.every("use")]
            assert min(abs(mark - y) for mark in marks) < 0.06
    [panel] = [one for alt, one in drawn.items() if alt.startswith("Labelled share")]
    for task, (_, _, said) in zip(demo.tasks[1:], spots(panel), strict=True):
        one = demo.reached[task]
        assert said.startswith(tables.marked(task)) and f"{one.estimate} ({one.interval})" in said


def test_without_a_script_there_are_pictures_and_titles(root: Node) -> None:
    drawn = list(root.every("svg"))
    assert len(drawn) == 5  # curves, three fractions, labels saved
    for one in drawn:
        assert len(list(one.every("path"))) > 9 and len(list(one.every("text"))) > 4
        assert one.attributes["viewbox"].count(" ") == 3 and "width" not in one.attributes
        assert len(list(one.every("title"))) > 1 and not list(one.every("style"))
        ids = {node.attributes["id"] for node in one.every() if "id" in node.attributes}
        uses = {node.attributes["href"][1:] for node in one.every("use")}
        clips = {node.attributes["clip-path"][5:-1] for node in one.every()
                 if "clip-path" in node.attributes}
        assert uses | clips == ids and clips
    [tip] = [one for one in root.every("div") if one.attributes.get("id") == "tip"]
    assert "hidden" in tip.attributes and not tip.text
    assert not list(root.every("noscript"))


def test_pictures_say_in_words_what_they_show(root: Node) -> None:
    images = list(root.every("img"))
    assert len(images) == 4
    assert all(len(one.attributes["alt"]) > 20 for one in images)
    assert all(one.attributes["role"] == "group" and len(one.attributes["aria-label"]) > 40
               for one in root.every("svg"))
    assert [one.text for one in root.every("figcaption")][-1].endswith("before you hand it on.")


def test_names_are_text_wherever_they_stand() -> None:
    runs = [pretrained("rotation", accuracy=(0.9, 0.1))]
    study = made({"baseline": 0, ODD: UP, "oracle": UP}, pretrain=runs)
    for run in study.runs:
        run["provenance"] = {"commit": ODD, "host": "machine of mine"}
        run["identity"]["settings"]["LOSS"] = "<i>"
    odd = replace(study, dataset=ODD, missing=[f"{ODD}: seed 1"])
    text = page(odd, axis="<b>Dice\n&")
    root = parsed(text)
    assert len(list(root.every("script"))) == 1 and not list(root.every("b"))
    assert next(root.every("title")).text == next(root.every("h1")).text == ODD
    assert ODD in [row[0] for row in rows(root)]
    assert any(said.startswith(f"{ODD} at 5 %") for panel in root.of("panel")
               for *_, said in spots(panel))
    assert f"{ODD}: seed 1" in [one.text for one in root.every("li")]
    assert ["commit", ODD] in rows(root) and "machine of mine" not in text
    assert "<b>Dice &" in root.text


def picture(path: Path, side: int) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def test_what_would_make_it_too_large_is_named(tmp_path: Path) -> None:
    study = made(SPARE | {"baseline": 0})
    views, examples, learning = (picture(tmp_path / f"{kind}_x.png", side) for kind, side in (
        ("views", 300), ("examples", 250), ("learning", 20)))
    text = page(study, axis="Dice", pictures=[views, examples, learning])
    root = parsed(text)
    assert len(text.encode()) <= MOST_BYTES < len(text.encode()) + 300**2 * 3 * 4 / 3
    assert len(list(root.every("img"))) == 2  # test cases come first
    assert "views_x.png is too large" in root.text and "examples_x.png is" not in root.text
    assert "<!--" not in text


def test_the_same_records_give_the_same_bytes(demo: Curves, text: str) -> None:
    found = published.read(DEMO / published.NAME)
    again = curves.of(replace(found, finetune=found.finetune[::-1]),
                      graph.measures(found.finetune[0]))
    other = page(again, axis="Test Dice", pictures=sorted(DEMO.glob("*.png"))[::-1])
    assert other.encode() == text.encode()


@pytest.mark.parametrize(("gains", "told"), [
    ({"baseline": 0, "rpl": UP, "oracle": UP}, ["Yes", "Yes", "Yes"]),
    ({"baseline": 0, "rpl": {5: UP, 100: LEVEL}, "oracle": LEVEL}, ["Yes", "No", "None shown"]),
    ({"baseline": 0, "rpl": DOWN, "oracle": UP}, ["No; a loss was", "Yes", "None shown"]),
    ({"baseline": 0, "rpl": LEVEL, "oracle": UP}, ["None shown", "Yes", "None shown"]),
    ({"baseline": 0, "rpl": LEVEL}, ["None shown", "Not known", "None shown"]),
    ({"baseline": 0, "rpl": UP, "rpl@shuffled": UP}, ["Doubtful", "Not known", "Yes"]),
    ({"baseline": {5: 0.3}, "rpl": {5: 0.5}}, ["Yes", "Not known", "Not known"]),
])
def test_the_answers_follow_from_the_verdicts(gains: Any, told: Sequence[str]) -> None:
    assert [one.answer for one in answer.tiles(made(gains))] == told


def test_labels_saved_are_a_yes_where_an_arm_saves_them() -> None:
    fractions = {"fractions": (5, 10, 100)}
    base = {"baseline": 0, "oracle": UP}
    for gain, told in ((0.3, "Yes"), (DOWN, "None shown")):
        study = made({**base, "rpl": {5: gain, 10: gain, 100: gain / 3}}, **fractions)
        [tile] = [one for one in answer.tiles(study) if one.question == "Were labels saved?"]
        assert tile.answer == told
        assert any("no arm is shown" in line for line in tile.lines) == (told != "Yes")


def test_labels_saved_are_a_yes_where_those_of_one_fraction_are_worth_more() -> None:
    for gain, told in ((UP, "Yes"), (LEVEL, "Not known")):
        study = made({"baseline": 0, "rpl": {10: gain}}, fractions=(5, 10, 25, 50, 100))
        [tile] = [one for one in answer.tiles(study) if one.question == "Were labels saved?"]
        assert tile.answer == (f"{told}, at 10 %" if told == "Yes" else told)
        assert any(" are worth " in line for line in tile.lines) == (told == "Yes")


def test_tasks_at_chance_are_not_learnt_and_without_chance_nothing_is_asked() -> None:
    question = "Were the pretext tasks learnt?"
    for runs, told in (([pretrained("rpl", accuracy=(0.11, 0.1))], ["Not all"]),
                       ([pretrained("rpl", accuracy=(0.5, 0.1))], ["In part"]),
                       ([pretrained("mae")], [])):
        study = made({"baseline": 0, "rpl": LEVEL}, pretrain=runs)
        assert [one.answer for one in answer.tiles(study) if one.question == question] == told


def test_without_seeds_or_a_baseline_nothing_is_claimed() -> None:
    for study in (made({"baseline": 0, "rpl": UP}, seeds=(0, 1)), made({"rpl": UP}),
                  made({"baseline": 0})):
        root = parsed(page(study, axis="Dice"))
        [tile] = root.of("tile")
        assert "Nothing can be claimed" in tile.text and reading.sentences(study)[0] in tile.text
        assert list(root.every("svg"))


def test_tasks_of_the_study_are_explained_and_no_others(demo: Curves) -> None:
    assert [*answer.words(demo)] == [*answer.WORDS, "rotation"]
    joint = made({"baseline": 0, "rpl+jigsaw@stages": LEVEL})
    assert {"rpl", "jigsaw"} <= {*answer.words(joint)} and "mae" not in answer.words(joint)


def test_arms_beyond_the_most_are_named_in_the_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panels, "MOST", 2)
    study = made({"baseline": 0, "rpl": UP, "cpc": UP, "jigsaw": UP, "oracle": UP})
    assert len(panels.curve_panels(study)) == 2
    assert "2 more arms: see train_x.png." in page(study, axis="Dice")


def test_settings_that_differ_are_listed_and_commits_are_cited() -> None:
    study = made({"baseline": 0, "rpl": LEVEL})
    for number, run in enumerate(study.runs):
        run["provenance"] = {"commit": f"c{number % 2}", "card": None}
        run["identity"]["settings"] |= {"LR": 0.1 + number, "FLIPS": [1, 2]}
        run["seconds"] = 360 if number < 10 else None
    found = {row[0]: row[1] for part in provenance.sections(study) for row in part.rows}
    assert found["LR"] == "0.1, 1.1, 2.1, 3.1, 4.1, 5.1 and 14 more" and found["FLIPS"] == "1 2"
    assert found["commit"] == "c0, c1" and "card" not in found
    assert found["hours of finetuning"] == "1.0, of 10 runs, one after another"
    assert "hours of pretraining" not in found
    paper, ours = provenance.citation(study)
    assert "commit c0, c1" in ours and provenance.TITLE in ours and "Taleb" in paper
    assert (ROOT / "README.md").read_text().startswith(f"# {provenance.TITLE}\n")


def test_pages_lie_beside_ones_own_figures_and_beside_published_records_where_one_is(
        tmp_path: Path) -> None:
    def run(*flags: object) -> None:
        main.run(graph.TREE, "", [*map(str, flags)])
    study, other, paths = tmp_path / "study", tmp_path / "other", list[Path]()
    study.mkdir()
    shutil.copy(DEMO / published.NAME, study)
    with caught(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "write", lambda path, *_, **__: paths.append(path))
        run("--records", study)
        assert not paths
        run("--records", study, "--results", other, "--publish", "note")
        assert paths == [other / "ctphantom.html"]  # not in other/published
        assert (other / "published/ctphantom-note/train_ctphantom.md").exists()
        paths.clear()
        (study / "ctphantom.html").touch()  # a page that lies there goes with its records
        run("--records", study)
        assert paths == [study / "ctphantom.html"]


def test_graph_writes_the_page_with_the_pictures_that_it_has_drawn(tmp_path: Path) -> None:
    make(tmp_path)
    main.run(graph.TREE, "", ["--results", str(tmp_path)])
    root = parsed((tmp_path / "pancreas.html").read_text(encoding="utf-8"))
    drawn = {path.name.partition("_")[0] for path in tmp_path.glob("*.png")}
    assert len(list(root.every("img"))) == len(drawn & {*document.PICTURES}) >= 1
    assert "(on the 128³ grid)" in root.text


def test_git_takes_no_page_for_it_may_hold_images_of_patients() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    done = subprocess.run(["git", "check-ignore", "-q", "results/pancreas.html"], cwd=ROOT,
                          check=False)
    assert done.returncode == 0
