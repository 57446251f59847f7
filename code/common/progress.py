"""Progress of a whole grid: one bar with the time left, or plain lines away from a terminal."""

import sys
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from queue import Empty
from typing import Any

from tqdm import tqdm

PLAIN_EVERY = 30  # seconds between lines where stderr is not a terminal


class Progress:
    """Takes events ("work" | "done" | "failed", run, amount or text) from the workers."""

    def __init__(self, total: float) -> None:
        self.terminal = sys.stderr.isatty()
        self.total, self.made = total, 0.0
        self.started = self.shown = time.monotonic()
        self.failures: list[str] = []
        self.last = ""
        form = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
        self.bar = tqdm(total=total, desc="train", disable=not self.terminal, bar_format=form,
                        dynamic_ncols=True)

    def put(self, event: Any) -> None:
        """Show one event."""
        kind, run, what = event
        if kind == "work":
            self.made += what
            self.last = run
            self.bar.set_postfix_str(run, refresh=False)
            self.bar.update(what)
            self._plain_line()
        elif kind == "done":
            self.bar.write(f"done      {run}: {what}", file=sys.stdout)
            sys.stdout.flush()
        else:
            self.failures.append(what)
            self.bar.write(f"failed    {what}", file=sys.stderr)

    def _plain_line(self) -> None:
        """A line now and then for logs."""
        now = time.monotonic()
        if self.terminal or now - self.shown < PLAIN_EVERY or not self.made:
            return
        self.shown = now
        left = (now - self.started) * (self.total - self.made) / self.made
        print(f"progress  {100 * self.made / self.total:.0f} %, at most about "
              f"{max(1, round(left / 60))} min left", flush=True)

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

    def where(self) -> str:
        """How far it has come, for whoever stops it."""
        self.bar.close()
        share = 100 * self.made / self.total if self.total else 100
        return f"{share:.0f} %" + (f" ({self.last})" if self.last else "")

    def close(self) -> None:
        """End the bar."""
        self.bar.close()
