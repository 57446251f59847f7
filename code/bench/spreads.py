"""The spreads of the published studies, from which exp.py says what a new one can show.

    python code/bench/spreads.py     every study's records -> code/common/stats/known_spreads.json

A study counts that has an interval: a baseline and an arm, three seeds or more, no generated data.
Of several of a data set the one with the most runs is taken, and of several labelled subsets of a
seed the first: that a study has one is what is expected. A line of a data set that no study in the
folder has any more stays, after all others: a study of those images alone expects its spreads (of
IDRiD none else is known, and its runs scatter more than the knees' with as many labels). Any other
data set takes the first line of its metric, whose records it can look up.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.arms import BASELINE, is_control
from common.errors import exit_status
from common.files import ROOT, Json, read_json, write_text
from common.report import published
from common.runs.records import Records
from common.schedule.announce import spreads_of
from common.stats import power
from common.stats.measures import Measure, kappa_of, mean_of

LEAST = 4  # degrees of freedom, arms times seeds less one, under which a spread is a guess


def measures(run: Json) -> list[Measure]:
    """The measure that a study reports first; of grades also the one of classes in no order.

    (No study of such classes is published: a new one expects the spreads that these runs have.)
    """
    classes = len(run["classes"])
    unweighted = kappa_of("unweighted_kappa", "", classes, ordered=False)
    return {"kappa": [kappa_of("kappa", "", classes), unweighted],
            unweighted.name: [unweighted]}.get(run["metric"], [mean_of(run["metric"], "")])


def spreads(records: Records, measure: Measure | None = None) -> Json | None:
    """What is known of one study; None if it has no interval, or too few runs for its spread."""
    runs = [run for run in records.finetune if not run.get("draw")]
    arms = {run["task"] for run in runs if run["task"] != BASELINE and not is_control(run["task"])}
    if len(arms) * (len({run["seed"] for run in runs}) - 1) < LEAST:
        return None
    measure = measure or measures(runs[0])[0]
    found = spreads_of(runs, measure, records.folder.relative_to(ROOT).as_posix())
    if not found or runs[0]["generated"]:
        return None
    return {"dataset": records.dataset, "metric": measure.name, "study": found[0].study,
            "spreads": [[one.fraction, one.labelled, round(one.runs, 5), round(one.cases, 4)]
                        for one in found]}


def known() -> list[Json]:
    """Every study, the largest of a data set alone."""
    paths = published.below(ROOT / "results/published")
    studies = sorted(map(published.read, paths), key=lambda one: -len(one.finetune))
    there = {study.dataset for study in studies}
    best: dict[tuple[str, str], Json] = {}
    for study in studies:
        for measure in measures(study.finetune[0]):
            if (found := spreads(study, measure)) is not None:
                best.setdefault((study.dataset, measure.name), found)
    for one in read_json(ROOT / power.KNOWN):
        if one["dataset"] not in there:
            best[one["dataset"], one["metric"]] = one
    return [best[name] for name in sorted(best, key=lambda name: (name[0] not in there, name))]


def text(found: list[Json]) -> str:
    """The file: a study a line."""
    return "[\n" + ",\n".join(json.dumps(one) for one in found) + "\n]\n"


def main() -> None:
    """Write the file."""
    write_text(ROOT / power.KNOWN, text(known()))
    print(text(known()), end="")


if __name__ == "__main__":
    sys.exit(exit_status(main))
