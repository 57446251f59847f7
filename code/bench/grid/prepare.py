"""What does preprocessing spend its time on, and what would reading alone take?

    python code/bench/grid/prepare.py --data MSD_FOLDER      seconds; --resolution 32 --cases 200

Preprocesses scans one after another in this process, once before anything is timed, and adds up
the seconds of each part. Beside them, on the same machine: gunzip of the same files alone, and a
copy in memory.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from isal import igzip

from common.data import scans
from common.errors import exit_status
from common.machine import limits

COPIED = 2**28  # bytes, of the copy that rates the memory
READING, GUNZIP = "reading: header, orientation, voxels", "gunzip"
PARTS = [  # where a function is looked up, its name there, its part; what is nested counts once
    ("scans", "read_file", READING), ("igzip", "decompress", GUNZIP),
    ("loader", "percentiles", "percentiles"), ("loader", "body_box", "box of the body"),
    ("loader", "scale", "scaling"), ("loader", "resize", "resizing"),
    ("loader", "digest", "digests of the voxels")]


class Clock:
    """Seconds of each part, without those of the parts within it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.within: list[float] = []

    def timed(self, part: str, job: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose seconds are added to its part."""
        def done(*given: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            self.within.append(0.0)
            result = job(*given, **named)
            taken = time.perf_counter() - begun
            own = taken - self.within.pop()
            self.seconds[part] = self.seconds.get(part, 0.0) + own
            if self.within:
                self.within[-1] += taken
            return result
        return done


def main() -> int:
    """Preprocess, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="scans in the layout of the MSD")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--cases", type=int, default=200, help="at most")
    asked = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "3d"))
    loader = importlib.import_module("loader")
    dataset = loader.open_dataset(asked.data.absolute(), unlabelled=False)
    sources = dataset.sources[:asked.cases]

    def every() -> None:
        for source in sources:
            loader.preprocess(source, classes=len(dataset.classes),
                              channels=len(dataset.channels), resolution=asked.resolution,
                              intensity="percentile")
    print(f"{len(sources)} scans and label maps of {dataset.name}, to {asked.resolution}³, one "
          f"after another.\n\n{table(measured(loader, every), len(sources))}")
    files = [file for source in sources for file in source.files if file.suffix == ".gz"]
    print(f"\n{gunzip_rate(files)} A copy in memory: {copy_rate() / 1e9:.1f} GB/s.")
    return 0


def measured(loader: ModuleType, every: Callable[[], None]) -> dict[str, float]:
    """Seconds of each part of ``every``, and of the rest of it."""
    clock = Clock()
    with limits.keeping_memory():  # as exp.py does
        every()  # files and tables that are made once
        with _watched(loader, clock):
            begun = time.perf_counter()
            every()
            whole = time.perf_counter() - begun
    return {**clock.seconds, "all the rest": whole - sum(clock.seconds.values())}


@contextmanager
def _watched(loader: ModuleType, clock: Clock) -> Iterator[None]:
    """Within, the clock runs in every part."""
    places: dict[str, Any] = {"scans": scans, "igzip": igzip, "loader": loader}
    with ExitStack() as stack:
        for place, name, part in PARTS:
            job = getattr(places[place], name)
            stack.enter_context(patch.object(places[place], name, clock.timed(part, job)))
        yield


def table(seconds: dict[str, float], cases: int) -> str:
    """Milliseconds a case and shares, the largest first."""
    whole = sum(seconds.values())
    lines = [f"| {part} | {1e3 * taken / cases:.2f} | {100 * taken / whole:.0f} % |"
             for part, taken in sorted(seconds.items(), key=lambda one: -one[1])]
    return "\n".join(["| part | ms a case | share |", "|---|---|---|", *lines,
                      f"| all | {1e3 * whole / cases:.2f} | |"])


def gunzip_rate(files: list[Path]) -> str:
    """What gunzip alone makes of the files, in memory."""
    packed = [file.read_bytes() for file in files]
    if not packed:
        return "No file is packed."
    begun = time.perf_counter()
    made = sum(len(igzip.decompress(one)) for one in packed)
    taken = time.perf_counter() - begun
    return f"Gunzip alone: {made / taken / 1e6:.0f} MB/s of what comes out of it."


def copy_rate() -> float:
    """Bytes a second that a large copy reads; it writes as many."""
    source = np.ones(COPIED, np.uint8)
    target = np.empty_like(source)
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - begun)
    return COPIED / min(times)


if __name__ == "__main__":
    sys.exit(exit_status(main))
