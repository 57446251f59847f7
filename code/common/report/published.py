"""A study's records as one file, records.json.gz: nothing that graph.py needs is lost.

Compressed it takes a fifth; gunzip shows the text, a run a line.

    "format"           FORMAT
    "dataset"          its name
    "splits"           splits.json less LEFT_OUT
    "plan"             plan.json: the primary comparison and what was expected, if it was said
    "tests"            a list of test cases a line: their "ids", and the "truth" of each
    "subsets"          a list of labelled cases a line; runs have its number for "labelled_cases"
    "finetune_same"    what all finetuning runs have alike, settings and encoders key by key
    "finetune"         a run a line, the rest of it; "cases" by column, in the order of its test ids
    "pretrain_same", "pretrain"    the same of pretraining

A run is what records.read_runs() returns. Of what it has scored on validation, and
with its last weights, the headline is kept. The Dice that follows from the counts of a case
("from_counts" names them) is computed again, and so is the predicted background. Any other key of
a run or a case is kept as it is. Weights, images and the names of machines are not in it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import Json, differences, read_json, write_text
from common.report.curves import unlike
from common.runs.records import Records, run_folder, share_of

NAME = "records.json.gz"
PLAIN = "records.json"  # as versions before this one wrote it, and as gunzip leaves it
FORMAT = 1         # raise when an older graph.py could not read the file
STAGES = ("finetune", "pretrain")
LEFT_OUT = ("strata", "duplicates", "contents")  # of splits.json: large, and drawn nowhere
TRIED = ("of", "fractions", "seeds")  # what trials of rates have to have in common
PLACE = ("stage", "task", "fraction", "pool", "seed", "fold", "draw")  # tell runs of a study apart
NOTES = ("provenance", "seconds")                # two runs may differ in and be the same
NESTED = ("identity", "settings", "encoder", "provenance")  # factored key by key, others whole
COUNTS = ("both", "truth", "predicted")          # voxels of every class, background first
NEEDED: dict[str, dict[str, Any]] = {  # by figures and tables, of a run of each stage
    "finetune": {"task": str, "fraction": int, "seed": int, "metric": str, "classes": list,
                 "resolution": int, "labelled": int, "validation": int, "test_cases": int,
                 "steps": int, "generated": bool, "selected": dict, "test": dict, "val": dict,
                 "last": dict, "cases": dict, "identity": dict, "validations": dict},
    "pretrain": {"task": str, "seed": int, "score": dict, "chance": dict, "epochs": int,
                 "best_epoch": int, "identity": dict, "validations": dict}}


def publish(records: Records, path: Path) -> Records:
    """Add runs to the file at ``path``, which may not be there yet; returns all it then holds.

    Raises InputError, and writes nothing, if a run is there already with another content, or if
    the runs were made with other settings.
    """
    merged = unpacked(packed(records), path.parent)
    before = path if path.exists() else path.with_suffix("")  # PLAIN, where NAME is new
    if before.is_file():
        merged = joined(read(before), merged, before)
    write_text(path, text(packed(merged)))
    if before != path:
        before.unlink(missing_ok=True)
    return merged


def below(folder: Path) -> list[Path]:
    """The records in ``folder`` and below it, one of each folder, sorted by name."""
    found = {path.parent: path for name in (PLAIN, NAME) for path in folder.rglob(name)}
    return [found[place] for place in sorted(found)]


def joined(old: Records, new: Records, path: Path) -> Records:
    """Unite the runs of two records of one study."""
    stages = []
    for before, added in ((old.finetune, new.finetune), (old.pretrain, new.pretrain)):
        runs = {_place(run): run for run in before}
        for run in added:
            known = runs.setdefault(_place(run), run)
            if changed := differences(_content(known), _content(run)):
                raise InputError(f"{path}: holds {run_folder(Path(), run)} already, with another "
                                 f"content ({'; '.join(changed[:3])}); publish under another NOTE")
        stages.append(list(runs.values()))
    if odd := unlike(stages[0]):
        raise InputError(f"{path}: {odd}; publish under another NOTE")
    plan = old.plan or new.plan
    asked = plan.get("seeds", [])
    there = {seed for one in asked for seed in one["seeds"]}
    if since := [one for one in new.plan.get("seeds", []) if not there.issuperset(one["seeds"])]:
        plan = {**plan, "seeds": [*asked, *since]}
    chosen, since = (one.plan.get("rates", {}) for one in (old, new))
    tried, again = ({name: rates.get(name) for name in TRIED} for rates in (chosen, since))
    if chosen and since and not differences(tried, again):  # arms tried later
        plan = {**plan, "rates": {**chosen, "arms": {**since["arms"], **chosen["arms"]}}}
    return Records(old.folder, old.dataset, old.splits or new.splits, stages[0], stages[1],
                   plan=plan)


def _place(run: Json) -> tuple[object, ...]:
    return tuple(share_of(run) if name == "pool" else run.get(name) for name in PLACE)


def _content(run: Json) -> Json:
    """What must agree in two records of a run, the settings first."""
    steps = {name: dict(log) for name, log in run["validations"].items()}
    return {"identity": run["identity"], **{name: value for name, value in run.items()
                                            if name not in NOTES}, "validations": steps}


def packed(records: Records) -> Json:
    """Return the content of the file."""
    tests: list[Json] = []
    subsets: list[list[str]] = []
    content = {"format": FORMAT, "dataset": records.dataset,
               "splits": {name: value for name, value in records.splits.items()
                          if name not in LEFT_OUT},
               **({"plan": records.plan} if records.plan else {}), "tests": tests,
               "subsets": subsets}
    for stage in STAGES:
        runs: list[Json] = sorted(getattr(records, stage), key=lambda run: (
            run_folder(Path(), run), share_of(run), *(run.get(name) or 0
                                                      for name in ("fold", "draw"))))
        rows = [_row(run, tests, subsets) for run in runs]
        same = _same(rows)
        content |= {f"{stage}_same": same, stage: [_rest(row, same) for row in rows]}
    return content


def _row(run: Json, tests: list[Json], subsets: list[list[str]]) -> Json:
    """A run with its test cases by column, and its validations in two lists."""
    logs = {name: {"steps": _steps([step for step, _ in log]), "scores": [one for _, one in log]}
            for name, log in run["validations"].items()}
    row = {**run, "validations": logs}
    if "cases" not in run:
        return row
    head = run["metric"]
    row |= {"val": {head: run["val"][head]}, "last": {"test": {head: run["last"]["test"][head]}}}
    if "labelled_cases" in run:
        row["labelled_cases"] = _number(run["labelled_cases"], subsets)
    ids, cases = list(run["cases"]), list(run["cases"].values())
    columns = {name: [case[name] for case in cases] for name in cases[0]} if cases else {}
    test = {"ids": ids, **({"truth": columns.pop("truth")} if "truth" in columns else {})}
    scores = [_from_counts(case, run["classes"]) for case in cases]
    known = [name for name in columns if columns[name] == [one.get(name, ...) for one in scores]]
    if known and all(sum(case["truth"]) == sum(case["predicted"]) for case in cases):
        columns["predicted"] = [case["predicted"][1:] for case in cases]
    return {**row, "tested": _number(test, tests), "from_counts": known,
            "cases": {name: column for name, column in columns.items() if name not in known}}


def _number(value: Any, values: list[Any]) -> int:
    """The place of a value in a list, at whose end it is put if it is not there."""
    if value not in values:
        values.append(value)
    return values.index(value)


def _from_counts(case: Json, classes: Sequence[str]) -> Json:
    """Dice of a case as exp.py records it (downstream/segmentation.py); {} without counts."""
    if not all(isinstance(case.get(name), list) for name in COUNTS):
        return {}
    both, truth, predicted = (case[name] for name in COUNTS)
    each = [_dice(*counts) for counts in zip(both[1:], truth[1:], predicted[1:], strict=True)]
    there = [value for value in each if value is not None]
    total = sum(truth[1:]) + sum(predicted[1:])
    either = sum(truth) - both[0]  # voxels that are not background in both
    return {"dice": sum(there) / len(there) if there else None,
            **{f"dice_{name}": value for name, value in zip(classes, each, strict=True)},
            "dice_whole": _dice(total - either, sum(truth[1:]), sum(predicted[1:]))}


def _dice(both: int, truth: int, predicted: int) -> float | None:
    return 2 * both / (truth + predicted) if truth + predicted else None


def _steps(steps: list[int]) -> int | list[int]:
    """The first of steps that are as far apart as it is from 0, else all of them."""
    even = bool(steps) and steps == [steps[0] * n for n in range(1, len(steps) + 1)]
    return steps[0] if even else steps


def _same(rows: list[Json]) -> Json:
    """What all rows have alike; of what is NESTED and not null, the keys that are alike."""
    same = {}
    for name in _ordered(rows[0]) if rows else ():
        values = [row.get(name, ...) for row in rows]
        parts = [value for value in values if isinstance(value, dict)]
        if all(_equal(value, values[0]) for value in values):
            same[name] = values[0]
        elif name in NESTED and parts and ... not in values:
            same[name] = _same(parts)
    return same


def _rest(row: Json, same: Json) -> Json:
    """What a row has beside ``same``."""
    return {name: _rest(value, same[name]) if _nested(name, value, same) else value
            for name in _ordered(row) if not _equal(value := row[name], same.get(name, ...))}


def _ordered(row: Json) -> list[str]:
    """Names in one order, whatever was added first: where a run belongs, then what it holds."""
    return [*(name for name in PLACE if name in row), *sorted(set(row) - set(PLACE))]


def _whole(rest: Json, same: Json) -> Json:
    """The row that ``rest`` was left of."""
    return {**same, **{name: _whole(value, same[name]) if _nested(name, value, same) else value
                       for name, value in rest.items()}}


def _nested(name: str, value: object, same: Json) -> bool:
    return name in NESTED and isinstance(value, dict) and isinstance(same.get(name), dict)


def _equal(one: object, other: object) -> bool:
    """Whether two values are the same JSON: 1, 1.0 and true are three."""
    return one == other and json.dumps(one, default=str) == json.dumps(other, default=str)


def text(content: Json) -> str:
    """The file of a content, before it is compressed: a run a line."""
    def line(value: object) -> str:
        return json.dumps(value, separators=(",", ":"))

    def lines(values: list[object]) -> str:
        return "[\n" + ",\n".join(map(line, values)) + "\n]" if values else "[]"

    return "{\n" + ",\n".join(
        f'"{name}":{lines(value) if isinstance(value, list) else line(value)}'
        for name, value in content.items()) + "\n}\n"


def read(path: Path) -> Records:
    """Read a study's records; InputError naming the file if it is damaged or of a newer version."""
    content = read_json(path)
    try:
        if content["format"] > FORMAT:
            raise InputError(f"{path}: of format {content['format']}, this code reads {FORMAT}; "
                             "take the code of the commit that wrote it, or a later one")
        return unpacked(content, path.parent)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path}: not the records of a study ({what}); restore it, for example "
                         "with git checkout, or move it away and publish again") from None


