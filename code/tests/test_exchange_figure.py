"""The figure of exchange rates: curves, labels saved or worth, gains by the pool's size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn import looks_drawn, texts
from matplotlib.figure import Figure
from test_rates import DICE, one_fraction, study

from common.report import curves
from common.report.curves import Curves
from common.report.figures import exchange
from common.stats.worth import Value


def drawn(found: Curves, monkeypatch: pytest.MonkeyPatch) -> Figure:
    kept: list[Figure] = []
    monkeypatch.setattr(exchange, "write", lambda figure, _: kept.append(figure))
    assert exchange.draw(found, Path("x.png"), axis="Dice")
    return kept[0]


def test_the_figure_has_a_curve_an_arm_and_a_panel_for_the_pool(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = study(tmp_path, shares=True)
    found = curves.of(read, DICE, target=0.78)
    assert exchange.draw(found, tmp_path / "x.png", axis="Dice")
    looks_drawn(tmp_path / "x.png")
    figure = drawn(found, monkeypatch)
    left, middle, right = figure.axes
    assert found.exchange is not None
    lines = [one.get_xdata() for one in left.lines if len(one.get_xdata()) == exchange.SMOOTH]
    ends = [(round(float(x[0])), round(float(x[-1]))) for x in lines]  # type: ignore[index]
    assert ends == [(9, 182), (182, 364)] * 2
    assert [one.get_linestyle() for one in left.lines if len(one.get_xdata()) == exchange.SMOOTH
            ][1::2] == ["--", "--"]
    saved = found.exchange.rates["rpl"].along
    assert list(middle.lines[1].get_ydata()) == [value.value for _, value in saved]  # type: ignore
    assert len(middle.collections) == 1 and list(right.lines[1].get_xdata()) == [100, 200, 400]
    assert "grey: extrapolated" in texts(figure) and "0.780" in texts(figure)
    (pool,) = found.pools
    beside = drawn(replace(found, pools=[pool, replace(pool, task="cpc")]), monkeypatch).axes[2]
    one, other = (np.array(line.get_xdata()) for line in beside.lines if len(line.get_xdata()) == 3)
    assert (one < other).all() and np.allclose(one * other, np.square([100, 200, 400]))
    assert [tick.get_text() for tick in beside.get_xticklabels()] == ["100", "200", "400"]
    assert beside.get_xlabel() == "images pretrained on"
    plain = drawn(replace(found, pools=[]), monkeypatch)
    assert len(plain.axes) == 2 and "no score that" not in texts(plain)
    apart = {name: replace(rate, along=[]) for name, rate in found.exchange.rates.items()}
    empty = drawn(replace(found, exchange=replace(found.exchange, rates=apart, worth={})),
                  monkeypatch)
    assert "no score that an arm and\nthe baseline both reach" in [
        one.get_text() for one in empty.axes[1].texts] and not empty.axes[1].lines
    assert not exchange.draw(replace(found, exchange=None), tmp_path / "y.png", axis="Dice")


def test_arms_of_one_fraction_are_drawn_with_what_their_labels_are_worth(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = curves.of(one_fraction(tmp_path), DICE)
    figure = drawn(found, monkeypatch)
    left, right = figure.axes
    assert found.exchange is not None
    value = found.exchange.worth["rpl"][10]
    bars = [[float(x) for x in one.get_xdata()] for one in right.lines]  # type: ignore[union-attr]
    assert bars == [[18, 18], [value.low, value.high], [value.value]]
    assert right.get_title(loc="left") == "what 18 labels are worth"
    (mark,) = [one for one in left.lines if list(one.get_xdata()) == [18]]  # type: ignore
    assert float(mark.get_ydata()[0]) == found.of_task("rpl")[0].means["dice"].mean  # type: ignore
    assert "right of the black line the arm saves labels" in texts(figure)
    assert "At other fractions only" not in texts(figure)
    assert [one.get_text() for one in right.texts if one.get_text() == "rpl"] == ["rpl"]
    for low, high, marks in ((30.0, float("inf"), [[182], [value.value]]),
                             (float("inf"), float("inf"), [[182]])):  # it is not known how far
        mean = value.value if low == 30 else low
        open_ = {"rpl": {10: Value(mean, low, high)}}
        far = drawn(replace(found, exchange=replace(found.exchange, worth=open_)), monkeypatch)
        drawn_ = [[float(x) for x in one.get_xdata()] for one in far.axes[1].lines]  # type: ignore
        assert drawn_[2:] == marks and "Arrow: over 182." in texts(far)
    two = {"rpl": {10: value, 25: value}, "cpc": {5: value}}
    named = replace(found, plan={"primary": {"arm": "rpl", "fraction": 25}})
    both = drawn(replace(named, exchange=replace(found.exchange, worth=two)), monkeypatch)
    assert both.axes[1].get_title(loc="left") == "what 46 labels are worth"
    assert "At other fractions only: cpc." in texts(both) and "Arrow" not in texts(both)
    assert [one.get_text() for one in figure.legends[0].texts][-1].startswith("rpl")


@pytest.mark.parametrize(("at", "title"), [(10, "what 18 labels are worth"),
                                           (5, "labels saved at every score")])
def test_a_curve_has_what_the_primary_fractions_labels_are_worth(
        at: int, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = curves.of(study(tmp_path), DICE)
    assert found.exchange is not None and found.exchange.rates["rpl"].along
    worth = {"rpl": {10: Value(30.0, 20.0, 40.0)}}
    named = replace(found, plan={"primary": {"arm": "rpl", "fraction": at}},
                    exchange=replace(found.exchange, worth=worth))
    assert drawn(named, monkeypatch).axes[1].get_title(loc="left") == title


def test_numbers_of_labels_keep_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = curves.of(study(tmp_path, shares=True), DICE)
    assert found.exchange is not None
    rate = found.exchange.rates["baseline"]
    for numbers, shown in (([18, 36, 90, 180, 450, 900, 1800], "18 36 90 180 450  1800"),
                           ([3, 14, 288], "3 14 288")):
        points = {n: (float(n), 0.5) for n in numbers}
        fit = replace(rate.fit, least=float(numbers[0]), most=float(numbers[-1]))
        rates = {"baseline": replace(rate, points=points, fit=fit)}
        left = drawn(replace(found, exchange=replace(found.exchange, rates=rates)),
                     monkeypatch).axes[0]
        labels = left.get_xticklabels()
        assert " ".join(one.get_text() for one in labels) == shown
        boxes = [one.get_window_extent() for one in labels if one.get_text()]
        assert all(a.x1 + 3 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))  # pixels
