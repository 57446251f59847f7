"""Progress of a whole grid: one bar with the time left, or plain lines away from a terminal."""

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from queue import Empty
from typing import Any

from tqdm import tqdm

PLAIN_EVERY = 30   # seconds between lines where stderr is not a terminal
WINDOW = 600       # seconds whose speed the time left is reckoned from: a machine's load changes
FIRST_AFTER = 20   # seconds of training before the first estimate


class Progress:
    """Takes events ("work" | "skip" | "done" | "failed", run, amount or text) from the workers.

    "skip" is work that needs not be done here: an earlier process did it, or patience saved it. It
    counts for how far the grid is, and not for how fast. ``total`` is the work of all runs, and
    ``behind`` what each by its name had made before this process: every percentage is of the whole.
    """

    def __init__(self, total: float, clock: Callable[[], float] = time.monotonic, *,
                 behind: Mapping[str, float] | None = None) -> None:
        self.terminal = sys.stderr.isatty()
        self.clock = clock
        self.behind = dict(behind or {})
        self.total, self.made, self.skipped = total, 0.0, sum(self.behind.values())
        self.started = self.shown = clock()
        self.recent = deque([(self.started, 0.0)])  # (time, work made by then)
        self.estimated = False
        self.failures: list[str] = []
        self.last = ""
        self.bar = tqdm(total=total, initial=self.skipped, desc="train", disable=not self.terminal,
                        bar_format="{l_bar}{bar}| {elapsed}{postfix}", dynamic_ncols=True)

    def put(self, event: Any) -> None:
        """Show one event."""
        kind, run, what = event
        if kind in ("work", "skip"):
            what -= self.behind.pop(run, 0.0)  # told first is what it resumes: counted already
            self._advance(what, worked=kind == "work")
            self.last = run
            self.bar.set_postfix_str(f"{self._left_in_words()}, {run}", refresh=False)
            self.bar.update(what)
            self._first_estimate()
            self._plain_line()
        elif kind == "done":
            self.bar.write(f"done      {run}: {what}", file=sys.stdout)
            sys.stdout.flush()
        else:
            self.failures.append(what)
            self.bar.write(f"failed    {what}", file=sys.stderr)

    def _advance(self, amount: float, *, worked: bool) -> None:
        if not worked:
            self.skipped += amount
            if not self.made:  # a run begins: what came before was start-up
                self.started = self.clock()
                self.recent = deque([(self.started, 0.0)])
            return
        self.made += amount
        now = self.clock()
        self.recent.append((now, self.made))
        while len(self.recent) > 2 and now - self.recent[1][0] > WINDOW:
            self.recent.popleft()

    def seconds_left(self) -> float | None:
        """Time left at the speed of the last WINDOW seconds; None before any work is made."""
        since, before = self.recent[0]
        made = self.made - before
        if made <= 0:
            return None
        return (self.clock() - since) * max(0.0, self.total - self.made - self.skipped) / made

    def _left_in_words(self) -> str:
        left = self.seconds_left()
        return "" if left is None else f"at most about {in_words(left / 3600)} left"

    def _first_estimate(self) -> None:
        """Say once, from the first measured steps, how long all of it will take."""
        left, measured = self.seconds_left(), self.clock() - self.started
        if self.estimated or left is None or measured < FIRST_AFTER:
            return
        self.estimated = True
        self.bar.write(f"time      at most about {in_words(left / 3600)} left, measured over the "
                       f"first {measured:.0f} s of training", file=sys.stdout)
        sys.stdout.flush()

    def _plain_line(self) -> None:
        """A line now and then for logs."""
        now = self.clock()
        if self.terminal or now - self.shown < PLAIN_EVERY or not self.made:
            return
        self.shown = now
        share = self._percent(self.made + self.skipped)
        print(f"progress  {share} %, {self._left_in_words()}", flush=True)

    def follow(self, queue: Any, processes: Sequence[BaseProcess]) -> None:
        """Show events until every worker has ended; a worker that was killed is a failure."""
        while any(process.is_alive() for process in processes) or not queue.empty():
            try:
                self.put(queue.get(timeout=0.5))
            except Empty:
                continue
        for process in processes:
            process.join()
            if process.exitcode not in (0, 130):
                self.failures.append(f"a worker ended with status {process.exitcode} (killed, or "
                                     "out of memory: lower WORKERS)")

    def _percent(self, made: float) -> int:
        return round(100 * made / self.total) if self.total else 100

    def where(self, kept: float) -> str:
        """How far it has come, for whoever stops it: ``kept`` is the work that is on the disk."""
        self.bar.close()
        goes_on = self._percent(kept)
        lost = self._percent(self.made + self.skipped) - goes_on
        notes = ([f"{lost} % since the last checkpoints are made again"] if lost > 0 else []) + (
            [self.last] if self.last else [])
        return f"{goes_on} %" + (f" ({'; '.join(notes)})" if notes else "")

    def close(self) -> None:
        """End the bar."""
        self.bar.close()


def in_words(hours: float) -> str:
    """A time as in "12 hours", "1.5 hours" or "3 minutes"."""
    minutes = max(1, round(hours * 60))
    return f"{hours:.0f} hours" if hours >= 10 else f"{hours:.1f} hours" if hours >= 1 else (
        f"{minutes} minute{'s' * (minutes > 1)}")
