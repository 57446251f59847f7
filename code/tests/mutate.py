"""Does a test fail when a promise is broken? One-line mutations of central code, each met by tests.

    python code/tests/mutate.py                  the whole table: 11 minutes on two busy cores
    python code/tests/mutate.py --only kappa     mutations whose words contain one of those given
    python code/tests/mutate.py --list           what is in the table

A mutation is a piece of code found by its text, in whatever file it lies; what replaces it; and
the tests that should fail then. They run with -x on a copy of the repository, in a process forked
from one that has imported torch already. What they miss meets the whole fast suite. A line each;
at the end the survivors. Status: 0 no survivors, 1 survivors, 2 the table itself is wrong (a text
that is not there exactly once, a test that is not there or fails unmutated, a mutant that cannot
be imported: none of these is a kill).
"""

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import mutations_card
import mutations_classes
import mutations_data
import mutations_design
import mutations_exchange
import mutations_export
import mutations_figures
import mutations_inputs
import mutations_modern
import mutations_numbers
import mutations_page
import mutations_paper
import mutations_predict
import mutations_protocol
import mutations_reading
import mutations_recipe
import mutations_tasks
import mutations_track
import mutations_tuning

ROOT = Path(__file__).resolve().parents[2]
MINUTES = 20       # for everything; what has not met the whole suite by then counts as a survivor
LIMIT = 90         # seconds for the tests of one mutation; longer is a hang, and counts as killed
COPIED = ("code", "results", "README.md", "setup.sh", "requirements.txt", ".gitignore", ".ci",
          ".github")
HEAVY = ("numpy", "torch", "torchvision", "pytest", "nibabel", "scipy.ndimage", "sklearn.metrics",
         "matplotlib.pyplot", "PIL.Image", "tqdm", "filelock")  # imported once, before the forks


class Mutation(NamedTuple):
    """A promise that ``new`` in the place of ``old`` breaks, and the tests that should see it."""

    promise: str
    old: str
    new: str
    tests: str  # files and node ids below code/tests, separated by spaces


class Verdict(NamedTuple):
    """What came of a set of tests: "killed", "survived" or "error", and how that is known."""

    kind: str
    how: str


class Job(NamedTuple):
    """Tests to run in a copy where ``mutation``, if any, has been made; seconds they may take."""

    mutation: Mutation | None
    tests: tuple[str, ...]  # none: the whole fast suite
    limit: float
    first_only: bool = True  # -x


TABLE = [Mutation(*row, tests) for part in (mutations_protocol, mutations_design, mutations_numbers,
                                            mutations_tasks, mutations_data, mutations_figures,
                                            mutations_card, mutations_exchange, mutations_page,
                                            mutations_paper, mutations_recipe, mutations_tuning,
                                            mutations_reading, mutations_modern, mutations_predict,
                                            mutations_export, mutations_track,
                                            mutations_inputs, mutations_classes)
         for tests, rows in part.TABLE.items() for row in rows]


def main() -> int:
    """Check the table, then every mutation, then the survivors against the whole suite."""
    options = arguments()
    ends = time.monotonic() + 60 * MINUTES
    table = [m for m in TABLE
             if not options.only or any(word in m.promise for word in options.only)]
    if options.list:
        print("\n".join(f"{m.promise}  [{m.tests}]" for m in table))
        return 0
    faults = [fault for m in table if (fault := fault_of(m))]
    if faults or not table:
        return told(faults or ["no mutation has these words"])
    warm_up()
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        copies = [copied(Path(folder) / f"copy{number}") for number in range(options.jobs)]
        files = sorted({test for m in table for test in m.tests.split()})
        halves = [Job(None, tuple(files[i::len(copies)]), 60 * MINUTES, first_only=False)
                  for i in range(len(copies)) if files[i::len(copies)]]
        failing = [v.how for _, v, _ in run(halves, copies) if v.kind != "survived"]
        if failing:
            return told([f"unmutated: {how}" for how in failing])
        verdicts = shown(run([Job(m, tuple(m.tests.split()), LIMIT) for m in table], copies))
        left = [m for m, v in verdicts if v.kind == "survived"]
        if left:
            print(f"{len(left)} of them now meet the whole fast suite")
        missed = [m for m, v in shown(run([Job(m, (), ends) for m in left], copies, ends))
                  if v.kind == "survived"]
    broken = [f"{m.promise}: {v.how}" for m, v in verdicts if v.kind == "error"]
    print(f"{len(table)} mutations, {len(table) - len(left) - len(broken)} killed by the tests "
          f"named, {len(left) - len(missed)} by others, {len(missed)} survivors, "
          f"{time.monotonic() - ends + 60 * MINUTES:.0f} s")
    for mutation in missed:
        print(f"survivor: {mutation.promise}")
    return told(broken) if broken else int(bool(missed))


def arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORDS", help="of the promise")
    parser.add_argument("--list", action="store_true", help="show the table and stop")
    parser.add_argument("--jobs", type=int, default=2, help="tests at a time [2]")
    return parser.parse_args()


def told(faults: list[str]) -> int:
    """Say what is wrong with the table: status 2."""
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 2


def sources(root: Path) -> list[Path]:
    """The product code: no tests, and not what it is measured beside."""
    return [file for file in sorted((root / "code").rglob("*.py"))
            if not {"tests", "peers_rows"} & {*file.relative_to(root).parts}]


def place_of(mutation: Mutation, root: Path) -> Path:
    """The file that has the mutation's text; ValueError unless it is there exactly once."""
    counts = {file: file.read_text(encoding="utf-8").count(mutation.old) for file in sources(root)}
    if sum(counts.values()) != 1:
        where = ", ".join(file.name for file, count in counts.items() if count) or "no file"
        raise ValueError(f"{mutation.promise}: its text is in {where}, {sum(counts.values())} "
                         f"times; once is needed: {mutation.old!r}")
    return max(counts, key=lambda file: counts[file])


