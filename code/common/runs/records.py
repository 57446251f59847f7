"""A run on disk: its identity, folder, claim, log and scores; and reading finished runs back.

Needs no torch, so that graph.py starts at once and works where torch is not installed.

    results/3d/<dataset>/splits.json plan.json
    results/3d/<dataset>/pretrain/<task>/seed0/               encoder.pt and the records
    results/3d/<dataset>/finetune/<task>/fraction005/seed0/   best.pt and the records
    results/3d/<dataset>/finetune/<task>/fraction005/seed0-draw1/    another draw of its labels
    results/3d/<dataset>/pretrain/<task>/pool010/seed0/              on 10 % of the pool
    results/3d/<dataset>/finetune/<task>/fraction005/pool010/seed0/  from that
    results/3d/<dataset>/tune/<task>/fraction005/seed1000/lr0.001-start0.1-frozen0/  --tune's trial

The records of a run: config.json log.jsonl time.jsonl scores.json; last.pt while it trains.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import Timeout

from common import files
from common.errors import InputError
from common.files import (
    ROOT,
    Json,
    differences,
    digest,
    file_lock,
    plain,
    read_json,
    write_json,
    write_text,
)
from common.runs.rates import Rates

PAPER = "-paper"  # ends the folder of a data set's runs that are finetuned as in the paper
NUMBERS = 8  # raise by hand when a code change alters any number a run reports

FEW_STEPS = 100  # of a finetuning run, below which it learns little
CHECKPOINT = "last.pt"  # in a run's folder while it trains


@dataclass(frozen=True)
class Records:
    """The finished runs of a data set, from a folder of runs or from one published file."""

    folder: Path          # where they were read
    dataset: str
    splits: Json          # who is trained, validated and tested on; {} where not on record
    finetune: list[Json]  # as read_runs() returns them
    pretrain: list[Json]
    plan: Json = field(default_factory=dict, kw_only=True)  # as read_plan() has it


@dataclass(frozen=True)
class Run:
    """One pretraining or finetuning run: a pure function of ``identity``, kept in ``folder``."""

    folder: Path
    identity: Json

    @property
    def name(self) -> str:
        """Where the run lies below the data set's folder, as "finetune/rpl/fraction005/seed0"."""
        parts = self.folder.parts
        return "/".join(parts[len(parts) - parts[::-1].index(self.identity["stage"]) - 1:])

    @property
    def encoder(self) -> Path:
        """The file of the pretrained encoder, ready to load elsewhere."""
        return self.folder / "encoder.pt"

    def stored(self) -> Json | None:
        """The identity the folder was made with, None for a new folder."""
        path = self.folder / "config.json"
        identity: Json | None = read_json(path)["identity"] if path.exists() else None
        return identity

    def changes(self) -> list[str]:
        """What differs between the identity on disk and this one; empty for a new or equal run."""
        stored = self.stored()
        if stored is None:
            return []
        mine = plain(self.identity)
        encoder = stored.get("encoder")
        if encoder and mine.get("encoder") and "weights" not in mine["encoder"]:
            encoder.pop("weights", None)  # known once the encoder is trained again, if it has to be
        return differences(stored, mine)

    def damage(self) -> str | None:
        """What cannot be read of the run's records, in one line; None if they are sound."""
        config, scores = self.folder / "config.json", self.folder / "scores.json"
        try:
            for path, key in ((config, "identity"), (scores, "stage")):
                if path.exists() and key not in read_json(path):
                    return f"{path}: not the record of a run"
        except (InputError, TypeError) as error:
            return str(error)
        if scores.exists() and not config.exists():
            return f"{scores}: has no config.json beside it"
        return None

    def done(self) -> bool:
        """Whether this very run has been finished."""
        return (self.folder / "scores.json").exists() and not self.changes()

    def scores(self) -> Json:
        """The scores of a finished run."""
        scores: Json = read_json(self.folder / "scores.json")
        return scores

    @property
    def _locks(self) -> Path:
        return self.folder.parents[self.name.count("/")] / "locks"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wait until no process left behind by a killed one still writes this run's records."""
        with file_lock(self._locks / f"{self.name.replace('/', '-')}.writing.lock"):
            yield

    @contextmanager
    def claim(self) -> Iterator[bool]:
        """Hold the run exclusively; yields False at once if another process holds it.

        The lock belongs to the open file, so it ends with its process, however that ends.
        """
        self._locks.mkdir(parents=True, exist_ok=True)
        lock = file_lock(self._locks / f"{self.name.replace('/', '-')}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def start(self, provenance: Json) -> None:
        """Make the folder and write config.json, unless an earlier start already has."""
        if self.stored() is None:
            write_json(self.folder / "config.json",
                       {"identity": self.identity, "provenance": provenance})

    def set_aside(self) -> Path:
        """Move the run to <run>.old-N; nothing is deleted."""
        return files.set_aside(self.folder)

    def collect(self) -> None:
        """Remove what a killed process left of a save that never ended; for who holds the run."""
        for left in self.folder.glob(".*.*"):
            left.unlink(missing_ok=True)

    def log(self, name: str, record: Json) -> None:
        """Append one line to <name>.jsonl."""
        with (self.folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def cut_log(self, name: str, epoch: int) -> None:
        """Drop what <name>.jsonl holds past ``epoch``, and a line torn by a kill."""
        path = self.folder / f"{name}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if _epoch(line) <= epoch]
        write_text(path, "".join(line + "\n" for line in kept))

    def finish(self, scores: Json) -> None:
        """Write scores.json, which makes the run done, then drop the training state."""
        write_json(self.folder / "scores.json", scores)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)


class SilentRun(Run):
    """A run as those of its ranks see it that keep no records."""

    def log(self, name: str, record: Json) -> None:
        """Write nothing."""

    def cut_log(self, name: str, epoch: int) -> None:
        """Write nothing."""


def _epoch(line: str) -> float:
    try:
        return float(json.loads(line)["epoch"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")


def provenance(device: str, threads: int, card: Json) -> Json:
    """What a run was made with; recorded, never compared. ``card`` is devices.described()."""
    from importlib.metadata import version

    packages = ("torch", "torchvision", "numpy", "nibabel", "scipy")
    return {"commit": commit(), "python": sys.version.split()[0],
            **{name: version(name) for name in packages},
            "device": device, **card, "threads": threads, "host": platform.node()}


def commit() -> str | None:
    """What git says of the code; None without git."""
    said = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                          capture_output=True, check=False).stdout.strip()
    return said or None


def run_folder(folder: Path, run: Json) -> Path:
    """Where a run's records lie below its data set's folder: stage, task, fraction, pool, seed.

    The whole pool has no folder. Further draws lie beside the first; below it they would be set
    aside with it. Records of earlier versions have no draw.
    """
    draw, share = run.get("draw", 0), share_of(run)
    return folder.joinpath(
        run["stage"], run["task"],
        *([f"fraction{run['fraction']:03d}"] if "fraction" in run else []),
        *([f"pool{share:03d}"] if share < 100 else []),
        f"seed{run['seed']}" + (f"-draw{draw}" if draw else ""),
        *([str(Rates(**run["rates"]))] if run["stage"] == "tune" else []))


def share_of(run: Json) -> int:
    """Percent of the pool that a run's pretraining learns from, of its record or its identity.

    100 where nothing is said. A record is asked for its identity: "pool" in that of a pretraining
    is the percentage, but in its scores the number of images.
    """
    return int(run.get("identity", run).get("pool", 100))


def unordered(run: Json) -> bool:
    """Whether a finetuning run's classes have no order (CLASSES of 2D); earlier ones are grades."""
    return bool(run.get("identity", {}).get("settings", {}).get("CLASSES"))


def of_share(runs: Iterable[Json], pool: int = 100) -> list[Json]:
    """The records of the runs from ``pool`` percent of the pool."""
    return [run for run in runs if share_of(run) == pool]


def read_runs(folder: Path, stage: str) -> list[Json]:
    """Read every finished run of a stage below a data set's folder, sorted by path.

    Returns the scores.json of each with its "digest"; "identity" and "provenance" (without the
    host) from config.json; "validations", (step, score) pairs of each score that is drawn; and
    "seconds" of training, None where not on record. Folders set aside (<run>.old-N) are left out.
    Raises InputError naming a record that cannot be read.
    """
    runs = []
    for path in sorted(folder.glob(f"{stage}/**/scores.json")):
        if not any(".old-" in part for part in path.relative_to(folder).parts):
            scores: Json = read_json(path)
            runs.append({**scores, **_beside(path, scores)})
    return runs


def _beside(path: Path, scores: Json) -> Json:
    """What is added to the scores at ``path``."""
    config = read_json(path.with_name("config.json"))
    made = {name: value for name, value in config.get("provenance", {}).items() if name != "host"}
    names = scores["chance"] if "chance" in scores else [scores.get("metric")]
    seconds = [line["seconds"] for line in read_log(path.parent, "time")] if path.with_name(
        "time.jsonl").exists() else []
    return {"digest": digest(scores), "identity": config["identity"], "provenance": made,
            "validations": {name: validations(path.parent, name) for name in names if name},
            "seconds": round(sum(seconds), 3) if seconds else None}


def read(folder: Path) -> Records:
    """Read all finished runs below a data set's folder.

    Runs under the paper's protocol have splits and encoders in the data set's own folder.
    """
    finetune, pretrain = (read_runs(folder, stage) for stage in ("finetune", "pretrain"))
    splits = read_json(folder / "splits.json") if (folder / "splits.json").exists() else {}
    home = folder.with_name(folder.name.removesuffix(PAPER))
    if not splits and home != folder and (home / "splits.json").exists():
        splits = {**read_json(home / "splits.json"), "dataset": folder.name}
        starts = "+".join((run["identity"]["encoder"] or {}).get("weights", "")
                          for run in finetune).split("+")
        pretrain += [run for run in read_runs(home, "pretrain") if run["encoder"] in starts]
    return Records(folder, splits.get("dataset", folder.name), splits, finetune, pretrain,
                   plan=read_plan(folder))


def read_plan(folder: Path) -> Json:
    """What was said before any score of it existed; {} where nothing was.

    "primary": {"arm", "fraction", "scores_then", "commit", "date"}; ``scores_then`` is the number
    of test scores of the data set that existed at the time. "power": what the study was expected to
    show, a fraction each. "rates": what --tune has chosen for each arm, of which trials. "seeds":
    those asked for, step by step, and the test scores that existed at the time ("scores_then").
    InputError if it cannot be read.
    """
    path = folder / "plan.json"
    plan: Json = read_json(path) if path.exists() else {}
    try:
        known = {"fraction", "half", "source"}
        sound = {"arm", "fraction"} <= {*plan.get("primary", {"arm", "fraction"})} and all(
            known <= {*one} for one in plan.get("power", [])) and all(
            isinstance(n, int) for one in plan.get("seeds", []) for n in one["seeds"]) and all(
            {"chosen", "trials"} <= {*one} and {*one["chosen"]} == {*Rates.__annotations__}
            for one in plan.get("rates", {"arms": {}})["arms"].values())
    except (AttributeError, KeyError, TypeError):
        sound = False
    if not sound:
        raise InputError(f"{path}: not what exp.py writes there; restore it from a copy")
    return plan


def cases_of(runs: Iterable[Json], *,
             pool: int = 100) -> dict[tuple[str, int], dict[int, dict[int, Json]]]:
    """What finetuning runs recorded of their test cases: (arm, fraction) -> seed -> draw -> id.

    Of the runs from ``pool`` percent of the pool alone: another share is another start.
    """
    found: dict[tuple[str, int], dict[int, dict[int, Json]]] = {}
    for run in of_share(runs, pool):
        seeds = found.setdefault((run["task"], run["fraction"]), {})
        seeds.setdefault(run["seed"], {})[run.get("draw", 0)] = run["cases"]
    return found


def folds_of(run: Json) -> int:
    """FOLDS of the study that a run belongs to; 1 in records from before there were any."""
    return int(run["identity"].get("settings", {}).get("FOLDS", 1))


def read_log(folder: Path, name: str = "log") -> list[Json]:
    """Read a run's log.jsonl (or time.jsonl), one dictionary a line; InputError if it cannot be."""
    path = folder / f"{name}.jsonl"
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:  # bad JSON or bad UTF-8
        raise InputError(f"{path}: not one JSON record a line ({error}); restore it, or move its "
                         "folder away and run exp.py again") from None


def validations(folder: Path, name: str) -> list[tuple[float, float]]:
    """(step, score ``name``) of every validation of a run, in order; none without a log."""
    if not (folder / "log.jsonl").exists():
        return []
    return [(line["step"], line["val"][name]) for line in read_log(folder)
            if line.get("val", {}).get(name) is not None]
