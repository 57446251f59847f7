"""An arm looks the same in every figure, and no two look alike, whatever eyes look at them."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from common.report.figures.palette import BASES, SPARES, look_of

Array = NDArray[np.float64]
# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB; none for normal eyes.
EYES = {"normal": np.eye(3),
        "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                                [-0.003882, -0.048116, 1.051998]]),
        "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                                  [-0.011820, 0.042940, 0.968881]]),
        "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                                [0.004733, 0.691367, 0.303900]])}
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                [0.0193339, 0.1191920, 0.9503041]])
WHITE = np.array([0.95047, 1.0, 1.08883])
ALIKE = 12.0  # CIE76; about 2.3 can just be seen side by side, thin lines need more
ARMS = ["baseline", "rotation", "rotation+rpl", "rotation+jigsaw", "rotation+rpl+jigsaw",
        "rotation@stages", "rotation+rpl@stages", "rotation@shuffled", "rotation@stages@shuffled",
        "rotation+rpl@shuffled", "jigsaw", "jigsaw@shuffled", "mae", "mae@decoder",
        "mae@decoder@shuffled", "mae@shuffled", "oracle", "oracle@shuffled", "mine",
        "mine@shuffled", "yours"]


def seen(colour: str, eyes: str) -> Array:
    """CIELAB of a colour as it looks to these eyes."""
    rgb = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = (lambda t: np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116))(
        XYZ @ np.clip(EYES[eyes] @ linear, 0, 1) / WHITE)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_lab_by_hand() -> None:
    assert seen("#FFFFFF", "normal") == pytest.approx([100, 0, 0], abs=0.02)
    assert seen("#FF0000", "normal") == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    assert np.linalg.norm(seen("#FF0000", "deuteranopia") - seen("#FF0000", "normal")) > 30


@pytest.mark.parametrize("eyes", EYES)
def test_colours_are_told_apart_and_seen_on_white(eyes: str) -> None:
    colours = {**{name: colour for name, (colour, _) in BASES.items()},
               **{colour: colour for colour in SPARES}}
    for (one, first), (other, second) in combinations(colours.items(), 2):
        apart = float(np.linalg.norm(seen(first, eyes) - seen(second, eyes)))
        assert apart > ALIKE, (one, other, apart)
    assert max(seen(colour, "normal")[0] for colour in colours.values()) < 80


def test_an_arm_has_its_first_tasks_colour_whatever_others_there_are() -> None:
    for few in (ARMS[:3], ARMS[5:9], ARMS):
        for arm in few:
            colour = look_of(arm, few).colour
            assert colour == look_of(arm, [arm]).colour
            if (first := arm.partition("@")[0].partition("+")[0]) in BASES:
                assert colour == BASES[first][0]
    for arm in ("rotation", "mae", "oracle", "mine"):  # of single names marker and dash too
        assert look_of(arm, ARMS) == look_of(arm, [arm, "baseline"])


def test_no_two_arms_of_a_figure_look_alike_and_controls_are_open() -> None:
    looks = [look_of(arm, ARMS) for arm in ARMS]
    assert len({(look.colour, look.marker, look.dash) for look in looks}) == len(ARMS)
    assert [arm for arm, look in zip(ARMS, looks, strict=True) if look.control] == [
        arm for arm in ARMS if arm.endswith("@shuffled") or arm == "oracle"]
    assert all((look.face == "white") == look.control for look in looks)


def test_names_of_coming_tasks_have_fixed_colours() -> None:
    assert set(BASES) == {
        "baseline", "oracle", "rotation", "jigsaw", "rpl", "exemplar", "cpc", "exemplar_hard",
        "exemplar_semihard", "exemplar_upright", "imagenet", "mae", "genesis", "volumefusion",
        "simclr", "vicreg", "meanteacher", "fixmatch"}
    assert len({colour for colour, _ in BASES.values()} | {*SPARES}) == len(BASES) + len(SPARES)