def fault_of(mutation: Mutation) -> str | None:
    """What is wrong with a row of the table, None if nothing is."""
    try:
        file = place_of(mutation, ROOT)
        compile(file.read_text(encoding="utf-8").replace(mutation.old, mutation.new), file, "exec")
    except (ValueError, SyntaxError) as error:
        return f"{mutation.promise}: {error}"
    missing = [test for test in mutation.tests.split()
               if not (ROOT / "code/tests" / test.split("::")[0]).is_file()]
    return f"{mutation.promise}: no file {', '.join(missing)}" if missing else None


def warm_up() -> None:
    """Import once what every test process needs; nothing of the project itself."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True  # a mutant of equal size and second would meet old bytecode
    for name in HEAVY:
        importlib.import_module(name)


def copied(target: Path) -> Path:
    """Copy what the tests read."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name,
                            ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, target / name)
    return target


def run(jobs: Iterable[Job], copies: list[Path],
        ends: float = float("inf")) -> Iterator[tuple[Job, Verdict, float]]:
    """Run jobs, one at a time in each copy; yield each with its verdict and the seconds taken."""
    waiting = list(jobs)
    busy: dict[int, tuple[Job, Path, float, Callable[[], Any]]] = {}
    free = list(copies)
    try:
        while waiting or busy:
            while waiting and free:
                job, copy = waiting.pop(0), free.pop()
                if time.monotonic() > ends:
                    yield job, Verdict("survived", "no time left for the whole suite"), 0.0
                    free.append(copy)
                    continue
                restore = mutated(job.mutation, copy)
                busy[started(job, copy)] = job, copy, time.monotonic(), restore
            for child, (job, copy, begun, restore) in list(busy.items()):
                took = time.monotonic() - begun
                ended, status = os.waitpid(child, os.WNOHANG)
                late = not ended and (took > job.limit or time.monotonic() > ends)
                if not ended and not late:
                    continue
                killed(child, wait=late)
                restore()
                del busy[child]
                free.append(copy)
                yield job, timed_out(took, ends) if late else verdict(copy, status), took
            time.sleep(0.02)
    finally:
        for child in busy:
            killed(child, wait=True)


def mutated(mutation: Mutation | None, copy: Path) -> Callable[[], Any]:
    """Make the mutation in a copy; returns what takes it back."""
    if mutation is None:
        return lambda: None
    file = place_of(mutation, copy)
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    return lambda: file.write_text(text, encoding="utf-8")


def started(job: Job, copy: Path) -> int:
    """Fork a process that runs pytest on the job's tests; its number."""
    (copy / "result.json").unlink(missing_ok=True)
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()  # with all that its tests start
        out = os.open(copy / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        (copy / "result.json").write_text(json.dumps(tested(job, copy)))
        sys.stdout.flush()
    finally:
        os._exit(0)


def tested(job: Job, copy: Path) -> dict[str, Any]:
    """Run pytest here: its status, and the first failures by the phase they were in."""
    import pytest

    os.chdir(copy / "code")
    sys.path[:] = [folder for folder in sys.path if not folder.startswith(str(ROOT / "code"))]
    sys.modules["__main__"] = types.ModuleType("__main__")  # else a spawned process runs this file
    seen: dict[str, list[str]] = {}

    class Watch:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                seen.setdefault("failed", []).append(report.nodeid.removeprefix("tests/"))

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                seen.setdefault("not collected", []).append(
                    f"{report.nodeid}: {str(report.longrepr).splitlines()[-1]}")
    # No workers, which would be new interpreters; nothing is written of failures.
    status = pytest.main([*(f"tests/{test}" for test in job.tests), "-n", "0", "-p",
                          "no:cacheprovider", *(["-x"] if job.first_only else []), "--tb=no",
                          "--assert=plain", "--basetemp", str(copy / "tmp")], plugins=[Watch()])
    return {"status": int(status), **seen}


def verdict(copy: Path, status: int) -> Verdict:
    """What a child that has ended says of its mutation."""
    try:
        result = json.loads((copy / "result.json").read_text())
    except (OSError, ValueError):
        return Verdict("error", f"the tests' process ended with {status} and without a result: "
                       + last_lines(copy))
    if result.get("not collected"):  # not the work of a test
        return Verdict("error", f"cannot be imported: {result['not collected'][0]}")
    if result["status"] == 0:
        return Verdict("survived", "")
    if result["status"] == 1 and result.get("failed"):
        return Verdict("killed", " ".join(result["failed"][:9]))
    return Verdict("error", f"pytest ended with {result['status']}: {last_lines(copy)}")


def timed_out(took: float, ends: float) -> Verdict:
    """A hang is a failure; the end of all time is not."""
    if time.monotonic() > ends:
        return Verdict("survived", "no time left for the whole suite")
    return Verdict("killed", f"not ended after {took:.0f} s")


def last_lines(copy: Path) -> str:
    """The end of what pytest printed."""
    return " | ".join((copy / "output.txt").read_text(errors="replace").splitlines()[-3:])


def killed(child: int, *, wait: bool) -> None:
    """End what is left of a child and of the processes its tests have started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    if wait:
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


def shown(results: Iterable[tuple[Job, Verdict, float]]) -> list[tuple[Mutation, Verdict]]:
    """Print a line for each mutation as it comes."""
    found = []
    for job, result, took in results:
        assert job.mutation is not None
        print(f"{result.kind:9}{took:5.1f} s  {job.mutation.promise}: {result.how}".rstrip(": "),
              flush=True)
        found.append((job.mutation, result))
    return found


if __name__ == "__main__":
    sys.exit(main())
