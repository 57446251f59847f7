"""Where runs may be followed beside their records: TensorBoard or MLflow, in a local folder.

Each is imported only when asked for (--track). log.jsonl stays the record: what lies here is a
copy for looking at, and may be thrown away.
"""

import importlib.util
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from common.errors import InputError
from common.files import Json

PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow"}  # what must be installed
VIEWS = {"tensorboard": "tensorboard --logdir {folder}",
         "mlflow": "mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db"}
LONGEST = 500  # characters of a setting in MLflow


class Tracker(Protocol):
    """Takes what one run tells, or pictures of a study."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Figures (name -> value) of a step."""

    def settings(self, settings: Json) -> None:
        """The constants that the run was made with."""

    def picture(self, path: Path) -> None:
        """A PNG file."""

    def close(self, *, done: bool) -> None:
        """Write what is held; ``done``: nothing more comes of this run."""


def check(kind: str) -> None:
    """Whether the package is there, for any but "none"; InputError if not."""
    if kind in PACKAGES and importlib.util.find_spec(PACKAGES[kind]) is None:
        raise InputError(f"TRACK = {kind!r}: the package {PACKAGES[kind]} is not installed; "
                         f"install it (venv/bin/pip install {PACKAGES[kind]}) or leave --track out")


def opened(kind: str, folder: Path, name: str, *, past: int) -> Tracker:
    """The tracker of a run; of an earlier start what lies past step ``past`` goes.

    Its ``name`` is the study's, /runs/, and its own: 3d/hippocampus/runs/finetune/... ``folder`` is
    the tracker's own. Raises InputError as check() does.
    """
    check(kind)
    return (TensorBoard if kind == "tensorboard" else Mlflow)(folder, name, past=past)


class TensorBoard:
    """An event file a start, in a folder of the run's name."""

    def __init__(self, folder: Path, name: str, *, past: int) -> None:
        from torch.utils import tensorboard
        made: Any = tensorboard
        self.writer = made.SummaryWriter(str(folder / name), purge_step=past + 1)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Each a curve of its own."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def settings(self, settings: Json) -> None:
        """As a table under Text."""
        rows = [f"| {name} | {value} |" for name, value in settings.items()]
        self.writer.add_text("settings", "\n".join(["| constant | value |", "|---|---|", *rows]))

    def picture(self, path: Path) -> None:
        """Under Images, by the file's name."""
        from matplotlib.image import imread
        self.writer.add_image(path.stem, imread(path)[..., :3], dataformats="HWC")

    def close(self, *, done: bool) -> None:
        """Write what is held."""
        self.writer.close()


class Mlflow:
    """A run of MLflow's own for each run, in a database and a folder of artifacts."""

    def __init__(self, folder: Path, name: str, *, past: int) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient
        folder.mkdir(parents=True, exist_ok=True)
        self.client: Any = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        group, _, rest = name.partition("/runs/")
        found = self.client.get_experiment_by_name(group)
        number = (found.experiment_id if found else self.client.create_experiment(
            group, artifact_location=(folder / "artifacts" / group).as_uri()))
        known = self.client.search_runs([number], f"tags.mlflow.runName = '{rest}'", max_results=1)
        if known and not past:  # the run was begun anew: what it said before is not its own
            self.client.delete_run(known[0].info.run_id)
            known = []
        self.run: str = (known[0] if known else self.client.create_run(
            number, tags={"mlflow.runName": rest})).info.run_id

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Each a metric; what a killed start said of a step already is said again, and equal."""
        from mlflow.entities import Metric
        now = int(1000 * time.time())
        self.client.log_batch(self.run, metrics=[
            Metric(re.sub(r"[^\w\-. /:]", "_", name), value, now, step)
            for name, value in values.items()])

    def settings(self, settings: Json) -> None:
        """As parameters."""
        from mlflow.entities import Param
        self.client.log_batch(self.run, params=[Param(name, str(value)[:LONGEST])
                                                for name, value in settings.items()])

    def picture(self, path: Path) -> None:
        """As an artifact."""
        self.client.log_artifact(self.run, str(path))

    def close(self, *, done: bool) -> None:
        """Mark a run that is done."""
        if done:
            self.client.set_terminated(self.run)
