"""The constants of an exp.py as command-line flags, derived; there is no second list.

Every UPPER_CASE name of the script whose value is a number, a string, a boolean, a list of these
or None is a constant, the comment behind it is the flag's help, its annotation or value its type.
"""

import argparse
import difflib
import io
import sys
import tokenize
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from common import arms
from common.errors import InputError

# Constants that say which runs are made, and where; a run's numbers do not depend on them.
SCOPE = ("DATA", "TASKS", "FRACTIONS", "SEEDS", "RESULTS", "CACHE", "DEVICE", "WORKERS",
         "RUNS_PER_GPU", "RANKS_PER_RUN", "CHECKPOINTING", "THREADS", "PRECISION", "DEMO", "RERUN",
         "STRICT", "ID_COLUMN", "GRADE_COLUMN", "ENCODER")
# (A run's identity has the precision itself, the data that the columns lead to, the weights of an
# encoder from elsewhere, and RANKS_PER_RUN where it is above 1.)
PATHS = ("DATA", "RESULTS", "CACHE")  # below the repository; as flags, from where the user stands
# Constants that reach one stage only. Any other reaches both: the safe default for a new one.
PRETRAIN = ("PRETEXT_", "UNLABELLED")
FINETUNE = ("FINETUNE_", "WARMUP_", "BATCH_SIZE", "EQUAL_STEPS", "VALIDATIONS", "AUGMENT_")


class Settings(types.SimpleNamespace):
    """The constants' values for one run of the script, by their own names."""

    def __getattr__(self, name: str) -> Any:  # lets mypy know that any constant may be asked for
        raise AttributeError(f"the script has no constant {name}")

    def of_stage(self, stage: str) -> dict[str, Any]:
        """The constants that reach a run of ``stage`` ("pretrain" or "finetune")."""
        other = {"pretrain": FINETUNE, "finetune": PRETRAIN}[stage]
        return {name: value for name, value in sorted(vars(self).items())
                if name not in SCOPE and not name.startswith(other)}


class _Parser(argparse.ArgumentParser):
    """argparse, its errors raised as InputError with the nearest flag suggested."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            flag = message.split()[2].split("=")[0]
            near = difflib.get_close_matches(flag, self._option_string_actions, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"unknown flag {flag}{hint} (--help lists all)"
        elif action := self._option_string_actions.get(message.removeprefix("argument ").split(
                ":")[0].split("/")[0]):
            message += f" ({action.help})".replace("%%", "%")
        raise InputError(message)


def from_flags(script: Mapping[str, Any], arguments: Sequence[str] | None = None) -> Settings:
    """Read the constants of ``script`` (its globals()), overridden by command-line flags.

    With --demo, the script's DEMO dictionary replaces defaults; explicit flags win over it.
    Raises InputError for an unknown flag or a value of the wrong type.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    constants = {name: value for name, value in script.items()
                 if name.isupper() and not isinstance(value, dict)
                 and isinstance(value, int | float | str | list | None)}
    comments = _comments(Path(script["__file__"]))
    parser = _Parser(prog=Path(script["__file__"]).name, description=script["__doc__"],
                     formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
                     argument_default=argparse.SUPPRESS)  # so that flags hold what was given only
    if "DEMO" in script:
        parser.add_argument("--demo", dest="DEMO", action="store_true", default=argparse.SUPPRESS,
                            help="generated data at small settings, all of it in results/demo/")
    for name, value in constants.items():
        kind = script.get("__annotations__", {}).get(name)
        _add_flag(parser, name, value, kind, comments.get(name, ""))
    flags = vars(parser.parse_args(arguments))
    demo = script["DEMO"] if flags.get("DEMO") else {}
    return Settings(**{"DEMO": False, **constants, **demo, **flags})


