"""The constants of an exp.py as command-line flags, derived; there is no second list.

Every UPPER_CASE name of the script, or of constants.py, whose value is a number, a string, a
boolean, a list of these or None is a constant; the comment behind it is the flag's help, its
annotation or value its type.
"""

import argparse
import difflib
import io
import math
import sys
import tokenize
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from common import arms, constants
from common.errors import InputError

# Constants that say which runs are made, and where; a run's numbers do not depend on them.
SCOPE = ("DATA", "TASKS", "FRACTIONS", "SEEDS", "RESULTS", "CACHE", "DEVICE", "WORKERS",
         "RUNS_PER_GPU", "RANKS_PER_RUN", "CHECKPOINTING", "MILLIMETRES", "THREADS", "PRECISION",
         "DEMO", "PAPER", "PROTOCOL", "RERUN", "TUNE", "TUNED", "TUNE_SEEDS", "PRIMARY", "DRAWS",
         "POOL", "DETECT", "PLAN", "STRICT", "TRACK", "ID_COLUMN", "GRADE_COLUMN", "GROUP_COLUMN",
         "GROUP_PATTERN", "ENCODER")
# (A run's identity has the precision itself, the data that the columns lead to, its splits with
# the patients, the weights of an encoder from elsewhere, and RANKS_PER_RUN where it is above 1.)
PATHS = ("DATA", "RESULTS", "CACHE")  # below the repository; as flags, from where the user stands
# Constants that reach one stage only. Any other reaches both: the safe default for a new one.
PRETRAIN = ("PRETEXT_", "UNLABELLED")
FINETUNE = ("FINETUNE_", "BATCH_SIZE", "EQUAL_STEPS", "VALIDATIONS", "AUGMENT_", "NORM_",
            "GRADES", "CLASSES")
# Constants of later versions at what all runs had before: an identity then does not name them.
LATER = (("CLASSES", 0),)
# Constants on what is handed on: part of a finetuning run's start, which the baseline has none of.
START = ("WARMUP_", "START_")
# Of what --paper sets, this stays the demo's under both: it is to take minutes.
DEMO_KEEPS = ("FINETUNE_EPOCHS", "FINETUNE_LR")


class Range(NamedTuple):
    """What a number may be: from ``least``, and below ``below``."""

    least: float
    below: float = math.inf
    why: str = ""


# Every number among the constants; one that is missing here is refused by check_common.
RANGES = {
    "WORKERS": Range(0, why="0: as many as fit"), "RUNS_PER_GPU": Range(1),
    "RANKS_PER_RUN": Range(1), "THREADS": Range(1), "RESOLUTION": Range(1), "LEVELS": Range(1),
    "FILTERS": Range(1), "GROWTH": Range(1), "GRADES": Range(2), "SPLIT_SEED": Range(0, 2**32),
    "PRETEXT_EPOCHS": Range(1), "PRETEXT_PATIENCE": Range(1), "PRETEXT_MIN_STEPS": Range(0),
    "PRETEXT_LR": Range(0, 1, "0: the task's own"), "PRETEXT_STEPS": Range(0),
    "PRETEXT_BATCH_SIZE": Range(0, why="0: the task's own"),
    "FINETUNE_EPOCHS": Range(1), "FINETUNE_LR": Range(1e-12, 1),
    "FINETUNE_CLIP": Range(0, why="0: none"), "START_LR_FACTOR": Range(0, 100),
    "PRETEXT_DROPOUT": Range(0, 1), "FINETUNE_DROPOUT": Range(0, 1), "FINETUNE_RAMP": Range(0, 1),
    "AUGMENT_DEGREES": Range(0, 181), "AUGMENT_ZOOM": Range(0, 1),
    "AUGMENT_SHARE": Range(0, 1.001, "a share of the volumes, 0 to 1"),
    "WARMUP_EPOCHS": Range(0), "WARMUP_SHARE": Range(0, 1),
    "BATCH_SIZE": Range(2, why="BatchNorm needs 2 cases in a batch"), "VALIDATIONS": Range(1),
    "NORM_MOMENTUM": Range(1e-6, 1), "SEEDS": Range(0, 2**32),
    "TUNE_SEEDS": Range(0, 2**32), "FRACTIONS": Range(1, 101, "a percentage from 1 to 100"),
    "PRIMARY": Range(1, 101, "of its fraction, a percentage from 1 to 100"),
    "FOLDS": Range(1, 1000), "DRAWS": Range(1, 1000),
    "POOL": Range(1, 101, "a percentage from 1 to 100"),
    "DETECT": Range(0, 2, "a difference of scores; 0: none"),
    "BLOCKS": Range(1), "CLASSES": Range(0, 257, "0: ordered grades"),
}
CHOICES = {"PRECISION": ("auto", "float32", "bfloat16"), "INTENSITY": ("percentile", "minmax"),
           "LAYOUT": ("channels_last", "contiguous"), "FINETUNE_SCHEDULE": ("constant", "cosine"),
           "PRETEXT_SCHEDULE": ("own", "constant", "cosine"), "START_NORM": ("train", "eval"),
           "FINETUNE_LOSS": ("dice", "dice+ce"), "TRACK": ("none", "tensorboard", "mlflow"),
           "AUGMENT_FLIPS": ("both", "horizontal", "vertical", "none")}


