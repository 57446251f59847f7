"""--tune: each arm's rates, chosen on validation from as many trials as any other arm has.

Equal tuning, not equal settings: a rate that suits random weights destroys what a start knows, and
a start that knows little wants to be changed. The baseline tries as many rates as the others try
ways of treating their start. The trials have seeds of their own, at the smallest and the middle
fraction; no test case is looked at. The choice lies in plan.json, where exp.py reads it; the oracle
is the check: where it cannot keep what it knows, nothing can be shown.
"""

import datetime
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import mean

import torch

from common import arms
from common.arms import BASELINE, ORACLE
from common.errors import InputError
from common.files import Json, differences, plain, starting, write_json
from common.runs import rates, records
from common.runs.rates import Rates
from common.runs.study import Study
from common.schedule.announce import tell_time
from common.schedule.mending import check_stale, mend
from common.schedule.plan import Job, check_ranks, finetuning, in_order, pretrainings
from common.schedule.workers import work_off
from common.settings import Settings

# Of an arm that starts from something: rate over FINETUNE_LR, START_LR_FACTOR, frozen share.
TRIALS = ((1, 1, 0), (1, 0.3, 0), (1, 0.1, 0), (3, 0.03, 0), (3, 0, 0), (1, 0.3, 1 / 3))
RATES = (1 / 10, 1 / 3, 1 / 2, 1, 2, 3)  # of the baseline, over FINETUNE_LR
OF_RATES = ("rates", "encoder.rates", "encoder.weights")  # in an oracle's identity, and its trials'
KEPT = 0.95  # of its own score, that the oracle has to keep at the smallest fraction


def tune(study: Study, places: Sequence[torch.device], workers: int) -> int:
    """Try, choose and write it down; exit status 1 if a trial could not be trained."""
    asked = study.settings
    names = list(dict.fromkeys(rates.key(arm) for arm in (BASELINE, *asked.TASKS)))
    study = replace(study, rates={}, settings=Settings(**{
        **vars(asked), "SEEDS": asked.TUNE_SEEDS, "FRACTIONS": fractions(asked), "POOL": [100],
        "DRAWS": 1, "PRIMARY": [], "TASKS": names}))
    runs = sum(len(trials(study, arm)) for arm in names) * len(asked.TUNE_SEEDS) * len(
        study.settings.FRACTIONS)
    print(f"tune      {len(names)} arms, {len(TRIALS)} trials each, at "
          f"{' and '.join(map(str, study.settings.FRACTIONS))} %, seeds "
          f"{' '.join(map(str, asked.TUNE_SEEDS))}: {runs} runs and their pretraining, scored on "
          f"{len(study.splits.val)} validation cases; no test case is looked at", flush=True)
    if left := [job for job in jobs(study, names=names) if not job.make().done()]:
        tell_time(study, left, places[0], workers)
    if asked.PLAN:
        print("plan      nothing is trained; leave --plan out to go on")
        return 0
    if len(asked.TUNE_SEEDS) == 1:
        print("note      one seed: trials that differ by less than two such runs do are chosen by "
              "chance; --tune-seeds takes several")
    found: Json = {}
    for phase in filter(None, ([BASELINE], [arm for arm in names if arm != BASELINE])):
        one = replace(study, settings=Settings(**{**vars(study.settings), "TASKS": phase}))
        jobs_of = partial(jobs, names=phase)
        check_ranks(one)
        with starting(study.folder):
            renew(jobs_of(one))
            mend(jobs_of(one))
            check_stale(jobs_of(one), rerun=asked.RERUN)
        if len(phase) < len(names):
            print(f"phase     {1 if phase == [BASELINE] else 2} of 2: {', '.join(phase)}; the "
                  "progress below is the phase's", flush=True)
        failures = work_off(one, jobs_of, places, workers)
        if failures or not all(job.make().done() for job in jobs_of(one)):
            print("\n".join([*(f"failed: {line}" for line in failures), "not all trials are done: "
                             "nothing is chosen; the same command goes on"]), file=sys.stderr)
            return 1
        found |= {arm: result(one, arm) for arm in phase}
        study = replace(study, rates={arm: Rates(**said["chosen"]) for arm, said in found.items()})
    keep(study, found)
    return 0


def renew(all_of: Sequence[Job]) -> None:
    """Set aside what was trained for earlier trials at rates that are no longer the baseline's.

    An oracle is trained as the baseline is: other seeds may have chosen it another rate.
    """
    check_stale([job for job in all_of if all(
        change.startswith(OF_RATES) for change in job.make().changes())], rerun=True)


