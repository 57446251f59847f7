"""The one exception a user is meant to see, and how a script ends on it."""

import errno
import io
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from threading import Thread, current_thread, main_thread


class InputError(Exception):
    """Input that cannot be used: one line naming file, what was found and expected, what to do."""


class RunFailed(Exception):  # noqa: N818 - an outcome, caught and reported
    """A run that could not be trained to its end: one line with the run, the epoch and the step."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends as Ctrl-C does, clean-up runs and worker processes go too."""


def few(names: Sequence[str], most: int = 5) -> str:
    """Some names and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


AGAIN = 3.0  # seconds within which a second Ctrl-C means the same; ending the workers takes less
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)
NO_ENTRY = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


def disk_problem(error: OSError) -> str | None:
    """One line on a full or unwritable disk, with the remedy; None for any other OSError."""
    if error.errno in NO_ROOM:
        return (f"{error.filename or 'disk'}: {error.strerror}; make room, or name another place "
                "with --results and --cache, and give the same command again")
    if error.errno in NO_ENTRY:
        return (f"{error.filename or 'disk'}: {error.strerror}; change its permissions, or name "
                "another place with --results and --cache")
    if error.errno in NO_LOCKS:
        return (f"{error.filename or 'disk'}: {error.strerror}: processes share the runs by file "
                "locks (flock), which this file system does not have; name another place with "
                "--results and --cache")
    return None


def exit_status(main: Callable[[], int | None]) -> int:
    """Run ``main`` and translate how it ended into an exit status.

    0 (or what main returns) as usual, 2 after one line on stderr for an InputError or a disk that
    cannot be written, 130 for Ctrl-C, however often, 141 without a word where nobody reads on
    (| head), 143 for SIGTERM.
    """
    stop = stopper()
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else a shell has it ignored
        signal.signal(signal.SIGINT, stop)
    _use_any_terminal()
    try:
        status = main() or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        if not any(map(_unread, (1, 2))):
            raise
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)  # what is still in buffers has to go somewhere
        return 128 + signal.SIGPIPE
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if (problem := disk_problem(error)) is None:
            raise
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as end:
        ending()
        where = f" at {end}" if end.args else ""
        print(f"stopped{where}; the same command goes on from here", file=sys.stderr)
        return 143 if isinstance(end, Terminated) else 130


def stopper() -> Callable[[int, object], None]:
    """What is done on Ctrl-C and SIGTERM: clean up and end. Told again meanwhile, go on with that.
    """
    last = float("-inf")

    def stop(number: int, frame: object) -> None:
        nonlocal last
        if time.monotonic() - last > AGAIN:  # an interrupt may get lost in a destructor
            last = time.monotonic()  # of the last one heard: who presses on and on is heard again
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
    return stop


def _use_any_terminal() -> None:
    """Write to any stdout and stderr: without a letter they lack, or nowhere if they are closed."""
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own may not be installed here
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:  # else a file gets a closed one's number
        pass
    os.close(spare)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _unread(descriptor: int) -> bool:
    """Whether nobody reads any more what is written there."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(found & (select.POLLERR | select.POLLNVAL) for _, found in poll.poll(0))


def ending() -> None:
    """Hear no Ctrl-C any more, and end at once on SIGTERM: this process is at its end.

    A second Ctrl-C would be a traceback of whatever torch and multiprocessing clean up meanwhile.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def deaf() -> Iterator[None]:
    """Let processes started meanwhile not hear Ctrl-C: this one does, and ends them."""
    if current_thread() is not main_thread():
        yield
        return
    resource_tracker.ensure_running()  # it would listen again, for all
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int) -> None:
    """Let this worker end when its parent is gone; one that is killed cannot tell its workers."""
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)
    Thread(target=watch, daemon=True).start()
