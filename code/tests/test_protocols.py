"""Two protocols of finetuning side by side: who is paired with whom, the table, the figure."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from drawn import looks_drawn, texts
from matplotlib.figure import Figure
from scipy.stats import t as student
from test_curves import write

from common.report import curves, main, protocols
from common.report.curves import Curves
from common.report.figures import protocols as two_protocols
from common.report.page import document
from common.runs import records
from common.stats.measures import mean_of

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode does not
DICE = [mean_of("dice", "Dice")]
TREE = replace(importlib.import_module("3d.graph").TREE, measures=lambda run: DICE)
OURS, PAPERS = (0.01, 0.03, 0.02, 0.00, 0.04), (0.11, 0.09, 0.10, 0.16, 0.12)  # gains by seed
TOLD = "the paper's but for FINETUNE_EPOCHS"


def study(folder: Path, gains: tuple[float, ...], *, base: float,
          tasks: tuple[str, ...] = ("baseline", "rpl", "rpl@shuffled"),
          fractions: tuple[int, ...] = (5, 100)) -> None:
    """Five seeds on five folds; at 100 % the gains are halved."""
    for task in tasks:
        for fraction in fractions:
            for seed, gain in enumerate(gains):
                more = 0.0 if task == "baseline" else gain / (1 + (fraction == 100))
                score = base + 0.01 * seed + (-more if "shuffled" in task else more)
                write(folder, task, fraction, seed, test={"dice": score},
                      cases={f"c{seed}{i}": {"dice": score, "dice_a": score} for i in range(3)},
                      settings={"RESOLUTION": 32, "FOLDS": 5})


def both(folder: Path) -> tuple[Curves, Curves]:
    study(folder / "3d/hip", OURS, base=0.7)
    study(folder / "3d/hip-paper", PAPERS, base=0.5)
    mine, other = (curves.of(records.read(folder / "3d" / name), DICE)
                   for name in ("hip", "hip-paper"))
    runs = [{**run, "protocol": TOLD} for run in other.runs]
    return mine, replace(other, runs=runs)


def test_gains_are_paired_by_seed_within_their_protocol(tmp_path: Path) -> None:
    mine, other = both(tmp_path)
    found = {(pair.task, pair.fraction): pair for pair in protocols.pairs(mine, other)}
    assert list(found) == [(task, fraction) for task in ("baseline", "rpl", "rpl@shuffled")
                           for fraction in (5, 100)]
    one = found["rpl", 5]
    assert one.ours.difference is not None and one.papers.difference is not None
    assert one.ours.difference.mean == pytest.approx(np.mean(OURS))
    assert one.papers.difference.mean == pytest.approx(np.mean(PAPERS))
    more = np.subtract(PAPERS, OURS)
    assert one.more is not None and one.more.scores == pytest.approx(more)
    half = student.ppf(0.975, 4) * more.std(ddof=1) * (1 / 5 + 0.05 / 4) ** 0.5
    assert one.more.interval == pytest.approx((more.mean() - half, more.mean() + half))
    assert found["baseline", 5].more is None
    all_labels = found["rpl", 100].more
    assert all_labels is not None and all_labels.mean == pytest.approx(more.mean() / 2)


def test_studies_of_other_splits_are_never_drawn_together(tmp_path: Path) -> None:
    ours, papers = both(tmp_path)
    other = replace(ours, runs=[{**run, "identity": {**run["identity"], "splits": "others"}}
                                for run in ours.runs])
    for drawn in ([other, ours, papers], [papers, ours, other]):
        (found, beside), = protocols.found(drawn)
        assert found is ours and beside is papers
    assert not protocols.found([other, papers])


def test_only_what_both_have_is_compared(tmp_path: Path) -> None:
    study(tmp_path / "3d/hip", OURS, base=0.7, tasks=("baseline", "rpl", "cpc"))
    study(tmp_path / "3d/hip-paper", PAPERS[:4], base=0.5, fractions=(5,))
    mine, other = (curves.of(records.read(tmp_path / "3d" / name), DICE)
                   for name in ("hip", "hip-paper"))
    found = protocols.pairs(mine, other)
    assert [(pair.task, pair.fraction) for pair in found] == [("baseline", 5), ("rpl", 5)]
    assert found[1].more is not None and found[1].more.seeds == (0, 1, 2, 3)
    assert protocols.found([other, mine]) == [(mine, other)]
    assert protocols.found([mine]) == [] and protocols.found([other]) == []
    bare = replace(other, points=[point for point in other.points if point.task == "baseline"])
    assert not two_protocols.draw(mine, bare, tmp_path / "x.png", axis="Dice")


def test_the_table_has_scores_gains_and_what_the_protocol_makes(tmp_path: Path) -> None:
    mine, other = both(tmp_path)
    text = protocols.markdown(mine, other)
    assert TOLD in text and "over seeds alone" not in text
    line = next(line for line in text.splitlines() if line.startswith("| rpl | 5 % |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2].startswith("+0.020 (") and cells[3].startswith("+0.116 (")
    assert cells[4].startswith("+0.096 (") and cells[4].count("+") == 3
    base = next(line for line in text.splitlines() if line.startswith("| baseline | 5 % |"))
    assert "| 0.720 (" in base and "| 0.520 (" in base and base.endswith("|  |")
    assert "| rpl@shuffled (control) | 100 % |" in text
    fixed = replace(mine, runs=[{**run, "identity": {"settings": {"RESOLUTION": 32}}}
                                for run in mine.runs])
    assert "over seeds alone" in protocols.markdown(fixed, other)


def test_the_figure_has_a_panel_an_arm_and_both_protocols_in_it(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = both(tmp_path)
    assert two_protocols.draw(mine, other, tmp_path / "x.png", axis="Dice")
    looks_drawn(tmp_path / "x.png")
    kept: list[Figure] = []
    monkeypatch.setattr(two_protocols, "write", lambda figure, _: kept.append(figure))
    two_protocols.draw(mine, other, tmp_path / "y.png", axis="Dice")
    score, gain, control = kept[0].axes
    marked = [list(line.get_ydata()) for line in gain.lines  # type: ignore[arg-type]
              if line.get_marker() not in ("None", None, "")]
    assert marked[0] == pytest.approx([0.02, 0.01]) and marked[1] == pytest.approx([0.116, 0.058])
    base = [list(line.get_ydata()) for line in score.lines  # type: ignore[arg-type]
            if line.get_marker() not in ("None", None, "")]
    assert base[0] == pytest.approx([0.72, 0.72]) and base[1] == pytest.approx([0.52, 0.52])
    assert gain.get_ylim() == control.get_ylim() != score.get_ylim()
    said = texts(kept[0])
    assert TOLD in said and "two protocols" in said and "the paper's" in said


def test_the_command_draws_both_where_both_are_there(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("difference", "learning", "efficiency", "exchange"):
        module = importlib.import_module(f"common.report.figures.{name}")
        monkeypatch.setattr(module, "write", lambda figure, path: plt.close(figure))
    monkeypatch.setattr(document, "write", lambda *_, **__: None)
    study(tmp_path / "3d/hip", OURS, base=0.7)
    main.run(TREE, "", ["--results", str(tmp_path)])
    assert not [*tmp_path.glob("protocols_*")]
    study(tmp_path / "3d/hip-paper", PAPERS, base=0.5)
    main.run(TREE, "", ["--results", str(tmp_path)])
    both_files = {"protocols_hip.png", "protocols_hip.md"}
    assert {path.name for path in tmp_path.glob("protocols_*")} == both_files
    study(tmp_path / "3d/hippo", OURS, base=0.7)
    for name in ("hip", "hip-paper"):  # one data set, under either protocol
        for path in (*tmp_path.glob("protocols_*"), *tmp_path.glob("train_*")):
            path.unlink()
        main.run(TREE, "", ["--results", str(tmp_path), "--dataset", name])
        assert {path.name for path in tmp_path.glob("protocols_*")} == both_files
        assert {path.name for path in tmp_path.glob("train_*.md")} == {"train_hip.md",
                                                                       "train_hip-paper.md"}
