"""Runs that also tell a tracker what they log. The records are the same with and without it."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from common.files import Json, plain
from common.runs.records import Run, read_log
from common.track.trackers import Tracker, opened

FOLDER = "track"  # below RESULTS


@dataclass(frozen=True)
class TrackedRun(Run):
    """A run whose losses, scores and settings a tracker is told as they come."""

    kind: str
    place: Path  # the tracker's own folder
    held: dict[str, Tracker] = field(default_factory=dict, compare=False)

    def log(self, name: str, record: Json) -> None:
        """Append the line, and tell its figures."""
        super().log(name, record)
        if name == "log":
            self._tracker(record["step"]).numbers(record["step"], dict(figures(record)))

    def cut_log(self, name: str, epoch: int) -> None:
        """Drop what lies past ``epoch``, as the tracker does: a start begins with it."""
        super().cut_log(name, epoch)
        if name == "log":
            self.close(done=False)
            self._tracker(self.last_step()).settings(plain(self.identity["settings"]))

    def finish(self, scores: Json) -> None:
        """Write scores.json, and tell them: every number beside the cases' own."""
        super().finish(scores)
        last = self.last_step()
        few = {name: value for name, value in scores.items() if name not in ("cases", "seed")}
        self._tracker(last).numbers(last, dict(figures(few, "scores")))
        self.close(done=True)

    def last_step(self) -> int:
        """The step of the newest line of log.jsonl; 0 of an empty one."""
        return max((line["step"] for line in read_log(self.folder)), default=0)

    def close(self, *, done: bool) -> None:
        """Let the tracker write what it holds."""
        if tracker := self.held.pop(self.kind, None):
            tracker.close(done=done)

    def _tracker(self, past: int) -> Tracker:
        if self.kind not in self.held:
            self.held[self.kind] = opened(self.kind, self.place, run_name(self), past=past)
        return self.held[self.kind]


def run_name(run: Run) -> str:
    """The run as a tracker knows it: tree/dataset/runs/stage/task/..."""
    parts = run.folder.parts[:len(run.folder.parts) - run.name.count("/") - 1]
    return "/".join([*parts[-2:], "runs", run.name])


def tracked(run: Run, kind: str, results: Path) -> TrackedRun:
    """The run, telling a tracker whose folder lies in ``results``."""
    return TrackedRun(run.folder, run.identity, kind, place(kind, results))


def place(kind: str, results: Path) -> Path:
    """Where a tracker keeps what it is told."""
    return results / FOLDER / kind


def figures(record: Json, group: str = "") -> Iterator[tuple[str, float]]:
    """The finite numbers of a record by their names; of what lies deeper with its own name before.

    An epoch's loss is train/loss, a validation's Dice val/dice.
    """
    for name, value in record.items():
        if isinstance(value, dict):
            yield from figures(value, f"{group}/{name}".lstrip("/"))
        elif (isinstance(value, int | float) and not isinstance(value, bool)
              and name not in ("epoch", "step") and math.isfinite(value)):
            yield f"{group or 'train'}/{name}", float(value)


def begin(kind: str, results: Path, study: Path) -> None:
    """Make the tracker's folder, before several processes write there."""
    tell_pictures(kind, results, study, [])


def tell_pictures(kind: str, results: Path, study: Path, pictures: Iterable[Path]) -> None:
    """Give PNG files to the tracker, as of the study whose runs lie in the folder ``study``."""
    name = "/".join([*study.parts[-2:], "runs", "study"])
    tracker = opened(kind, place(kind, results), name, past=1)
    for path in pictures:
        tracker.picture(path)
    tracker.close(done=True)


def pictures_of(results: Path, dataset: str) -> list[Path]:
    """The figures of a data set in ``results``."""
    return sorted(results.glob(f"*_{dataset}.png"))
