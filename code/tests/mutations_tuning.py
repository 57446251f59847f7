"""Mutations of --tune: equal trials, validation alone, seeds apart, the choice and who takes it."""

CHOSEN = "test_tuning.py::test_every_arm_has_as_many_trials_and_the_best_in_the_mean_is_chosen"
TAKEN = "test_tuning.py::test_runs_take_the_choice_and_say_so"
REFUSED = "test_tuning.py::test_a_choice_that_does_not_hold_is_refused"
DONE = "test_tuning.py::test_what_is_done_is_not_done_again_and_arms_can_be_added"

TABLE = {
    "test_protocols.py::test_studies_of_other_splits_are_never_drawn_together": [
        ("protocols: studies share their splits",
         'return str(curves.runs[0]["identity"].get("splits")) if curves.runs else ""',
         'return ""'),
    ],
    "test_protocols.py::test_the_command_draws_both_where_both_are_there": [
        ("--dataset: under either protocol", "folder.name in (twin, twin + records.PAPER)]",
         "folder.name == dataset]"),
    ],
    "test_records.py::test_differences_are_named_by_their_place": [
        ("differences: part by part where one has nothing", "old, new = old or {}, new or {}",
         "return [f\"{name}: {old} -> {new}\"] if not old or not new else differences(old, new)"),
    ],
    CHOSEN: [
        ("tune: every arm has as many trials", "RATES = (1 / 10, 1 / 3, 1 / 2, 1, 2, 3)",
         "RATES = (1 / 10, 1 / 3, 1, 2, 3)"),
        ("tune: the best in the mean of the fractions", 'key=lambda one: mean(one["scores"]))',
         'key=lambda one: one["scores"][0])'),
        ("tune: at the middle fraction too", "{given[0], given[len(given) // 2]}", "{given[0]}"),
        ("tune: the baseline has no start", "Rates(_times(s.FINETUNE_LR, rate), 1.0, 0)",
         "Rates(_times(s.FINETUNE_LR, rate), 0.5, 0)"),
        ("tune: the mean over seeds", "for seed in study.settings.SEEDS)\n        for fraction",
         "for seed in study.settings.SEEDS[:1])\n        for fraction"),
    ],
    "test_tuning.py::test_trials_see_no_test_case_and_no_seed_of_the_study": [
        ("tune: seeds of its own", '"SEEDS": asked.TUNE_SEEDS, "FRACTIONS"',
         '"SEEDS": asked.SEEDS, "FRACTIONS"'),
        ("tune: scored on validation", 'last_and_best(fit, {"val": fit.val})',
         'last_and_best(fit, {"val": fit.cases.rows(study.part(run.identity["seed"]).test)})'),
    ],
    TAKEN: [
        ("rates: a run's own", "lr=own.lr, schedule=", "lr=s.FINETUNE_LR, schedule="),
        ("rates: its start's factor", "start_lr_factor=own.factor", "start_lr_factor=1.0"),
        ("rates: a shuffled start has its task's", 'arm.removesuffix(f"@{arms.SHUFFLED}")', "arm"),
        ("rates: part of a run's identity", '{"rates": vars(self.rates_of(arm))} if self.rates',
         "{} if self.rates"),
        ("rates: the oracle is trained at the baseline's",
         "{**self.made_with, **self._rated(BASELINE)} if", "{**self.made_with} if"),
        ("--no-tuned does without", "s.PAPER or not s.TUNED:", "s.PAPER:"),
        ("--paper has its own rates", "if s.TUNE or s.PAPER or", "if s.TUNE or"),
    ],
    "test_tuning.py::test_the_oracle_of_the_trials_is_trained_at_the_baselines_rate": [
        ("tune: the baseline first", "study = replace(study, rates={arm: Rates(",
         "study = replace(study, rates={} and {arm: Rates("),
    ],
    "test_tuning.py::test_it_is_said_how_much_the_oracle_keeps": [
        ("tune: which part of the work is going on is said", "if len(phase) < len(names):",
         "if False:"),
        ("tune: that one seed is noise is said", "if len(asked.TUNE_SEEDS) == 1:", "if False:"),
        ("tune: the oracle checks the grid", 'if said["kept"] >= KEPT', "if True"),
        ("tune: kept of its own score", '"kept": best["scores"][0] / own',
         '"kept": best["scores"][-1] / own'),
    ],
    DONE: [
        ("tune: other arms' choice is kept", '"arms": {**same, **found}', '"arms": found'),
        ("tune: of other trials nothing is kept", "same = {} if differences(",
         "same = {} if not before and differences("),
        ("rates: every arm has them", 'key(arm) not in recorded["arms"]]', "False]"),
    ],
    REFUSED: [
        ("rates: of the same settings", 'differences(recorded["of"], plain(made_with))', "[]"),
        ("rates: chosen on other seeds", '{*seeds} & {*recorded["seeds"]}', "set()"),
        ("rates: plan.json is read with care", '{*one["chosen"]} == {*Rates.__annotations__}',
         "True"),
    ],
    "test_tuning.py::test_a_trial_that_fails_leaves_nothing_chosen": [
        ("tune: all trials or no choice", "if failures or not all(job.make().done()", "if not all("
         "True"),
    ],
    "test_tuning.py::test_other_seeds_may_choose_another_rate_and_the_oracle_is_trained_anew": [
        ("tune: what was trained at another rate is set aside", "            renew(jobs_of(one))\n",
         ""),
        ("tune: nothing else is set aside unasked", "change.startswith(OF_RATES) for change",
         "True for change"),
    ],
    "test_tuning.py::test_an_edge_of_the_grid_and_an_unfinished_choice_are_said": [
        ("tune: an edge of the grid is said", "if rate in (end :=", "if rate not in (end :="),
        ("rates: an unfinished choice is said", 'if (study.folder / "tune").exists():', "if False:"),
    ],
    "test_tuning.py::test_too_few_epochs_to_tell_trials_apart": [
        ("tune: trials differ", "if len({*found}) < len(found):", "if False:"),
    ],
    "test_tuning.py::test_trials_share_no_seed_with_the_study": [
        ("tune: no seed of the study", "{*settings.TUNE_SEEDS} & {*settings.SEEDS}", "set()"),
        ("tune: not under --paper", "if settings.TUNE and settings.PAPER:", "if False:"),
        ("tune: no seed twice", '"POOL", "TUNE_SEEDS"):', '"POOL"):'),
    ],
    "test_tables.py::test_an_oracle_that_kept_little_when_its_rates_were_chosen_is_named": [
        ("reading: an oracle that kept little", 'if one.get("kept", 1.0) < one.get("least", 0.0)]',
         'if "kept" in one]'),
    ],
    "test_tables.py::test_chosen_rates_are_told_arm_by_arm": [
        ("table of rates: of runs that have them", 'return found if "rates" in', 'return found if "stage" in'),
        ("table of rates: worst to best", "max(one['scores'][i] for one in trials)",
         "max(one['scores'][0] for one in trials)"),
    ],
    "test_tables.py::test_an_arm_has_one_choice_and_every_arm_has_one": [
        ("curves: one choice an arm", "differences(rates.setdefault(run[\"task\"], own), own)",
         "[]"),
        ("curves: chosen for every arm", 'differences({"rates chosen": "rates" in first["identity"]}',
         'differences({"rates chosen": "rates" in run["identity"]}'),
    ],
}