class Settings(types.SimpleNamespace):
    """The constants' values for one run of the script, by their own names.

    Those that common/ reads are listed; a tree's others are read in that tree alone.
    """

    DATA: str
    RESULTS: str
    CACHE: str
    TASKS: list[str]
    ENCODER: list[str]
    FRACTIONS: list[int]
    SEEDS: list[int]
    DEVICE: str
    PRECISION: str
    WORKERS: int
    RUNS_PER_GPU: int
    RANKS_PER_RUN: int
    THREADS: int
    DEMO: bool
    PAPER: bool
    PROTOCOL: str
    RERUN: bool
    TUNE: bool
    TUNED: bool
    TUNE_SEEDS: list[int]
    STRICT: bool
    TRACK: str
    PRIMARY: list[str]
    DRAWS: int
    POOL: list[int]
    FOLDS: int
    DETECT: float
    PLAN: bool
    RESOLUTION: int
    LAYOUT: str
    GROUP_PATTERN: str
    SPLIT_SEED: int
    PRETEXT_EPOCHS: int
    PRETEXT_PATIENCE: int
    PRETEXT_MIN_STEPS: int
    PRETEXT_STEPS: int
    PRETEXT_LR: float
    PRETEXT_SCHEDULE: str
    PRETEXT_BATCH_SIZE: int
    PRETEXT_DROPOUT: float | None
    FINETUNE_EPOCHS: int
    WARMUP_EPOCHS: int | None
    WARMUP_SHARE: float
    START_LR_FACTOR: float
    START_NORM: str
    FINETUNE_RAMP: float
    FINETUNE_DROPOUT: float | None
    BATCH_SIZE: int
    FINETUNE_LR: float
    FINETUNE_CLIP: float
    FINETUNE_SCHEDULE: str
    EQUAL_STEPS: bool
    NORM_MOMENTUM: float
    VALIDATIONS: int

    def __getattr__(self, name: str) -> Any:  # lets mypy know that any constant may be asked for
        raise AttributeError(f"the script has no constant {name}")

    def of_stage(self, stage: str) -> dict[str, Any]:
        """The constants that reach a run of ``stage`` ("pretrain" or "finetune")."""
        other = START + {"pretrain": FINETUNE, "finetune": PRETRAIN}[stage]
        return {name: value for name, value in sorted(vars(self).items())
                if name not in SCOPE and not name.startswith(other) and (name, value) not in LATER}


