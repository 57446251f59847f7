"""The learning curves' figure: which fraction, which line, letters of one size."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import Trial
from drawn import caught, texts
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.files import Json
from common.report import curves
from common.report.curves import Curves
from common.report.figures import learning
from common.report.figures.style import SMALL, STYLE, WIDTH, heading, plt, titles
from common.runs import records
from common.stats.measures import kappa_of, mean_of

Steps = Sequence[tuple[int, float]]


def found(trial: Trial, holds: Callable[[Json], bool]) -> Curves:
    """The finetuning runs of a finished trial of which something holds, and all pretraining."""
    whole = records.read(trial.runs(trial.folder))
    few = replace(whole, finetune=[run for run in whole.finetune if holds(run)])
    measure = kappa_of("kappa", "QWK", 5) if trial.tree == "2d" else mean_of("dice", "Dice")
    return curves.of(few, [measure])


def drawn(data: Curves, folder: Path) -> Figure:
    """The figure."""
    with caught() as figures:
        assert learning.learning(data, folder / "x.png")
    return figures["x.png"]


def panels(figure: Figure, name: str) -> list[Axes]:
    """The panels of an arm: finetuning, and pretraining if there is one."""
    return [one for one in figure.axes if one.get_title(loc="left") == name]


def test_arms_are_drawn_at_their_smallest_fraction(trial: Trial, tmp_path: Path) -> None:
    data = found(trial, lambda run: run["task"] == "baseline" or run["fraction"] == 100)
    assert data.fractions[0] == 50  # of the baseline alone
    figure = drawn(data, tmp_path)
    lines = [line for line in panels(figure, "rotation")[0].lines if len(line.get_xdata())]
    assert len(lines) == 4  # its run, the baseline's, and both means
    assert "at 100 % of the labels" in texts(figure)


def test_arms_are_drawn_where_the_primary_comparison_is(trial: Trial, tmp_path: Path) -> None:
    data = found(trial, lambda run: True)
    named = replace(data, plan={"primary": {"task": "rotation", "fraction": 100}})
    assert "at 50 % of the labels" in texts(drawn(data, tmp_path))
    assert "at 100 % of the labels" in texts(drawn(named, tmp_path))
    elsewhere = replace(data, plan={"primary": {"task": "rotation", "fraction": 25}})
    assert "at 50 % of the labels" in texts(drawn(elsewhere, tmp_path))  # where arms are


@pytest.mark.parametrize(("epochs", "lag"), [(12, 0), (60, 2)])
def test_a_pretext_line_is_smoothed_only_where_it_is_long(trial_2d: Trial, tmp_path: Path,
                                                          epochs: int, lag: int) -> None:
    data = found(trial_2d, lambda run: True)
    rising = [[step, step / epochs] for step in range(epochs)]
    data = replace(data, pretraining=[
        {**run, "validations": dict.fromkeys(run["chance"], rising),
         "chance": dict.fromkeys(run["chance"], 0.0)} for run in data.pretraining])
    figure = drawn(data, tmp_path)
    thick = max(panels(figure, "rotation")[1].lines, key=lambda line: line.get_linewidth())
    steps, values = (np.asarray(part, float) for part in thick.get_data())
    assert steps[-1] == epochs - 1 and values == pytest.approx((steps - lag) / epochs)
    assert ("5 epochs" in texts(figure)) is (lag > 0)


def test_titles_side_by_side_and_lines_below_each_other_are_of_one_size(trial_3d: Trial) -> None:
    with plt.rc_context(STYLE):
        figure, both = plt.subplots(1, 2, figsize=(WIDTH, 3))
    titles(both, ["a", "a name as long as a line that has no room at nine points"], ["red", "blue"])
    sizes = [text.get_fontsize() for panel in both for text in panel.findobj(plt.Text)
             if text.get_text() in (panel.get_title(loc="left"),) and text.get_text()]
    assert len(sizes) == 2 and sizes[0] == SMALL > sizes[1]  # too long for all to be as small
    titles(both, ["a", "a name as long as a line, at eight pts"], ["red", "blue"])
    sizes = [panel.title.get_fontsize() if not panel.get_title(loc="left") else
             next(text.get_fontsize() for text in panel.findobj(plt.Text)
                  if text.get_text() == panel.get_title(loc="left")) for panel in both]
    assert SMALL < sizes[0] == sizes[1] < 9
    heading(figure, "x", found(trial_3d, lambda run: True), "short", "long " * 40)
    below = [text.get_fontsize() for text in figure.texts[1:]]
    assert len(below) == 2 and below[0] == below[1] < 8.5
    plt.close(figure)
