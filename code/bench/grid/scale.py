"""Do ten thousand cases take ten times as long as a thousand, and no more memory?

    python code/bench/grid/scale.py 2d --counts 100 1000 10000 --out FOLDER

Generated cases as small as they can be, so that what is measured is the handling of cases and not
of voxels. A row a count, each step in a fresh process:

    first start    exp.py up to its plan: reading, checking and preprocessing every case, splits
    later start    the same again: the cache is there, every file is looked at
    plan           which runs there are, what each is identified by, which are done
    draw           graph.py on a study of as many test cases: two arms and the baseline, two
                   fractions, five seeds on five folds; runs that score as their seed is drawn

Own memory does not count pages of files, which the system takes back when it needs them. Below the
table: what 10,000 volumes of 128^3 and 100,000 photographs of 224 px take, counted. Linear: the
last count takes under LINEAR times as long a case as the one before; flat: under FLAT times the
memory of the first.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from bench import trees
from bench.measure import in_new_process
from common.errors import exit_status
from common.files import plain, write_json

LINEAR, FLAT = 1.3, 1.5
SIDES = {"2d": 32, "3d": 16}  # pixels or voxels of a generated case
FLAGS = {"3d": ["--resolution", "16", "--levels", "1"],
         "2d": ["--resolution", "96", "--blocks", "1", "1", "1", "1", "--growth", "8"]}
STEPS = ("first start", "later start", "plan", "draw")
ON_PAPER = [("10,000 volumes of 128³, one channel", 10_000, 128**3, 2, 1),
            ("100,000 photographs of 224 px", 100_000, 3 * 224**2, 1, 0)]  # bytes: image, label

OPEN = """
import sys, json, time
from pathlib import Path
sys.path.insert(0, ".")
from bench import trees
from bench.grid import scale
from bench.measure import Anonymous, high_water
from common.schedule.plan import plan
from common.settings import from_flags
import contextlib, io, torch
if __name__ == "__main__":
    with Anonymous() as memory, contextlib.redirect_stdout(io.StringIO()):
        exp = trees.script(sys.argv[1])
        begun = time.perf_counter()
        study = trees.study_of(exp, from_flags(vars(exp), sys.argv[2:]), torch.device("cpu"))
        opened = time.perf_counter()
        jobs = [(job.make().identity, job.make().done(), job.ready()) for job in plan(study)]
        ended = time.perf_counter()
        tested = [study.part(seed).test for seed in study.settings.SEEDS]
        if not (study.home / "finetune").exists():
            scale.pretend(study)
    print(json.dumps({"open": opened - begun, "plan": ended - opened, "own": memory.most,
                      "peak": high_water(), "jobs": len(jobs)}))
"""
DRAW = """
import sys, json, time, contextlib, io
sys.path.insert(0, ".")
sys.path.insert(0, sys.argv[1])
from bench.measure import Anonymous, high_water
if __name__ == "__main__":
    with Anonymous() as memory, contextlib.redirect_stdout(io.StringIO()):
        import graph
        from common.report.main import run
        begun = time.perf_counter()
        run(graph.TREE, "", ["--results", sys.argv[2]])
        taken = time.perf_counter() - begun
    print(json.dumps({"draw": taken, "own": memory.most, "peak": high_water()}))
