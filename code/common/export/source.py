"""A finished run as export.py takes it: the weights of its encoder, checked, and what they are of.

A pretraining has them in encoder.pt, a finetuning in best.pt, with the rest of its network.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from common.errors import InputError
from common.files import ROOT, Json, read_json
from common.runs import checkpoint, trained
from common.runs.records import Run

ENCODER = "encoder.pt"
KEPT = {"pretrain": ENCODER, "finetune": trained.NAME}  # what a finished run of a stage has
OF_RUN = ("task", "seed", "fraction", "draw", "pool")  # of an identity, where it has them
WANTED = ("give the folder of a finished one, such as results/{tree}/<dataset>/pretrain/mae/seed0 "
          "or results/{tree}/<dataset>/finetune/mae/fraction100/seed0")
LICENCES = ("licence", "license")  # as dataset.json spells it
NOTE = "Not for clinical use"


@dataclass(frozen=True)
class Source:
    """A run's weights and all that is known of them."""

    file: Path
    encoder: dict[str, Tensor]             # as Encoder has them
    network: dict[str, Tensor] | None      # of the finetuned network, the encoder's among them
    settings: Json                         # the constants of the run
    channels: list[str]
    classes: list[str]                     # that a finetuned network reports
    about: dict[str, str]                  # for metadata


def read(path: Path, tree: str, *, needs: Sequence[str], data: Path | None = None) -> Source:
    """Read a run's folder, or the encoder.pt or best.pt in it.

    ``needs``: the constants that make a network of ``tree``; ``data``: folder of its dataset.json.
    InputError for what is no finished run of ``tree``, or damaged.
    """
    folder = path if path.is_dir() else path.parent
    if not path.exists() or (path.is_file() and path.name not in KEPT.values()):
        what = "neither a run nor its weights" if path.exists() else "no such run"
        raise InputError(f"{path}: {what}; {WANTED.format(tree=tree)}")
    config = folder / "config.json"
    if not config.exists() and not (folder / trained.NAME).exists():
        what = (f"{ENCODER} without config.json beside it, which says how it was made; copy the "
                "run's whole folder" if (folder / ENCODER).exists() else
                f"no run; {WANTED.format(tree=tree)}")
        raise InputError(f"{folder}: {what}")
    identity = _identity(folder) if config.exists() else {}
    if identity.get("stage", "finetune") == "finetune":
        return _finetuned(folder, identity, tree, data)
    return _pretrained(folder, identity, tree, needs=needs, data=data)


def _identity(folder: Path) -> Json:
    """What a finished run's config.json says of it."""
    config = folder / "config.json"
    found = read_json(config)
    identity = found.get("identity") if isinstance(found, Mapping) else None
    if not isinstance(identity, dict) or not {"stage", "task", "settings"} <= identity.keys():
        raise InputError(f"{config}: not the record of a run; restore it from a copy, or train the "
                         "run again (exp.py --rerun)")
    if identity["stage"] not in KEPT:
        raise InputError(f"{folder}: a trial of --tune, which keeps no weights; give a pretraining "
                         "or a finetuning run")
    if not (folder / "scores.json").exists():
        raise InputError(f"{folder}: not finished (no scores.json); start its exp.py command "
                         "again, it goes on from where it stopped")
    if damage := Run(folder, identity).damage():
        raise InputError(f"{damage}; restore it from a copy, or train the run again (exp.py "
                         "--rerun)")
    if not (folder / KEPT[identity["stage"]]).is_file():
        raise InputError(f"{folder}: finished, but without its {KEPT[identity['stage']]}; copy "
                         "the run's whole folder, or train it again (exp.py --rerun)")
    return identity


def _pretrained(folder: Path, identity: Json, tree: str, *, needs: Sequence[str],
                data: Path | None) -> Source:
    """A pretraining run."""
    settings, file = identity["settings"], folder / ENCODER
    if missing := [name for name in needs if name not in settings]:
        raise InputError(f"{folder}: a run of the other tree (it has no {missing[0]}); code/{tree} "
                         "has other networks, give it to the other export.py")
    try:
        weights = checkpoint.load(file)
    except InputError:
        weights = None
    saved = read_json(folder / "scores.json").get("encoder")
    if not isinstance(weights, Mapping) or not all(
            isinstance(value, Tensor) for value in weights.values()) or (
            checkpoint.weights_digest(weights) != saved):
        raise InputError(f"{file}: damaged, its weights are not those that were saved; copy it "
                         "anew, or train the run again (exp.py --rerun)")
    beside = file.with_suffix(".json")
    dataset = read_json(beside).get("dataset", "unknown") if beside.exists() else "unknown"
    made = read_json(folder / "config.json").get("provenance", {})
    about = {**_known(identity), "dataset": dataset, "commit": made.get("commit") or "unknown",
             "generated": str(read_json(folder / "scores.json").get("generated", False)).lower()}
    return Source(file, dict(weights), None, settings, list(identity["channels"]), [],
                  _complete(about, tree, dict(weights), settings, data))


def _finetuned(folder: Path, identity: Json, tree: str, data: Path | None) -> Source:
    """A finetuning run; its best.pt may have been copied away from the records."""
    one = trained.read(folder, tree, script="export.py")
    encoder = {name.removeprefix("encoder."): value for name, value in one.weights.items()
               if name.startswith("encoder.")}
    about = {**_known(identity or {"stage": "finetune", **one.about["run"]}),
             "dataset": one.about["dataset"], "commit": one.about.get("commit") or "unknown",
             "classes": json.dumps(one.classes),
             "generated": str(one.about.get("generated", False)).lower()}
    return Source(one.file, encoder, one.weights, one.settings, list(one.about["channels"]),
                  one.classes, _complete(about, tree, one.weights, one.settings, data))


def _known(identity: Json) -> dict[str, str]:
    """Which run it is, and the digest of the images that its encoder was pretrained on."""
    return {"stage": identity["stage"], "pool images": _pool(identity),
            **{name: str(identity[name]) for name in OF_RUN if name in identity}}


def _pool(identity: Json) -> str:
    """A digest; "none" of what was pretrained on no images alone; "unknown" of what is not ours."""
    start = identity if identity["stage"] == "pretrain" else identity.get("encoder", {})
    if start is None:
        return "none"
    return str(start.get("pool images", "none")) if "stage" in start else "unknown"


def _complete(about: dict[str, str], tree: str, weights: Mapping[str, Tensor], settings: Json,
              data: Path | None) -> dict[str, str]:
    """With what is said of runs of both stages."""
    return {"use": NOTE, "made by": f"code/{tree}/export.py", **about,
            "weights": checkpoint.weights_digest(weights),
            "licence of the data": licence(about["dataset"], data),
            "settings": json.dumps(settings, sort_keys=True)}


def licence(dataset: str, data: Path | None) -> str:
    """What the data set's dataset.json says of its licence; "unknown" where there is none.

    Without ``data`` the folders of data/ are looked through for one of that name. InputError if
    ``data`` has no licence to read.
    """
    known = sorted((ROOT / "data").glob("*")) if (ROOT / "data").is_dir() else []
    folders = [data] if data else [folder for folder in known if re.sub(
        r"^task\d+_", "", folder.name.lower()) == dataset]
    for folder in folders:
        file = folder / "dataset.json"
        content = read_json(file) if data or file.exists() else {}
        said = next((content[key] for key in LICENCES if isinstance(content, Mapping)
                     and content.get(key)), None)
        if said:
            return str(said)
        if data:
            raise InputError(f"{file}: says nothing of a licence; leave out --data, or write "
                             f'"{LICENCES[0]}" into it')
    return "unknown"
