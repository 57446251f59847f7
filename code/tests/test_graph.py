"""Figures and tables from golden records in the format exp.py writes."""

import csv
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from drawn import caught, looks_drawn, size_of, texts
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from PIL import Image

from common.errors import InputError
from common.report import main
from common.report.curves import Curves, of
from common.report.figures import efficiency, style
from common.report.figures.palette import BASES
from common.report.figures.style import STYLE, WIDTH
from common.runs import records
from common.stats.measures import mean_of

WIDE = int(WIDTH * STYLE["savefig.dpi"])  # all figures: a README shows them at one scale
graph = importlib.import_module("3d.graph")
TASKS = {"baseline": 0.4, "rotation": 0.45, "rotation+rpl": 0.5}


def make(results: Path, dataset: str = "pancreas", seeds: int = 3) -> Path:
    folder = results / "3d" / dataset
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 0.05, 12)
    for task, level in TASKS.items():
        for fraction in (5, 25, 100):
            for seed in range(seeds):
                values = level + fraction / 1000 + hard + rng.normal(0, 0.02, 12)
                write(folder, task, fraction, seed, values)
    for seed in range(seeds):
        run = folder / "pretrain/rotation" / f"seed{seed}"
        save(run, {"stage": "pretrain", "task": "rotation", "seed": seed, "epochs": 9,
                   "score": {"accuracy": 0.9}, "chance": {"accuracy": 0.1}, "best_epoch": 7})
    (folder / "splits.json").write_text(json.dumps({"dataset": dataset}))
    return folder


def write(folder: Path, task: str, fraction: int, seed: int, values: np.ndarray) -> None:
    cases = {f"c{i:02d}": {"dice": v, "dice_pancreas": v, "dice_tumour": v if i % 2 else None,
                           "truth": [90, 10, 5], "predicted": [90, 10, 5], "both": [80, 6, 2]}
             for i, v in enumerate(values.tolist())}
    test = {"dice": float(values.mean())}
    save(folder / "finetune" / task / f"fraction{fraction:03d}" / f"seed{seed}",
         {"stage": "finetune", "metric": "dice", "task": task, "fraction": fraction, "seed": seed,
          "classes": ["pancreas", "tumour"], "resolution": 128, "labelled": fraction * 2,
          "validation": 6, "test_cases": 12, "steps": 900, "generated": False, "test": test,
          "selected": {"step": 300, "rule": "highest Dice on validation"},
          "last": {"test": test, "val": test}, "cases": cases})


def save(run: Path, scores: dict[str, object], **settings: int) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "scores.json").write_text(json.dumps(scores))
    identity = {"settings": {"RESOLUTION": 128, **settings}, "data": "d", "splits": "s",
                "encoder": None}
    (run / "config.json").write_text(json.dumps({"identity": identity}))


def draw(results: Path, *flags: str) -> dict[tuple[str, str, str], dict[str, str]]:
    """The rows of the table; the figures are made, but not rendered."""
    with caught():
        main.run(graph.TREE, "", ["--results", str(results), *flags])
    with (results / "train_pancreas.csv").open() as file:
        return {(row["task"], row["fraction"], row["measure"]): row
                for row in csv.DictReader(file)}


def test_tables_hold_means_intervals_and_adjusted_differences(tmp_path: Path) -> None:
    folder = make(tmp_path)
    rows = draw(tmp_path, "--published")
    runs = [json.loads((folder / f"finetune/rotation/fraction025/seed{s}/scores.json").read_text())
            for s in range(3)]
    expected = np.mean([run["test"]["dice"] for run in runs])
    row = rows["rotation", "25", "dice"]
    assert float(row["mean"]) == pytest.approx(expected, abs=1e-6)
    assert float(row["low"]) < expected < float(row["high"])
    assert float(row["difference"]) == pytest.approx(0.05, abs=0.02)
    assert float(row["p_adjusted"]) >= float(row["p"])
    assert rows["baseline", "5", "dice"]["difference"] == ""
    assert float(rows["baseline", "5", "dice_paper"]["mean"]) == pytest.approx(
        np.mean([160 / 180, 12 / 20, 4 / 10]), abs=1e-6)
    text = (tmp_path / "train_pancreas.md").read_text()
    assert "| rotation | accuracy | 0 1 2 | 0.900, 0.900, 0.900 | 0.100 |" in text
    assert "12 test cases, 3 seeds, 900 optimiser steps" in text and "Missing" not in text