def _add_flag(parser: _Parser, name: str, value: Any, annotation: Any, comment: str) -> None:
    """Add --name, its type taken from the annotation if there is one, else from the value."""
    flag = "--" + name.lower().replace("_", "-")
    text = f"{comment} [{_shown(value)}]".replace("%", "%%")
    if isinstance(value, bool):
        # A constant that is on by default reads naturally as --no-unlabelled.
        parser.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, help=text)
    elif name in PATHS:
        parser.add_argument(flag, dest=name, type=_from_here, metavar="PATH", help=text)
    elif name == "ENCODER":
        parser.add_argument(flag, dest=name, nargs="+", type=_named_from_here, metavar="NAME=FILE",
                            help=text)
    elif isinstance(value, list):
        parser.add_argument(flag, dest=name, nargs="+", type=type(value[0]), help=text)
    else:
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        parser.add_argument(flag, dest=name, type=kinds[0] if kinds else type(value), help=text)


def _from_here(text: str) -> str:
    return str(Path(text).expanduser().absolute())


def _named_from_here(text: str) -> str:
    name, equals, file = text.partition("=")
    return f"{name}={_from_here(file)}" if equals and file else text


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _comments(path: Path) -> dict[str, str]:
    """The trailing comment of each line that assigns an UPPER_CASE name at the margin."""
    found: dict[str, str] = {}
    name = ""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.NAME and token.start[1] == 0:
            name = token.string
        elif token.type == tokenize.COMMENT and name.isupper() and name not in found:
            found[name] = token.string.lstrip("# ")
    return found


def check_common(settings: Settings, pretexts: Sequence[str], others: Sequence[str]) -> None:
    """Check what both trees' constants have in common; InputError names the first that is wrong.

    ``pretexts`` are the names of pretext tasks, ``others`` those of arms without one.
    """
    for name in ("PRETEXT_EPOCHS", "FINETUNE_EPOCHS", "BATCH_SIZE", "RESOLUTION", "VALIDATIONS",
                 "PRETEXT_PATIENCE", "THREADS", "RUNS_PER_GPU", "RANKS_PER_RUN"):
        if getattr(settings, name) < 1:
            raise InputError(f"{name} = {getattr(settings, name)}: must be at least 1")
    for name in ("PRETEXT_LR", "FINETUNE_LR"):
        if not 0 < getattr(settings, name) < 1:
            raise InputError(f"{name} = {getattr(settings, name)}: must lie between 0 and 1")
    if settings.WORKERS < 0:
        raise InputError(f"WORKERS = {settings.WORKERS}: must be 0 (as many as fit) or more")
    if settings.BATCH_SIZE < 2:
        raise InputError("BATCH_SIZE = 1: BatchNorm needs at least 2 cases in a batch")
    _check_lists(settings)
    for task in settings.TASKS:
        arms.check(task, pretexts, others)
    warmup = warmup_epochs(settings)
    if not 0 <= warmup < settings.FINETUNE_EPOCHS:
        raise InputError(f"WARMUP_EPOCHS = {warmup}: must be at least 0 and smaller than "
                         f"FINETUNE_EPOCHS = {settings.FINETUNE_EPOCHS}")


def _check_lists(settings: Settings) -> None:
    """Check FRACTIONS and SEEDS, in range, and that no list has anything twice."""
    for fraction in settings.FRACTIONS:
        if not 1 <= fraction <= 100:
            raise InputError(f"FRACTIONS: {fraction} is not a percentage from 1 to 100")
    for seed in settings.SEEDS:
        if seed < 0:
            raise InputError(f"SEEDS: {seed} is negative; use 0 or more")
    for name in ("TASKS", "FRACTIONS", "SEEDS"):
        values = getattr(settings, name)
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise InputError(f"{name}: {twice[0]} is given twice; give each once")


def warmup_epochs(settings: Settings) -> int:
    """Epochs with a frozen encoder: WARMUP_EPOCHS, or WARMUP_SHARE of FINETUNE_EPOCHS, rounded."""
    if settings.WARMUP_EPOCHS is not None:
        return int(settings.WARMUP_EPOCHS)
    return round(settings.WARMUP_SHARE * settings.FINETUNE_EPOCHS)
