"""Where the numbers of a page come from: settings, versions, and whom to cite."""

from collections.abc import Sequence

from common.arms import ORACLE, parts
from common.files import Json
from common.report.curves import Curves
from common.report.section import Section

MADE_WITH = ("commit", "python", "torch", "torchvision", "numpy", "nibabel", "scipy", "device",
             "card", "driver", "cuda", "cudnn", "threads")  # not "host": a machine's name
MOST = 6      # values listed where runs differ
PAPER = """\
@inproceedings{taleb2020,
  title     = {3D Self-Supervised Methods for Medical Imaging},
  author    = {Taleb, Aiham and Loetzsch, Winfried and Danz, Noel and Severin, Julius
               and Gaertner, Thomas and Bergner, Benjamin and Lippert, Christoph},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {33},
  year      = {2020},
  note      = {arXiv:2006.03829}
}"""
TITLE = "How many labels do unlabelled images save?"  # of README.md


def sections(curves: Curves) -> list[Section]:
    """What the runs were made with, a table a stage, and with what programs."""
    found = []
    oracle = any(ORACLE in parts(run["task"]) for run in curves.pretraining)
    for title, runs, more in (("Finetuning", curves.runs, ""), (
            "Pretraining", curves.pretraining,
            " An oracle is pretrained with those of finetuning." * oracle)):
        if rows := _alike([_settings(run.get("identity", {})) for run in runs]):
            found.append(Section(title, "Constants that reach its numbers; of several values those "
                                 f"of different runs.{more}", ["constant", "value"], rows))
    made = [run["provenance"] for run in (*curves.runs, *curves.pretraining) if run.get(
        "provenance")]
    if rows := [*_alike(made, MADE_WITH), *_hours(curves)]:
        found.append(Section("Made with", "As the runs recorded it; it does not reach their "
                             "identity.", ["what", "value"], rows))
    return found


def _settings(identity: Json) -> Json:
    """A run's constants, and how what its encoder hands on is trained."""
    start = identity.get("encoder") or {}
    return {**identity.get("settings", {}), "START_LR_FACTOR": start.get("start lr factor"),
            "START_NORM": start.get("norm"), "WARMUP_EPOCHS": start.get("warmup")}


def _hours(curves: Curves) -> list[list[str]]:
    """A row a stage: how long its runs took, one after another; runs without that are left out."""
    rows = []
    for stage, runs in (("finetuning", curves.runs), ("pretraining", curves.pretraining)):
        took = [run["seconds"] for run in runs if run.get("seconds")]
        if took:
            rows.append([f"hours of {stage}", f"{sum(took) / 3600:.1f}, of {len(took)} runs, "
                         "one after another"])
    return rows


def citation(curves: Curves) -> list[str]:
    """What to cite, as BibTeX: the paper, and this repository at the commits of the runs."""
    commits = _values([run.get("provenance") or {} for run in curves.runs], "commit")
    note = f"  note  = {{commit {', '.join(commits)}}}\n" if commits else ""
    return [PAPER, f"@software{{labels_saved,\n  title = {{{TITLE}}},\n"
                   f"  author = {{The authors of the repository}},\n{note}}}"]


def _alike(settings: Sequence[Json], names: Sequence[str] = ()) -> list[list[str]]:
    """A row a name with its values; in the order of ``names``, or of the alphabet."""
    every = names or sorted({name for one in settings for name in one})
    return [[name, ", ".join(values[:MOST]) + (f" and {len(values) - MOST} more" if
                                               len(values) > MOST else "")]
            for name in every if (values := _values(settings, name))]


def _values(settings: Sequence[Json], name: str) -> list[str]:
    """Its different values in the order in which they come; null is none."""
    return list(dict.fromkeys(_said(one[name]) for one in settings if one.get(name) is not None))


def _said(value: object) -> str:
    """A setting as one would write it."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