def test_the_figure_holds_the_arms_their_means_and_the_published_curves(tmp_path: Path) -> None:
    folder = make(tmp_path)
    with caught() as figures:
        main.run(graph.TREE, "", ["--results", str(tmp_path), "--published"])
    figure = figures["train_pancreas.png"]
    said = texts(figure)
    for words in (*TASKS, "baseline (from scratch)", "pancreas: Dice", "5\n(10)",
                  "paper, Fig. 3", "on the 128³ grid", "n = 12 test cases, 3 seeds"):
        assert words in said, words
    means = [np.mean([json.loads((folder / f"finetune/rotation/fraction{fraction:03d}/seed{seed}"
                                  "/scores.json").read_text())["test"]["dice"]
                      for seed in range(3)]) for fraction in (5, 25, 100)]
    headline, *small, other, _ = figure.axes  # the last holds a legend
    [line] = [line for line in headline.get_lines() if len(line.get_ydata()) == 3
              and np.allclose(line.get_ydata(), means)]
    assert headline.get_xscale() == "log" and line.get_linewidth() > 2
    assert [axes.get_title(loc="left") for axes in small] == [
        "Dice, pancreas", "Dice, tumour"]
    assert len(other.get_lines()) > len(small[0].get_lines())  # the published ones beside ours
    assert size_of(figure)[0] == WIDE
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "baseline (from scratch)", "rotation", "rotation+rpl"]  # the order of the tables


def test_many_arms_have_a_panel_each_over_the_same_baseline(tmp_path: Path) -> None:
    folder = make(tmp_path)
    for number, task in enumerate(("cpc", "rotation@shuffled", "oracle")):
        for seed in range(3):
            for fraction in (5, 25, 100):
                write(folder, task, fraction, seed, np.full(12, 0.3 + 0.05 * number + 0.01 * seed))
    with caught() as figures:
        main.run(graph.TREE, "", ["--results", str(tmp_path)])
    figure = figures["train_pancreas.png"]
    arms = figure.axes[:5]
    assert [panel.get_title(loc="left") for panel in arms] == [
        "cpc", "rotation", "rotation+rpl", "oracle (control)", "rotation@shuffled (control)"]
    assert len({panel.get_ylim() for panel in arms}) == 1
    bands = [[path.vertices.tolist() for path in band.get_paths()] for panel in arms
             for band in panel.collections if isinstance(band, PolyCollection)]
    assert len(bands) == 3 and all(band == bands[0] for band in bands)  # none under a control
    thick = [max(panel.get_lines(), key=lambda line: line.get_linewidth()) for panel in arms]
    assert [line.get_color() for line in thick] == [
        BASES[task][0] for task in ("cpc", "rotation", "rotation", "oracle", "rotation")]
    assert size_of(figure)[0] == size_of(figures["difference_pancreas.png"])[0] == WIDE


def test_the_band_is_what_cannot_be_told_from_the_baseline(
        tmp_path: Path) -> None:
    data = of(records.read(make(tmp_path)), [mean_of("dice", "Dice")])
    [panel] = caught_panels(data)
    [band] = [one for one in panel.collections if isinstance(one, PolyCollection)]
    ends = band.get_paths()[0].vertices
    for point in data.of_task("baseline"):
        could, mean = data.could_show(point.fraction), point.means["dice"].mean
        assert could is not None
        at = ends[np.isclose(ends[:, 0], point.fraction), 1]
        assert (at.min(), at.max()) == pytest.approx((mean - could[0][0], mean + could[0][0]))
        assert point.means["dice"].half != pytest.approx(could[0][0], rel=0.05)
    assert not panel.containers  # bars
    few = of(records.read(make(tmp_path / "few", seeds=2)), [mean_of("dice", "Dice")])
    [panel] = caught_panels(few)
    assert not panel.containers
    assert not [one for one in panel.collections if isinstance(one, PolyCollection)]


def test_no_line_goes_over_a_fraction_that_was_not_run(tmp_path: Path) -> None:
    folder = make(tmp_path)
    shutil.rmtree(folder / "finetune/rotation/fraction025")
    data = of(records.read(folder), [mean_of("dice", "Dice")])
    [panel] = caught_panels(data)
    lines = {one.get_gid(): np.asarray(one.get_ydata(), float) for one in panel.get_lines()}
    means = [point.means["dice"].mean for point in data.of_task("rotation")]
    assert lines["rotation"][[0, 2]] == pytest.approx(means) and np.isnan(lines["rotation"][1])
    assert all(np.isfinite(lines[task]).all() and len(lines[task]) == 3
               for task in ("baseline", "rotation+rpl"))
    shutil.rmtree(folder / "finetune/rotation/fraction100")  # nothing lies beyond
    [panel] = caught_panels(of(records.read(folder), [mean_of("dice", "Dice")]))
    assert [len(one.get_ydata()) for one in panel.get_lines()  # type: ignore[arg-type]
            if one.get_gid() == "rotation"] == [1]


def test_arms_that_nothing_is_compared_with_have_bars(
        tmp_path: Path) -> None:
    folder = make(tmp_path)
    shutil.rmtree(folder / "finetune/baseline")
    data = of(records.read(folder), [mean_of("dice", "Dice")])
    [panel] = caught_panels(data)
    assert len(panel.containers) == 2  # an arm each
    for bars, task in zip(panel.containers, data.tasks, strict=True):
        [lines] = bars[2]
        for segment, point in zip(lines.get_segments(), data.of_task(task), strict=True):
            mean = point.means["dice"]
            assert mean.half and mean.interval
            assert segment[:, 1] == pytest.approx([mean.mean - mean.half, mean.mean + mean.half])
    for task in TASKS:
        if task != "baseline":
            shutil.rmtree(folder / "finetune" / task)
    rng = np.random.default_rng(1)
    for seed in range(3):
        write(folder, "baseline", 5, seed, 0.5 + rng.normal(0, 0.02, 12))
    alone = of(records.read(folder), [mean_of("dice", "Dice")])
    [panel] = caught_panels(alone)
    [band] = [one for one in panel.collections if isinstance(one, PolyCollection)]
    at = band.get_paths()[0].vertices[:, 1]
    assert (at.min(), at.max()) == pytest.approx(alone.points[0].means["dice"].interval)


