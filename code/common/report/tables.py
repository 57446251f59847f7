"""Curves as Markdown and CSV tables: means, intervals, paired differences, pretext accuracy."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable
from statistics import mean

from common.arms import BASELINE, FROM_SCRATCH, is_control
from common.report import claims, rates, reading
from common.report.curves import SOLVED, SOLVED_EPOCHS, Curves, Point, order
from common.report.section import Section
from common.stats.estimates import Estimate

COULD = ("gain shown in half of the repetitions", "gain shown with 80 % power")
LABELS_SAVED = """\
Labelled fraction at which an arm reaches the baseline's score on all labels, linear in the
logarithm of the fraction. The interval goes from where it may be as good to where it is for good
(95 %, paired by seed and case, not adjusted over the arms). An arm saves labels if its interval
ends before the baseline's own begins (a baseline as good on fewer labels saves the same); with "not
reached" as its upper end, or without an interval, nothing can be claimed."""


def markdown(curves: Curves) -> str:
    """The whole report of a data set as Markdown."""
    parts = [f"# {title(curves)}", opening(curves), "## Reading",
             "\n".join(f"- {words}" for words in reading.paragraphs(curves))]
    return "\n\n".join([*parts, *(part for section in sections(curves)
                                  for part in section.markdown)]) + "\n"


def title(curves: Curves) -> str:
    """The data set's name; a warning behind that of generated data."""
    return curves.dataset + (" (generated data: says nothing about patients)"
                             if curves.generated else "")


def opening(curves: Curves) -> str:
    """Network, cases, seeds, steps, and how weights were chosen."""
    return " ".join([*([f"{curves.network}."] if curves.network else []), *facts(curves)])


def sections(curves: Curves) -> list[Section]:
    """All tables of a data set, in the order in which they are read."""
    found = [_glance(curves), *_scores(curves)]
    paired = [point for point in curves.points if point.difference is not None]
    if paired:
        found.append(_differences(curves, paired))
    if undone := _undone(curves):
        found.append(undone)
    if curves.reached:
        found.append(Section("Labels saved", LABELS_SAVED, [
            "task", "reaches it at", "95 % interval", "seeds", "fractions"],
            [[marked(task), one.estimate, one.interval, _listed(one.seeds),
              _listed(one.fractions)] for task, one in curves.reached.items()]))
    if curves.exchange and curves.exchange.worth:
        found.append(rates.worth_section(curves))
    if curves.exchange:
        found.append(Section("Exchange rates", rates.words(curves), *rates.table(curves)))
    if curves.pools:
        found.append(Section(
            "Shares of the pool", "The same arm pretrained on a share of its unlabelled "
            "images, less the baseline; 95 % intervals, not adjusted. A label's worth is "
            "shown where a doubling of the labels and one of the pool are shown to bring "
            "something.", *rates.pool_table(curves.pools)))
    if "confusion" in curves.runs[0]["test"]:
        found.append(Section("Confusion", "Test cases of all seeds, at the smallest and the "
                             "largest fraction.", *_confusion_table(curves)))
    if curves.rates:
        found.append(_rates(curves))
    if curves.pretraining:
        found.append(Section(
            "Pretext tasks", "On the validation cases, fixed views. Solved: the first "
            f"epoch at which the mean of {SOLVED_EPOCHS} has come {100 * SOLVED:.0f} % of "
            "the way from chance to 1; without a chance level nothing is compared (-).",
            ["task", "score", "seeds", "value", "chance", "solved at epoch", "epochs run",
             "epoch kept"], _pretext_rows(curves)))
    if curves.missing:
        found.append(Section("Missing", items=curves.missing))
    return found