class Parser(argparse.ArgumentParser):
    """argparse, its errors raised as InputError with the nearest flag suggested."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
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

    With --demo, the script's DEMO dictionary replaces defaults, with --paper its PAPER; PAPER wins
    over DEMO, but for DEMO_KEEPS, and explicit flags over both. PROTOCOL says what came of it.
    Raises InputError for an unknown flag or a value of the wrong type.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    both = {**script, **{name: value for name, value in vars(constants).items()
                         if name not in script}}
    known = {name: value for name, value in both.items()
             if name.isupper() and isinstance(value, int | float | str | list | None)}
    comments = {**_comments(Path(str(constants.__file__))), **_comments(Path(script["__file__"]))}
    kinds = {**constants.__annotations__, **script.get("__annotations__", {})}
    parser = Parser(prog=Path(script["__file__"]).name, description=script["__doc__"],
                     formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
                     argument_default=argparse.SUPPRESS)  # so that flags hold what was given only
    if "DEMO" in script:
        parser.add_argument("--demo", dest="DEMO", action="store_true", default=argparse.SUPPRESS,
                            help="generated data at small settings, all of it in results/demo/")
    for name, value in known.items():
        _add_flag(parser, name, value, kinds.get(name), comments.get(name, ""))
    if "PAPER" in script:
        parser.add_argument("--paper", dest="PAPER", action="store_true", default=argparse.SUPPRESS,
                            help="finetune as in the paper; shares pretext encoders, not folders")
    flags = vars(parser.parse_args(arguments))
    demo = script["DEMO"] if flags.get("DEMO") else {}
    paper = {name: value for name, value in script["PAPER"].items()
             if not (demo and name in DEMO_KEEPS)} if flags.get("PAPER") else {}
    made = {"DEMO": False, "PAPER": False, **known, **demo, **paper, **flags}
    if "GRADES" in flags and made.get("CLASSES"):
        raise InputError("--grades is for ordered grades, --classes for classes without an order; "
                         "give one of them")
    return Settings(PROTOCOL=_protocol(made, script["PAPER"]) if paper else "", **made)


def _protocol(made: Mapping[str, Any], paper: Mapping[str, Any]) -> str:
    """The name of a protocol of finetuning that began as the paper's."""
    others = [name for name, value in paper.items() if made[name] != value]
    return "the paper's" + (f" but for {', '.join(others)}" if others else "")


def _add_flag(parser: Parser, name: str, value: Any, annotation: Any, comment: str) -> None:
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
    elif name == "PRIMARY":
        parser.add_argument(flag, dest=name, nargs=2, metavar=("ARM", "FRACTION"), help=text)
    elif isinstance(value, list):
        parser.add_argument(flag, dest=name, nargs="+", type=type(value[0]), help=text)
    else:
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        parser.add_argument(flag, dest=name, type=kinds[0] if kinds else type(value), help=text)


def _from_here(text: str) -> str:
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError as error:  # ~nosuchuser
        raise InputError(f"{text}: {error}; give the folder itself") from None


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


def check_common(settings: Settings, tasks: Mapping[str, Any], others: Sequence[str], *,
                 decoder: bool) -> None:
    """Check what both trees' constants have in common; InputError names the first that is wrong.

    ``tasks``, ``others`` and ``decoder`` are those of arms.check().
    """
    for name, value in vars(settings).items():
        _check_numbers(name, value)
        if name in CHOICES and value not in CHOICES[name]:
            *some, last = CHOICES[name]
            raise InputError(f"{name} = {value}: expected {', '.join(some)} or {last}")
    if settings.PRETEXT_BATCH_SIZE == 1:
        raise InputError("PRETEXT_BATCH_SIZE = 1: BatchNorm and negatives need at least 2 cases in "
                         "a batch; give 2 or more, or 0 for the task's own")
    if settings.FOLDS == 2:
        raise InputError("FOLDS = 2: two test folds never give an interval; give 3 or more, or 1 "
                         "for one fixed test set")
    _check_lists(settings)
    for arm in settings.TASKS:
        arms.check(arm, tasks, others, decoder=decoder)
    _check_primary(settings)
    warmup = warmup_epochs(settings)
    if not 0 <= warmup < settings.FINETUNE_EPOCHS:
        raise InputError(f"WARMUP_EPOCHS = {warmup}: must be at least 0 and smaller than "
                         f"FINETUNE_EPOCHS = {settings.FINETUNE_EPOCHS}")


