"""What both export.py share: flags, the run, which formats it can have, and OUT.

Files are made in a folder in OUT and moved when all are whole. about.json in OUT says of what
weights they are; what is there of the same weights stays, and nothing else is written over.
"""

import argparse
import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from common.errors import InputError
from common.export import source
from common.export.formats import Export, Format, package
from common.export.source import Source
from common.files import differences, read_json, write_json
from common.runs import checkpoint
from common.settings import Parser

ABOUT = "about.json"
PARTIAL = ".partial."  # begins the name of the folder in OUT where files are made


@dataclass(frozen=True)
class Tree:
    """What an export.py says of its tree."""

    name: str                                    # folder below results/
    needs: tuple[str, ...]                       # constants that make its networks
    encoder: Callable[[Source], nn.Module]       # without its weights
    network: Callable[[Source], nn.Module]       # what is finetuned, without its weights
    example: Callable[[Source], Tensor]          # (2, C, *space), an input
    seen: Callable[[Source], dict[str, str]]     # axes, spacing, intensity of an input
    formats: Mapping[str, Format]
    others: Mapping[str, str]                    # formats of the other tree, and why not of this
    hints: Mapping[str, Callable[[Path], str]]   # how a format's files in OUT are used, in a line


def run(doc: str | None, tree: Tree) -> int:
    """Write a run's networks in the formats asked for."""
    asked = arguments(doc, tree)
    check_names(asked.formats, tree)
    taken = source.read(asked.run, tree.name, needs=tree.needs, data=asked.data)
    formats = chosen(asked.formats, tree, taken)
    for name, one in formats.items():
        for needed in one.packages:
            package(needed, name)
    export = loaded(taken, tree)
    print(f"run       {taken.about['dataset']}, {taken.about['stage']} {taken.about['task']} "
          f"({taken.file})")
    there = made_before(asked.to, export)
    left = {name: one for name, one in formats.items()
            if not all(is_there(asked.to, file, there) for file in one.names(export))}
    if kept := [name for name in formats if name not in left]:
        print(f"kept      {', '.join(kept)}: {asked.to} has them of these weights already")
    if left:
        write(left, export, asked.to, there)
    for name, hint in tree.hints.items():
        if name in formats:
            print(f"{name:<9} {hint(asked.to)}")
    print(f"done      {asked.to}. {source.NOTE}. Licence of the data: "
          f"{export.about['licence of the data']}")
    return 0


def arguments(doc: str | None, tree: Tree) -> argparse.Namespace:
    """The flags."""
    parser = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, type=Path, metavar="DIR",
                        help="folder of a finished pretraining or finetuning run")
    parser.add_argument("--to", required=True, type=Path, metavar="OUT",
                        help="folder for the files, a new one or that of an earlier export of it")
    parser.add_argument("--formats", nargs="+", metavar="NAME",
                        help=f"of {', '.join(tree.formats)}; all that the run can have if left out")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with the dataset.json that"
                        " names the licence, if it is not below data/")
    return parser.parse_args()


def check_names(names: list[str] | None, tree: Tree) -> None:
    """Check that the formats asked for are this tree's; InputError."""
    for name in names or []:
        if name not in tree.formats:
            why = tree.others.get(name, "no such format")
            raise InputError(f"--formats {name}: {why}; code/{tree.name}/export.py has "
                             f"{', '.join(tree.formats)}")


def chosen(names: list[str] | None, tree: Tree, taken: Source) -> dict[str, Format]:
    """The formats asked for, else all that fit the run; InputError for one that does not."""
    fits = {}
    for name in dict.fromkeys(names or tree.formats):
        if (why := tree.formats[name].refuses(taken)) is None:
            fits[name] = tree.formats[name]
        elif names:
            raise InputError(f"--formats {name}: {taken.file}: {why}")
        else:
            print(f"left out  {name}: {why}")
    return fits


def loaded(taken: Source, tree: Tree) -> Export:
    """The networks of a run with its weights; InputError if these do not fit."""
    encoder, network = tree.encoder(taken), None
    checkpoint.fit(encoder, taken.encoder, taken.file)
    if taken.network is not None:
        network = tree.network(taken)
        checkpoint.fit(network, taken.network, taken.file)
    torch.set_num_threads(1)  # it is traced, not trained
    return Export(taken, encoder, network, {**taken.about, **tree.seen(taken)},
                  tree.example(taken))


def made_before(out: Path, export: Export) -> dict[str, str]:
    """The files that OUT has of this export, and their digests; {} for a new or empty folder.

    InputError if it holds something else.
    """
    if not out.exists() or (out.is_dir() and all(
            path.name.startswith(PARTIAL) for path in out.iterdir())):  # of an export that was cut
        return {}
    if not out.is_dir() or not (out / ABOUT).is_file():
        raise InputError(f"--to {out}: is there and was not made by export.py; give another --to")
    found = read_json(out / ABOUT)
    if not isinstance(found, Mapping) or not {"about", "files"} <= found.keys():
        raise InputError(f"{out / ABOUT}: not what export.py writes there; give another --to")
    if changed := differences(found["about"], dict(export.about)):
        raise InputError(f"--to {out}: holds the export of something else ({changed[0]}); give "
                         "another --to")
    return dict(found["files"])


def is_there(out: Path, name: str, there: Mapping[str, str]) -> bool:
    """Whether OUT has a file of this export; InputError if it has another of that name."""
    path = out / name
    if not path.exists():
        return False
    if not path.is_file() or there.get(name) != content(path):
        raise InputError(f"{path}: is there and is not what export.py wrote; give another --to")
    return True


def content(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(formats: Mapping[str, Format], export: Export, out: Path, there: Mapping[str, str]
          ) -> None:
    """Make the files in a folder of their own, then move them into OUT."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--to {out}: {error.strerror}; give a folder that can be written"
                         ) from None
    files = [file for one in formats.values() for file in one.names(export)]
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=out) as name:
        made = Path(name)
        for one in formats.values():
            one.write(export, made)
        digests = {**there, **{file: content(made / file) for file in files}}
        # Before the files: after a stop between two of them, those that are there are known.
        write_json(out / ABOUT, {"about": dict(export.about), "files": digests})
        for file in files:
            (made / file).chmod(0o644)  # safetensors writes for its owner alone
            (made / file).replace(out / file)
            print(f"written   {out / file}")
