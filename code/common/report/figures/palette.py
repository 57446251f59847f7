"""One look an arm, the same in every figure: colour by its first task, marker and dash by the rest.

Any two colours differ by at least 16 (CIE76) to normal eyes and, as Machado et al. 2009 simulate
them, to those without one kind of cone (test_palette.py): baseline and the paper's five tasks have
those of Okabe and Ito 2008, the others were searched for so that the smallest difference is large.
Controls have an open marker.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from common.arms import BASELINE, ORACLE, is_control, is_shuffled, parts, suffixes

BASES = {BASELINE: ("#000000", "s"), ORACLE: ("#5E5E5E", "s"), "rotation": ("#0072B2", "o"),
         "jigsaw": ("#D55E00", "^"), "rpl": ("#009E73", "D"), "exemplar": ("#CC79A7", "v"),
         "cpc": ("#E69F00", "P"), "exemplar_hard": ("#F00CCC", "<"),
         "exemplar_semihard": ("#9C0084", "d"), "exemplar_upright": ("#E4A8FC", "p"),
         "imagenet": ("#543000", "*"), "mae": ("#9C3CFC", "h"), "genesis": ("#301890", "o"),
         "volumefusion": ("#9090FC", "D"), "simclr": ("#84543C", "^"), "vicreg": ("#A85424", "v"),
         "meanteacher": ("#6C9C54", "P"), "fixmatch": ("#9CCC78", "*")}
SPARES = ("#00D8A8", "#780030", "#600048", "#0000FC")  # of a user's encoder, by its name
SPARE_MARKER = "p"
JOINT = "X"                                 # marker of arms joined by +
SUFFIXES = {"stages": ">", "decoder": "8"}  # behind an @: its marker
MARKERS = (JOINT, *SUFFIXES.values(), "o", "^", "D", "v", "P", "s")  # where those are taken
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (6, 1, 1, 1, 1, 1)),
                           (0, (1, 1)), (0, (2, 2)), (0, (8, 3)))
SHUFFLED_DASH = 4  # dotted


@dataclass(frozen=True)
class Look:
    """How an arm is drawn."""

    colour: str
    marker: str
    dash: Any      # a line style of matplotlib
    control: bool  # an open marker

    @property
    def face(self) -> str:
        """The colour within the marker."""
        return "white" if self.control else self.colour


def look_of(task: str, tasks: Sequence[str]) -> Look:
    """The look of one of ``tasks``; colours follow from the name, no look is dealt twice."""
    looks: dict[str, Look] = {}
    for name in sorted({task, *tasks}, key=lambda name: (name not in BASES, name)):
        taken = {(look.colour, look.marker, look.dash) for look in looks.values()}
        colour, marker, first = _wish(name)
        dashes = DASHES[first:] + DASHES[:first]
        markers = dict.fromkeys((marker, *MARKERS))
        mark, dash = next((pair for pair in product(markers, dashes)
                           if (colour, *pair) not in taken), (marker, dashes[0]))
        looks[name] = Look(colour, mark, dash, is_control(name))
    return looks[task]


def _wish(name: str) -> tuple[str, str, int]:
    """Colour, marker and the dash's number that an arm has unless another arm has them."""
    spare = SPARES[zlib.crc32(name.encode()) % len(SPARES)]
    first, *others = parts(name)
    colour, marker = BASES.get(first, (spare, SPARE_MARKER))
    kinds = [JOINT] * bool(others) + [mark for suffix, mark in SUFFIXES.items()
                                      if suffix in suffixes(name)]
    return (colour, kinds[0] if kinds else marker,
            SHUFFLED_DASH if is_shuffled(name) else len(kinds))
