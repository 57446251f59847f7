"""best.pt: a finetuned network and all that is needed to use it, in one file.

    {"state_dict": weights, "about": {...}}     encoders.from_files takes it too
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from common.errors import InputError
from common.files import Json, plain
from common.runs import checkpoint, records
from common.runs.records import Run
from common.runs.study import Study

NAME = "best.pt"
NEEDED = ("tree", "dataset", "run", "classes", "channels", "settings", "weights")
OF_RUN = ("task", "fraction", "seed", "draw", "pool")


@dataclass(frozen=True)
class Trained:
    """A finetuned network in a file."""

    file: Path
    weights: dict[str, Tensor]
    about: Json

    @property
    def name(self) -> str:
        """Data set and run, in a line."""
        run = self.about["run"]
        more = "".join(f", {key} {run[key]}" for key in OF_RUN[2:] if run.get(key))
        return f"{self.about['dataset']}, {run['task']} on {run['fraction']} % of the labels{more}"

    @property
    def classes(self) -> list[str]:
        """Names of what is reported: the foreground classes, or the grades."""
        return list(self.about["classes"])

    @property
    def settings(self) -> Json:
        """The constants that it was trained under."""
        return dict(self.about["settings"])


def save(study: Study, run: Run, weights: Mapping[str, Tensor]) -> None:
    """Write the weights of a finetuning run, and what they are, into its folder."""
    checkpoint.save(run.folder / NAME, {"state_dict": dict(weights), "about": plain({
        "tree": study.tree, "dataset": study.dataset, "generated": study.generated,
        "run": {key: run.identity[key] for key in OF_RUN if key in run.identity},
        "weights": checkpoint.weights_digest(weights), "classes": study.classes,
        "channels": study.channels, "settings": study.made_with["settings"],
        "numbers": records.NUMBERS, "commit": records.commit()})})


def weights_of(path: Path) -> Any:
    """The weights in a best.pt; of earlier versions, which held nothing else, too."""
    state = checkpoint.load(path)
    return state["state_dict"] if isinstance(state, Mapping) and "state_dict" in state else state


def read(path: Path, tree: str, *, script: str = "predict.py") -> Trained:
    """A best.pt, or that of a run's folder; InputError if it is not one of ``tree``.

    ``script``: which of the other tree's takes what is not.
    """
    file = path / NAME if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path}: no {NAME} there; give the folder of a finished finetuning run, "
                         f"such as results/{tree}/<dataset>/finetune/<arm>/fraction100/seed0")
    try:
        state = checkpoint.load(file)
    except InputError:
        raise InputError(f"{file}: not a readable file of weights; copy it anew, or train the run "
                         "again (exp.py --rerun)") from None
    about = state.get("about") if isinstance(state, Mapping) else None
    if not isinstance(about, Mapping) or not all(key in about for key in NEEDED) or (
            "state_dict" not in state):
        raise InputError(f"{file}: does not say what it was trained on, so it is no {NAME} of this "
                         "version; train the run again (exp.py --rerun)")
    if about["tree"] != tree:
        raise InputError(f"{file}: a network of code/{about['tree']}; give it to "
                         f"code/{about['tree']}/{script}")
    if checkpoint.weights_digest(state["state_dict"]) != about["weights"]:
        raise InputError(f"{file}: damaged, its weights are not those that were saved; copy it "
                         "anew, or train the run again (exp.py --rerun)")
    return Trained(file, state["state_dict"], dict(about))
