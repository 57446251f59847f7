"""The one exception a user is meant to see, and how a script ends on it."""

import signal
import sys
from collections.abc import Callable
from typing import NoReturn


class InputError(Exception):
    """Input that cannot be used: one line naming file, what was found and expected, what to do."""


class RunFailed(Exception):  # noqa: N818 - an outcome, caught and reported
    """A run that could not be trained to its end: one line with the run, the epoch and the step."""


def exit_status(main: Callable[[], int | None]) -> int:
    """Run ``main`` and translate how it ended into an exit status.

    0 (or what main returns) as usual, 2 after one line on stderr for an InputError, 130 for Ctrl-C.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return main() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _terminate(number: int, frame: object) -> NoReturn:
    """End as Ctrl-C does: clean-up runs, worker processes go too."""
    print("terminated; the same command goes on from here", file=sys.stderr)
    raise SystemExit(128 + number)