def unpacked(content: Json, folder: Path) -> Records:
    """Return the records that were packed; KeyError, TypeError or ValueError if damaged."""
    dataset, splits = content["dataset"], content["splits"]
    if not isinstance(dataset, str) or not isinstance(splits, dict):
        raise TypeError("dataset or splits of another type")
    stages = [[_checked(_run(_whole(rest, content[f"{stage}_same"]), content), stage)
               for rest in content[stage]] for stage in STAGES]
    return Records(folder, dataset, splits, stages[0], stages[1], plan=content.get("plan", {}))


def _run(row: Json, content: Json) -> Json:
    """The run that a row was made of."""
    logs = {name: list(zip(_spread(log["steps"], len(log["scores"])), log["scores"], strict=True))
            for name, log in row["validations"].items()}
    run = {name: value for name, value in row.items() if name not in ("tested", "from_counts")}
    run["validations"] = logs
    if "labelled_cases" in run:
        run["labelled_cases"] = content["subsets"][run["labelled_cases"]]
    if "tested" in row:
        run["cases"] = _cases(row, content["tests"][row["tested"]])
    return run


def _cases(row: Json, test: Json) -> Json:
    """What was recorded of each test case, from its columns and its truth."""
    columns = row["cases"] | {name: test[name] for name in test if name != "ids"}
    cases = {}
    for name, *values in zip(test["ids"], *columns.values(), strict=True):
        cases[name] = case = dict(zip(columns, values, strict=True))
        if row["from_counts"]:
            if len(case["predicted"]) == len(row["classes"]):  # without the background
                rest = sum(case["truth"]) - sum(case["predicted"])
                case["predicted"] = [rest, *case["predicted"]]
            scores = _from_counts(case, row["classes"])
            case |= {key: scores[key] for key in row["from_counts"]}
    return cases


def _spread(steps: int | list[int], count: int) -> list[int]:
    return [steps * n for n in range(1, count + 1)] if isinstance(steps, int) else steps


def _checked(run: Json, stage: str) -> Json:
    """The run, if it has what is NEEDED."""
    for name, kind in NEEDED[stage].items():
        if not isinstance(run[name], kind):
            raise TypeError(f"{name} of a run is {str(run[name])[:40]}")
    for log in run["validations"].values():
        sum(score + step for step, score in log)  # TypeError, unless all are numbers
    if stage == "finetune":
        scored = [(scores, run["metric"]) for scores in (run["test"], run["val"],
                                                         run["last"]["test"])]
        counted = [(case, name) for case in run["cases"].values() for name in COUNTS[1:]]
        for scores, name in (*scored, *counted):
            if name not in scores:
                raise KeyError(name)
    return run
