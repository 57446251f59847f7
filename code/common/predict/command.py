"""What both predict.py share: flags, the files to predict, networks from runs, the loop over files.

Every file is tried; what cannot be used is named in one line, and the exit status is 2 at the end.
"""

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from common.errors import InputError, few
from common.files import differences, digest
from common.machine import devices, limits
from common.runs import checkpoint, encoders, trained
from common.runs.trained import Trained

NOTE = "Not for clinical use"


@dataclass(frozen=True)
class Ensemble:
    """Networks that answer together: the mean of their probabilities counts."""

    runs: list[Trained]
    networks: list[nn.Module]  # in evaluation, on the device
    device: torch.device
    seen: frozenset[str] = frozenset()  # digests of the images they may have learnt from
    known: list[str] = field(default_factory=list)  # files whose images are among those

    @property
    def first(self) -> Trained:
        """One of the runs; all have its classes, channels and way of preprocessing."""
        return self.runs[0]

    def note(self, *files: Path) -> str:
        """What the output of files says of itself: under 80 letters, as NIfTI has them."""
        tree = self.first.about["tree"]
        content = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        return f"{NOTE}; code/{tree}/predict.py, weights {self.digest} of {content[:8]}"

    def look(self, name: str, pixels: str) -> None:
        """Remember a file, by the digest of its image, that one of the networks has seen."""
        if pixels in self.seen:
            self.known.append(name)

    @cached_property
    def digest(self) -> str:
        """Of all weights, in whatever order the runs were given."""
        return digest(sorted(checkpoint.weights_digest(run.weights) for run in self.runs))


def parser(doc: str | None, files: str) -> argparse.ArgumentParser:
    """The flags of both trees."""
    made = argparse.ArgumentParser(description=doc,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("files", nargs="+", type=Path, metavar=files.upper(),
                      help=f"{files} or folders of them")
    made.add_argument("--run", action="append", required=True, type=Path, metavar="DIR",
                      help="folder of a finetuning run, or its best.pt; several --run: their mean")
    made.add_argument("--to", required=True, type=Path, metavar="OUT", help="folder for the output")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return made


def found(paths: Iterable[Path], of_name: Callable[[Path], str | None], kinds: Iterable[str]
          ) -> dict[str, Path]:
    """Files by their ids, folders searched; ``of_name`` gives a file's id, None for another kind.

    InputError for a path that is not there, a folder without such files, an id twice.
    """
    files: dict[str, Path] = {}
    for path in paths:
        if (path / trained.NAME).is_file():
            raise InputError(f"{path}: a run, not a file to predict; give each run with its own "
                             "--run")
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        some = [(name, file) for file in inside if not file.name.startswith(".")
                and file.is_file() and (name := of_name(file)) is not None]
        if not some:
            what = (f"no file that ends in {' '.join(sorted(kinds))}" if path.exists() else
                    "no such file or folder")
            raise InputError(f"{path}: {what}; give files or a folder of them")
        for name, file in some:
            other = files.setdefault(name, file)
            if other.resolve() != file.resolve():
                raise InputError(f"{file}: has the name of {other}, and so would its output; "
                                 "predict them into two folders")
    return files


def make_out(asked: argparse.Namespace) -> Path:
    """The folder of the output; InputError if it cannot be one, or if files to predict lie there.
    """
    out: Path = asked.to
    if any(path.is_dir() and path.resolve() == out.resolve() for path in asked.files):
        raise InputError(f"--to {out}: the files to predict lie there; give another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--to {out}: {error.strerror}; give a folder that can be written"
                         ) from None
    return out


def ours(path: Path, note: str, said: Callable[[Path], str]) -> bool:
    """Whether an output is of this file and these weights; InputError if it is of others.

    ``said``: what the file at a path says of itself.
    """
    if not path.exists():
        return False
    try:
        found = said(path)
    except Exception:  # noqa: BLE001 - whatever it is, it is not ours
        found = ""
    if not found.startswith(NOTE):
        raise InputError(f"{path}: is there and was not made by predict.py; give another --to")
    if found != note:
        raise InputError(f"{path}: was made with other weights, or of another file of that name "
                         f"({found}); give another --to")
    return True


def ensemble(asked: argparse.Namespace, tree: str, make: Callable[[Trained], nn.Module],
             alike: Sequence[str]) -> Ensemble:
    """The networks of the runs asked for, on the device; InputError if they do not go together.

    ``alike``: settings that all must share, for they say how a file is preprocessed.
    """
    runs = [trained.read(path, tree) for path in asked.run]
    for other in runs[1:]:
        for key, values in (("classes", (runs[0].classes, other.classes)),
                            ("channels", (runs[0].about["channels"], other.about["channels"])),
                            *((key, (runs[0].settings.get(key), other.settings.get(key)))
                              for key in alike)):
            if differences({key: values[0]}, {key: values[1]}):
                raise InputError(f"{other.file}: {key} {values[1]}, but {values[0]} in "
                                 f"{runs[0].file}; only runs alike in this answer together")
    device = devices.choose(asked.device, ranks=1)[0]
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    else:
        torch.set_num_threads(limits.cores())
    networks = []
    for run in runs:
        network = make(run)
        checkpoint.fit(network, run.weights, run.file)
        networks.append(network.to(device).eval())
        print(f"network   {run.name} ({run.file})")
    seen = frozenset[str]().union(*(encoders.seen_by(run.file) for run in runs))
    return Ensemble(runs, networks, device, seen)


def bar(files: Mapping[str, Path], what: str) -> "tqdm[tuple[str, Path]]":
    """Go through files, with a progress bar if stderr is a terminal: in a log it is noise."""
    return tqdm(files.items(), unit=what, disable=len(files) < 2 or not sys.stderr.isatty())


def each(files: Mapping[str, Path], work: Callable[[str, Path], str | None], what: str,
         known: Sequence[str]) -> int:
    """Do ``work`` for every file and print what it says; status 2 if some could not be used."""
    wrong: list[str] = []
    for name, file in bar(files, what):
        try:
            said = work(name, file)
        except (InputError, MemoryError, torch.OutOfMemoryError) as error:
            wrong.append(name)
            tqdm.write(f"error: {error}" if isinstance(error, InputError) else
                       f"error: {file}: not enough memory for it", file=sys.stderr)
        else:
            if said:
                tqdm.write(f"{what:<9} {name}: {said}")
    return ended(len(files), wrong, what, known)


def ended(count: int, wrong: Sequence[str], what: str, known: Sequence[str]) -> int:
    """Say how many files were predicted, and which were ``known`` before; the exit status."""
    if known:
        print(f"note      {len(known)} of {count} {what}s are among those that the network may "
              f"have learnt from or was chosen on ({few(known)}): they say nothing about new ones")
    print(f"done      {count - len(wrong)} of {count} {what}s. {NOTE}.")
    if wrong:
        print(f"error: {len(wrong)} of {count} {what}s could not be predicted: {few(wrong)}; see "
              "above", file=sys.stderr)
    return 2 if wrong else 0