def caught_panels(data: Curves) -> list[Axes]:
    """The headline's panels of a figure without small ones."""
    with caught() as figures:
        efficiency.draw(data, Path("x.png"), axis="Dice", panels=[])
    return [panel for panel in figures["x.png"].axes if panel.get_lines()]


def test_figures_are_drawn_into_files(tmp_path: Path) -> None:
    make(tmp_path)
    main.run(graph.TREE, "", ["--results", str(tmp_path), "--published"])
    for name in ("train", "difference"):
        looks_drawn(tmp_path / f"{name}_pancreas.png")
        with Image.open(tmp_path / f"{name}_pancreas.png") as image:
            assert image.mode == "P"  # a palette: a quarter of the bytes
            colours = image.convert("RGB").getcolors(style.COLOURS)
        assert colours and max(colours)[1] == (255, 255, 255)


def test_drawing_twice_gives_the_same_tables(tmp_path: Path) -> None:
    make(tmp_path)
    draw(tmp_path)
    paths = [tmp_path / f"train_pancreas{suffix}" for suffix in (".csv", ".md")]
    first = [path.read_bytes() for path in paths]
    draw(tmp_path)
    assert [path.read_bytes() for path in paths] == first


def test_partial_results_are_drawn_and_what_is_missing_is_said(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path)
    (folder / "finetune/rotation/fraction100/seed2/scores.json").unlink()
    runs = folder / "finetune/rotation"
    (runs / "fraction005").rename(runs / "fraction005.old-1")
    draw(tmp_path)
    said = capsys.readouterr().out
    assert "missing rotation at 100 %: seed 2" in said
    assert "missing rotation at 5 %: seeds 0, 1, 2" in said


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_have_no_intervals(tmp_path: Path, seeds: int) -> None:
    make(tmp_path, seeds=seeds)
    rows = draw(tmp_path)
    assert all(row["low"] == "" and row["p"] == "" for row in rows.values())


def test_runs_of_other_settings_are_never_mixed(tmp_path: Path) -> None:
    folder = make(tmp_path)
    run = folder / "finetune/rotation/fraction005/seed1"
    save(run, json.loads((run / "scores.json").read_text()), RESOLUTION=64)
    with pytest.raises(InputError, match="RESOLUTION"):
        draw(tmp_path)


def test_published_curves_belong_to_the_pancreas(tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "spleen")
    with caught():
        main.run(graph.TREE, "", ["--results", str(tmp_path), "--published"])
    assert "no published curves" in capsys.readouterr().out


def test_a_pretext_task_is_solved_where_the_mean_of_five_epochs_is(tmp_path: Path) -> None:
    folder = make(tmp_path, seeds=1)
    log = folder / "pretrain/rotation/seed0/log.jsonl"
    scores = [0.1, 0.9, 0.95, 0.9, 0.9, 0.9, 0.92, 0.2]  # .91 needed: 90 % from .1 to 1
    log.write_text("".join(json.dumps({"epoch": i, "step": i, "val": {"accuracy": value}}) + "\n" +
                           json.dumps({"epoch": i, "loss": 0.1}) + "\n"
                           for i, value in enumerate(scores, 1)))
    draw(tmp_path)
    row = "| rotation | accuracy | 0 | 0.900 | 0.100 | {} | 9 | 7 |"
    assert row.format(6) in (tmp_path / "train_pancreas.md").read_text()
    log.write_text(log.read_text().replace("0.95", "0.85"))
    draw(tmp_path)
    assert row.format("no") in (tmp_path / "train_pancreas.md").read_text()
    log.write_text('{"epoch": 1, "val"')
    with pytest.raises(InputError, match="log.jsonl: not one JSON record a line"):
        draw(tmp_path)
    log.unlink()
    draw(tmp_path)
    assert row.format("?") in (tmp_path / "train_pancreas.md").read_text()


def test_records_of_the_other_tree_are_refused_and_published_ones_drawn_in_place(
        tmp_path: Path) -> None:
    folder = make(tmp_path)
    other = importlib.import_module("2d.graph").TREE
    with pytest.raises(InputError, match=r"report dice; code/2d/graph\.py draws kappa"):
        main.run(other, "", ["--records", str(folder)])
    assert not list(folder.glob("train_*"))
    main.run(graph.TREE, "", ["--records", str(folder)])
    assert {path.suffix for path in folder.glob("train_*")} == {".png", ".md", ".csv"}