def fractions(settings: Settings) -> list[int]:
    """The smallest and the middle fraction, at which the rates are chosen."""
    given = sorted(settings.FRACTIONS)
    return sorted({given[0], given[len(given) // 2]})


def trials(study: Study, arm: str) -> list[Rates]:
    """What is tried for an arm; InputError if the epochs are too few to tell trials apart."""
    s = study.settings
    if arm in arms.FROM_SCRATCH:
        return [Rates(_times(s.FINETUNE_LR, rate), 1.0, 0) for rate in RATES]
    found = [Rates(_times(s.FINETUNE_LR, rate), float(factor), round(frozen * s.FINETUNE_EPOCHS))
             for rate, factor, frozen in TRIALS]
    if len({*found}) < len(found):
        raise InputError(f"FINETUNE_EPOCHS = {s.FINETUNE_EPOCHS}: too few for --tune, which "
                         "freezes starts for a share of them; give at least 2")
    return found


def _times(lr: float, rate: float) -> float:
    """A product in three digits: it names folders."""
    return float(f"{lr * rate:.3g}")


def jobs(study: Study, *, names: Sequence[str]) -> list[Job]:
    """The trials of some arms, and the pretraining that they need."""
    return in_order([*pretrainings(study), *(
        finetuning(study, partial(study.trial_run, arm, fraction, seed, trial), arm, fraction, seed)
        for fraction in study.settings.FRACTIONS for arm in names
        for seed in study.settings.SEEDS for trial in trials(study, arm))])


def result(study: Study, arm: str) -> Json:
    """The trials of an arm with their scores at each fraction, and the best in the mean of these.

    Of the oracle also the share of its own score that the best keeps at the smallest fraction.
    """
    tried = [{**vars(trial), "scores": [
        mean(_score(study, arm, fraction, seed, trial) for seed in study.settings.SEEDS)
        for fraction in study.settings.FRACTIONS]} for trial in trials(study, arm)]
    best = max(tried, key=lambda one: mean(one["scores"]))  # the first of equals
    kept = {}
    if arms.parts(arm) == [ORACLE]:
        own = mean(next(iter(study.pretrain_run(arm, seed).scores()["score"].values()))
                   for seed in study.settings.SEEDS)
        kept = {"own": own, "kept": best["scores"][0] / own if own > 0 else 0.0,
                "least": KEPT}
    return {"chosen": {name: value for name, value in best.items() if name != "scores"},
            "trials": tried, **kept}


def _score(study: Study, arm: str, fraction: int, seed: int, trial: Rates) -> float:
    """A trial's headline on validation, of the weights that were chosen there as in any run."""
    scores = study.trial_run(arm, fraction, seed, trial).scores()
    return float(scores["val"][scores["metric"]] or 0.0)


def keep(study: Study, found: Json) -> None:
    """Write the choice into plan.json, beside other arms' of the same trials, and say it."""
    s = study.settings
    made = plain({"of": study.made_with, "fractions": s.FRACTIONS, "seeds": s.SEEDS})
    with starting(study.folder):
        plan = records.read_plan(study.folder)
        before = plan.get("rates", {})
        same = {} if differences({name: before.get(name) for name in made}, made) else {
            **before["arms"]}
        write_json(study.folder / "plan.json", {**plan, "rates": {
            **made, "arms": {**same, **found}, "commit": records.commit(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}})
    for arm, said in found.items():
        scores = next(one["scores"] for one in said["trials"]
                      if said["chosen"].items() <= one.items())
        shown = ", ".join(f"{score:.3f} at {fraction} %"
                          for score, fraction in zip(scores, s.FRACTIONS, strict=True))
        print(f"chosen    {rates.described({arm: Rates(**said['chosen'])})}: "
              f"{study.measure().label} on validation {shown}")
    rate = found.get(BASELINE, {}).get("chosen", {}).get("lr")
    if rate in (end := [_times(s.FINETUNE_LR, RATES[0]), _times(s.FINETUNE_LR, RATES[-1])]):
        print(f"note      {rate:g} is the {'least' if rate == end[0] else 'highest'} rate that the "
              "baseline tried: another FINETUNE_LR may be better")
    for arm, said in found.items():
        if "kept" in said:
            print(f"check     {arm} keeps {100 * said['kept']:.0f} % of its own "
                  f"{said['own']:.3f} at {s.FRACTIONS[0]} %" + (
                      "" if said["kept"] >= KEPT else f", under {100 * KEPT:.0f} %: with this "
                      "recipe the study can show little there; try more FINETUNE_EPOCHS"))
    print(f"written   {study.folder / 'plan.json'}; give the same command without --tune to go on")