"""


def main() -> int:
    """Measure every count and print the table."""
    parser = trees.parser(__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--out", type=Path, help="folder for scale-<tree>.md and .json")
    asked = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for count in asked.counts:
            print(f"{count} cases ...", file=sys.stderr, flush=True)
            found.append({"count": count, **measure(asked.tree, Path(folder) / str(count), count)})
    text = table(asked.tree, found)
    print(text)
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / f"scale-{asked.tree}.md").write_text(text, encoding="utf-8")
        write_json(asked.out / f"scale-{asked.tree}.json", found)
    return 0


def measure(tree: str, folder: Path, count: int) -> dict[str, float]:
    """Seconds of every step and MiB at most, with ``count`` cases, half of them labelled."""
    data = folder / ("Task00_Many" if tree == "3d" else "many")
    trees.script(tree).phantom.generate(data, labelled=count // 2, unlabelled=count - count // 2,
                                        size=SIDES[tree])
    given = ["--data", data, "--cache", folder, "--results", folder / "results", *FLAGS[tree],
             "--tasks", "baseline", "rotation", "jigsaw", "--fractions", "5", "100"]
    first, later = (in_new_process(OPEN, tree, *map(str, given)) for _ in range(2))
    drawn = in_new_process(DRAW, tree, str(folder / "results"))
    cached = sum(file.stat().st_size for file in folder.glob("*/cache/**/*") if file.is_file())
    return {"first start": first["open"], "later start": later["open"], "plan": later["plan"],
            "draw": drawn["draw"], "own": max(first["own"], later["own"]),
            "drawing": drawn["own"], "cache": cached / count}


def pretend(study: trees.Study) -> None:
    """Write finished runs of made-up scores for every arm, fraction and seed of a study."""
    rng = np.random.default_rng(0)
    settings = study.settings
    for arm in settings.TASKS:
        for fraction in settings.FRACTIONS:
            for seed in settings.SEEDS:
                run = study.finetune_run("baseline", fraction, seed)
                folder = Path(str(run.folder).replace("/baseline/", f"/{arm}/"))
                folder.mkdir(parents=True)
                write_json(folder / "config.json",
                           {"identity": {**run.identity, "task": arm}, "provenance": {}})
                write_json(folder / "scores.json", _scores(study, arm, fraction, seed, rng))


def _scores(study: trees.Study, arm: str, fraction: int, seed: int, rng: np.random.Generator
            ) -> dict[str, object]:
    """What a finetuning run would say of its test cases, had it answered by chance."""
    tested, task = study.part(seed).test, study.downstream()
    if study.dimensions == 2:
        truth = np.array([study.cache.facts[case]["truth"] for case in tested])
        scores = {"truth": truth, "predicted": np.where(rng.random(len(tested)) < 0.5, truth, 0)}
    else:
        kinds = len(study.classes) + 1
        scores = {"confusion": rng.integers(9, 99, (len(tested), kinds, kinds))}
    figures = task.summarise(scores)
    labelled = sorted(study.labelled(fraction, seed))
    return plain({
        "stage": "finetune", "task": arm, "fraction": fraction, "seed": seed,
        "fold": study.part(seed).fold, "metric": task.monitor, "classes": study.classes,
        "resolution": study.settings.RESOLUTION, "labelled": len(labelled),
        "labelled_cases": labelled, "validation": len(study.splits.val),
        "test_cases": len(tested), "steps": 100, "batch": 4, "generated": True,
        "selected": {"step": 100, "rule": study.rule}, "test": figures, "val": figures,
        "last": {"test": figures, "val": figures},
        "cases": dict(zip(tested, task.cases(scores), strict=True))})


def table(tree: str, found: Sequence[dict[str, float]]) -> str:
    """In Markdown, with what does not grow as it should said below."""
    lines = [f"| cases ({tree}) | {' | '.join(f'{step}, s' for step in STEPS)} | own memory, MiB | "
             "drawing, MiB | cache a case, KB |", "|---|" + "---|" * (len(STEPS) + 3)]
    for row in found:
        lines.append(f"| {row['count']:.0f} | {' | '.join(f'{row[s]:.2f}' for s in STEPS)} | "
                     f"{row['own']:.0f} | {row['drawing']:.0f} | {row['cache'] / 1e3:.1f} |")
    lines.append("")
    for step in STEPS if len(found) > 1 else ():
        each = found[-1][step] / found[-1]["count"] / (found[-2][step] / found[-2]["count"])
        lines.append(f"- {step}: {each:.2f} times as long a case at {found[-1]['count']:.0f} as at "
                     f"{found[-2]['count']:.0f}" + ("" if each < LINEAR else ": **not linear**"))
    for name in ("own", "drawing"):
        grown = found[-1][name] / found[0][name]
        lines.append(f"- {'opening' if name == 'own' else name}: {grown:.2f} times the memory at "
                     f"{found[-1]['count']:.0f} as at {found[0]['count']:.0f}"
                     + ("" if grown < FLAT else ": **not flat**"))
    lines.append("")
    lines += [f"- {what}: {count * voxels * size / 1e9:.0f} GB of images in the cache"
              + (f", {count * voxels * label / 1e9:.0f} GB of label maps if all are labelled" if
                 label else "") + "; mapped, not held, in memory"
              for what, count, voxels, size, label in ON_PAPER]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(exit_status(main))