def _differences(curves: Curves, paired: list[Point]) -> Section:
    """Every arm at every fraction less the baseline, with both intervals and both p."""
    return Section(
        "Difference to the baseline", f"{curves.measures[0].label}, paired by seed and test case, "
        "with its 95 % interval; then the same adjusted for the arms of the fraction (Dunnett), p "
        "likewise. The spread is pooled over these arms; controls have their own, and "
        "are not adjusted." + (" The claim about the primary comparison rests on the first "
                               "interval." if any(point.primary for point in paired) else ""),
        ["task", "labels", "seeds", "difference", "adjusted interval", "p", "p adjusted"],
        [[marked(point.task) + " (primary)" * point.primary, f"{point.fraction} %",
          _listed(point.difference.seeds), shown(point.difference, sign=True),
          _ends(point.difference.adjusted), _p(point.difference.p),
          _p(point.difference.adjusted_p)]
         for point in paired if point.difference])


def _undone(curves: Curves) -> Section | None:
    """Every arm less the start that has lost what it had learnt, where both were run."""
    rows = [[marked(point.task), f"{point.fraction} %",
             *(shown(claims.apart(curves, point, other, last=last), sign=True)
               for last in (False, True))] for point, other in claims.pairs(curves)]
    return Section(
        "Difference to the shuffled start", "Each arm less the start that has lost all it had "
        "learnt, paired by seed and test case; 95 % intervals of these two alone, not adjusted.",
        ["task", "labels", "difference", "with the last weights"], rows) if rows else None


def marked(task: str) -> str:
    """An arm's name, a control's with the word."""
    return f"{task} (control)" if is_control(task) else task


def _glance(curves: Curves) -> Section:
    """The baseline's scores, every arm's differences to it, and the labels saved."""
    columns = _columns(curves)
    rows = []
    for task in curves.tasks:
        cells = {point.fraction: cell(point, curves) for point in curves.of_task(task)}
        one = curves.reached.get(task)
        saved = "the reference" if task == BASELINE else f"{one.estimate} ({one.interval})"\
            if one else ""
        rows.append([marked(task), *(cells.get(fraction, "") for fraction in curves.fractions),
                     saved if curves.reached else ""])
    bounded = any(point.interval for point in curves.points)
    words = (f"{curves.measures[0].label}: the baseline's" + " with its 95 % interval" * bounded
             + ", the others' difference to it" + (
                 " with the interval adjusted for the arms of the fraction, of controls"
                 + " and the primary comparison" * any(point.primary for point in curves.points)
                 + " their own." if bounded else "."))
    could = [curves.could_show(fraction) for fraction in curves.fractions]
    if any(could):
        rows += [[name, *("" if gain is None else _span(gain[index]) for gain in could), ""]
                 for index, name in enumerate(COULD)]
        words += (" The last rows: gains that a study like this shows, of the arm with the "
                  "narrowest interval and of that with the widest.")
    return Section("At a glance", words,
                   ["task", *columns, "as good as the baseline on all labels at"], rows)


def _span(gain: tuple[float, float]) -> str:
    return " to ".join(dict.fromkeys(f"{half:.3f}" for half in gain))


def _columns(curves: Curves) -> list[str]:
    """The fractions with their numbers of cases."""
    return [f"{fraction} % ({curves.labelled(fraction)})" for fraction in curves.fractions]


def _scores(curves: Curves) -> list[Section]:
    """A table a measure: an arm a row, a fraction a column; the last weights', the teachers'."""
    head = curves.measures[0]
    found = [Section("Scores", "Means over seeds with 95 % intervals, cut at the ends of the "
                     "scale, by labelled share (number of cases).")]
    for measure in curves.measures:
        found.append(_by_fraction(curves, measure.label, {
            (point.task, point.fraction): shown(point.means[measure.name])
            for point in curves.points}))
    found.append(_by_fraction(curves, f"{head.label}: last weights instead of the best", {
        (point.task, point.fraction): f"{point.last:.3f}" for point in curves.points}))
    if taught := _taught(curves, head.name):
        own = list(dict.fromkeys(task for task, _ in taught))
        found.append(Section(
            f"{head.label}: the teacher instead of the student",
            "The moving average of the weights at the end of the run; curves, intervals and "
            "the reading are the student's.", ["task", *_columns(curves)],
            [[task, *(f"{taught[task, fraction]:.3f}" if (task, fraction) in taught else ""
                      for fraction in curves.fractions)] for task in own], level=3))
    return found