def _check_numbers(name: str, value: Any) -> None:
    """Check a number, or every number of a list, against its range."""
    values = value if isinstance(value, list) else [value]
    for one in values:
        if isinstance(one, bool) or not isinstance(one, int | float):
            continue
        if name not in RANGES:
            raise InputError(f"{name} = {one}: a number without a range; give it one in "
                             "code/common/settings.py")
        allowed = RANGES[name]
        if not (math.isfinite(one) and allowed.least <= one < allowed.below):
            most = f" and below {allowed.below:.10g}" if math.isfinite(allowed.below) else ""
            why = f" ({allowed.why})" if allowed.why else ""
            raise InputError(f"{name} = {one}: must be at least {allowed.least:g}{most}{why}")


def _check_lists(settings: Settings) -> None:
    """Check that no list is empty or has anything twice, and that the whole pool is learnt from."""
    for name in ("TASKS", "FRACTIONS", "SEEDS", "POOL", "TUNE_SEEDS"):
        values = getattr(settings, name)
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise InputError(f"{name}: {twice[0]} is given twice; give each once")
        if not values:
            raise InputError(f"{name} is empty; give at least one")
    if 100 not in settings.POOL:
        raise InputError(f"POOL = {_shown(settings.POOL)}: 100 is missing, the whole pool that the "
                         "others are compared with; add it")
    if settings.TUNE and (both := {*settings.TUNE_SEEDS} & {*settings.SEEDS}):
        raise InputError(f"TUNE_SEEDS: {min(both)} is one of SEEDS; what chooses the rates may "
                         "give no result: give others")
    if settings.TUNE and settings.PAPER:
        raise InputError("--tune goes without --paper, whose rates are the paper's; leave one out")


def _check_primary(settings: Settings) -> None:
    """Check that the primary comparison is one of those that are made."""
    given = settings.PRIMARY
    found = " ".join(map(str, given))
    if given and not (len(given) == 2 and str(given[1]).isdecimal()):
        raise InputError(f"PRIMARY = {found}: expected an arm and a fraction, as rotation 5")
    if (named := primary(settings)) is None:
        return
    kept = ", or leave PRIMARY out: plan.json keeps one that was named before"
    arm, fraction = named
    if arm == arms.BASELINE or arms.is_control(arm):
        raise InputError(f"PRIMARY = {found}: expected an arm that is compared with the baseline; "
                         f"{arm} is {'it' if arm == arms.BASELINE else 'a control'}")
    if arm not in settings.TASKS:
        raise InputError(f"PRIMARY = {found}: {arm} is none of TASKS; add it there{kept}")
    if fraction not in settings.FRACTIONS:
        raise InputError(f"PRIMARY = {found}: {fraction} is none of FRACTIONS; add it there{kept}")


def primary(settings: Settings) -> tuple[str, int] | None:
    """The arm and fraction of the primary comparison as given; None without one."""
    return (str(settings.PRIMARY[0]), int(settings.PRIMARY[1])) if settings.PRIMARY else None


def warmup_epochs(settings: Settings) -> int:
    """Epochs with a frozen encoder: WARMUP_EPOCHS, or WARMUP_SHARE of FINETUNE_EPOCHS, rounded."""
    if settings.WARMUP_EPOCHS is not None:
        return int(settings.WARMUP_EPOCHS)
    return round(settings.WARMUP_SHARE * settings.FINETUNE_EPOCHS)