def _taught(curves: Curves, measure: str) -> dict[tuple[str, int], float]:
    """Test scores of teachers, by arm and fraction: means over seeds of means over draws."""
    scores: dict[tuple[str, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in curves.runs:
        if "teacher" in run:
            scores[run["task"], run["fraction"]][run["seed"]].append(
                run["teacher"]["test"][measure] or 0.0)
    return {place: mean(map(mean, of.values())) for place, of in scores.items()}


def _by_fraction(curves: Curves, label: str, cells: dict[tuple[str, int], str]) -> Section:
    """An arm a row, a fraction a column."""
    return Section(label, "", ["task", *_columns(curves)], [
        [marked(task), *(cells.get((task, fraction), "") for fraction in curves.fractions)]
        for task in curves.tasks], level=3)


def cell(point: Point, curves: Curves) -> str:
    """The baseline's score, or an arm's difference to it, with the interval of a claim."""
    if point.task == BASELINE:
        return shown(point.means[curves.measures[0].name])
    if point.difference is None:  # no baseline to compare with
        return ""
    ends = f" ({_ends(point.interval)})" if point.interval else ""
    return f"{point.difference.mean:+.3f}{ends}"


def _rates(curves: Curves) -> Section:
    """What --tune chose for each arm, and what of."""
    found, arms = curves.rates, curves.rates["arms"]
    rows = []
    for arm in sorted(arms, key=order):
        chosen, trials = arms[arm]["chosen"], arms[arm]["trials"]
        best = next(one for one in trials if chosen.items() <= one.items())
        kept = arms[arm].get("kept")
        rows.append([marked(arm), f"{chosen['lr']:g}", *(
            ["-", "-"] if arm in FROM_SCRATCH
            else [f"{chosen['factor']:g}", str(chosen["warmup"])]),
            *(f"{score:.3f} ({min(one['scores'][i] for one in trials):.3f} to "
              f"{max(one['scores'][i] for one in trials):.3f})"
              for i, score in enumerate(best["scores"])),
            str(len(trials)), "" if kept is None else f"{100 * kept:.0f} %"])
    return Section(
        "Rates", f"Chosen by --tune on validation, with seeds {_listed(found['seeds'])} that are "
        "used for nothing else: the best in the mean of these fractions. Validation score of the "
        "choice, and of the worst to the best trial. Kept: the share of its own validation "
        "score that a control which knows all labels still has at the smallest fraction.",
        ["task", "rate", "of its start, times", "start frozen, epochs",
         *(f"{fraction} %" for fraction in found["fractions"]), "trials", "kept"], rows)


def facts(curves: Curves) -> list[str]:
    """What a reader has to know beside the numbers, one sentence each."""
    runs = curves.runs
    rule = runs[0]["selected"]["rule"]
    number = len(curves.seeds)
    draws = [f"{count} labelled subsets a seed at {fraction} %"
             for fraction, count in curves.draws.items() if count != "1"]
    tested = f"n = {curves.test_cases} test cases"
    if curves.folds > 1:
        used = len({seed % curves.folds for seed in curves.seeds})
        tested += f" in {used} of {curves.folds} folds, each seed tested on one"
    return [
        f"{', '.join([tested, _seeds(number), *draws])}, {steps(curves)} optimiser steps a run.",
        f"Model chosen by {rule} ({runs[0]['validation']} labelled cases, the same at every "
        "fraction), reported once on test.",
        *([f"Protocol of finetuning: {curves.protocol}; splits, encoders and the choice of weights "
           "are ours."] if curves.protocol else []),
    ]


def _seeds(number: int) -> str:
    return f"{number} seed{'s' * (number > 1)}"


def steps(curves: Curves) -> str:
    """Optimiser steps of a run, least to most where fractions differ."""
    numbers = sorted({run["steps"] for run in curves.runs})
    return " to ".join(map(str, dict.fromkeys([numbers[0], numbers[-1]])))


def csv_text(curves: Curves) -> str:
    """One row per task, fraction and measure, unrounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["dataset", "task", "fraction", "labelled", "measure", "seeds", "mean", "low",
                     "high", "difference", "difference_low", "difference_high", "adjusted_low",
                     "adjusted_high", "p", "p_adjusted", "arms", "shown_half", "shown_80"])
    for point in curves.points:
        for measure in curves.measures:
            estimate = point.means[measure.name]
            head = measure is curves.measures[0]
            paired = [""] * 5
            if head and point.difference:
                paired = [*_cells(point.difference),
                          *_numbers(point.difference.adjusted or (None, None))]
            p = ([point.difference.p, point.difference.adjusted_p] if head and point.difference
                 else [None, None])
            could = (point.could_show if head else None) or (None, None)
            writer.writerow([curves.dataset, point.task, point.fraction,
                             curves.labelled(point.fraction), measure.name, len(estimate.seeds),
                             *_cells(estimate), *paired,
                             *("" if value is None else f"{value:.4g}" for value in p),
                             point.difference.arms if head and point.difference else "",
                             *_numbers(could)])
    return out.getvalue()


def _cells(estimate: Estimate) -> list[str]:
    return _numbers((estimate.mean, *(estimate.interval or (None, None))))


def _numbers(values: Iterable[float | None]) -> list[str]:
    return ["" if value is None else f"{value:.6f}" for value in values]


def shown(estimate: Estimate, *, sign: bool = False) -> str:
    """As "0.612 (0.580 to 0.644)", without the interval under 3 seeds."""
    form = "+.3f" if sign else ".3f"
    text = format(estimate.mean, form)
    if estimate.interval is None:
        return text
    low, high = estimate.interval
    return f"{text} ({format(low, form)} to {format(high, form)})"


def _ends(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"


def _p(value: float | None) -> str:
    return "" if value is None else ("< 0.001" if value < 0.001 else f"{value:.3f}")


def _listed(seeds: tuple[int, ...]) -> str:
    return " ".join(map(str, seeds))


def _pretext_rows(curves: Curves) -> list[list[str]]:
    by_task = defaultdict(list)
    for run, solved in zip(curves.pretraining, curves.solved, strict=True):
        by_task[run["task"]].append((run, solved))
    rows = []
    for task, pairs in sorted(by_task.items(), key=lambda item: order(item[0])):
        runs = [run for run, _ in pairs]
        chances = runs[0]["chance"]
        for name in dict.fromkeys([*chances, *runs[0]["score"]]) or ["loss"]:
            values = [run["score"].get(name, run.get("loss")) for run in runs]
            rows.append([marked(task), name, " ".join(str(run["seed"]) for run in runs),
                         ", ".join(f"{value:.3f}" for value in values),
                         f"{chances[name]:.3f}" if name in chances else "-",
                         ", ".join(str(solved[name] or "no") if name in solved else "?"
                                   for _, solved in pairs) if name in chances else "-",
                         ", ".join(str(run["epochs"]) for run in runs),
                         ", ".join(str(run["best_epoch"]) for run in runs)])
    return rows


def _confusion_table(curves: Curves) -> tuple[list[str], list[list[str]]]:
    """Cases by true and predicted class, summed over seeds."""
    classes = curves.runs[0]["classes"]
    rows = []
    for point in curves.points:
        if point.fraction in (curves.fractions[0], curves.fractions[-1]):
            tables = [run["test"]["confusion"] for run in curves.runs
                      if (run["task"], run["fraction"]) == (point.task, point.fraction)]
            rows += [[marked(point.task), f"{point.fraction} %", name,
                      *(str(sum(table[i][j] for table in tables)) for j in range(len(classes)))]
                     for i, name in enumerate(classes)]
    return ["task", "labels", "truth", *(f"predicted {name}" for name in classes)], rows
