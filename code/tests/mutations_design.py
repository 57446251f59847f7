"""Mutations of a study's design: folds, draws, the primary comparison, what is held out."""

TABLE = {
    "test_design.py::test_with_equal_steps_no_fold_takes_fewer": [
        ("equal steps in every fold", "cases = (max(len(part.train) for part in self.splits.every())",
         "cases = (len(self.part(seed).train)"),
    ],
    "test_design.py::test_seeds_that_share_a_fold_draw_other_subsets_of_its_training_cases": [
        ("every seed has its own labelled subset",
         "contains, fraction=fraction, seed=seed + draw * DRAW_SEED)",
         "contains, fraction=fraction, seed=0)"),
    ],
    "test_design.py::test_without_equal_steps_an_epoch_is_a_pass_over_the_subset": [
        ("without equal steps an epoch is a pass", "self.splits.every()) if s.EQUAL_STEPS\n",
         "self.splits.every()) if True\n"),
        ("pretraining: the task's own batch", "self.batch_size = batch_size or self.batch_size",
         "self.batch_size = batch_size or 4 * self.batch_size"),
    ],
    "test_design.py::test_no_seed_pretrains_on_validation_or_on_its_own_test_fold": [
        ("no pool has the test fold", "pool = pool_of(self.part(seed), self.unlabelled)",
         "pool = [*pool_of(self.part(seed), self.unlabelled), *self.part(seed).test]"),
        ("no pool has validation", "pool = pool_of(self.part(seed), self.unlabelled)",
         "pool = [*pool_of(self.part(seed), self.unlabelled), *self.part(seed).val]"),
    ],
    "test_design.py::test_a_pretraining_depends_on_its_fold_and_within_one_on_its_seed_alone": [
        ("identity: the fold's pool", "self.part(seed).fold if pool == 100 else seed", "0 if pool == 100 else seed"),
    ],
    "test_design.py::test_a_run_that_would_learn_from_a_held_out_row_is_stopped": [
        ("rows are looked at before pretraining",
         "    check_rows(study, cases, seed, train=train, val=val)\n", ""),
        ("rows are looked at before finetuning",
         "    check_rows(study, cases, seed, train=train, val=chooses)\n", ""),
        ("rows are looked at before BatchNorm's statistics are taken",
         "    check_rows(study, cases, seed, train=chosen)\n", ""),
        ("rows: validation cases", '((train, test | chooses, "learnt from")', '((train, test, "learnt from")'),
        ("rows: test cases", '((train, test | chooses, "learnt from")', '((train, chooses, "learnt from")'),
        ("rows: chosen on a test case", ', (val, test, "chosen on")):', ", (val, set(), 'chosen on')):"),
    ],
    "test_design.py::test_an_encoder_that_has_seen_a_test_case_of_any_fold_in_use_is_refused": [
        ("an encoder from elsewhere is checked for all folds in use",
         "for part in map(splits.of, seeds)}", "for part in map(splits.of, seeds[:1])}"),
    ],
    "test_design.py::test_further_draws_are_made_at_one_fraction_and_for_every_arm": [
        ("draws: at one fraction", "return study.settings.DRAWS if fraction == drawn_at(study) else 1",
         "return study.settings.DRAWS"),
        ("draws: at the primary's fraction", "return named[1] if named else min(study.settings.FRACTIONS)",
         "return min(study.settings.FRACTIONS)"),
    ],
    "test_design.py::test_a_draw_has_its_own_labels_and_finetuning_and_the_seeds_fold_and_encoder": [
        ("draws have labels of their own", "fraction=fraction, seed=seed + draw * DRAW_SEED)",
         "fraction=fraction, seed=seed)"),
        ("draws have a finetuning of their own", "return Recipe(seed=seed + draw * DRAW_SEED,",
         "return Recipe(seed=seed,"),
    ],
    "test_design.py::test_a_draw_is_trained_on_its_labels_from_an_initialisation_of_its_own": [
        ("a draw is trained on its own labels",
         "labelled, val = study.labelled(fraction, seed, draw=draw),",
         "labelled, val = study.labelled(fraction, seed),"),
        ("a draw starts from weights of its own",
         "initialise(recipe.seed)  # encoder and decoder start alike",
         "initialise(seed)  # encoder and decoder start alike"),
    ],
    "test_design.py::test_folders_of_draws_lie_beside_the_seed_and_old_records_have_the_first": [
        ("records without a draw are of the first", 'draw, share = run.get("draw", 0), share_of', 'draw, share = run["draw"], share_of'),
    ],
    "test_design.py::test_the_primary_comparison_is_recorded_once_before_its_scores": [
        ("one primary comparison a data set", 
         'if (before["arm"], before["fraction"]) != named:', "if False:"),
        ("the recorded primary counts", 'recorded = records.read_plan(study.folder).get("primary")',
         "recorded = None"),
    ],
    "test_design.py::test_an_arm_with_test_scores_can_no_longer_be_primary": [
        ("primary: named before its scores", 'if any((study.folder / "finetune" / arm).rglob("scores.json")):',
         "if False:"),
    ],
    "test_design.py::test_a_command_records_its_primary_comparison_before_it_trains": [
        ("primary: recorded at the start", "        record_primary(study)\n", "        pass\n"),
    ],
    "test_design.py::test_only_a_comparison_that_is_made_can_be_primary": [
        ("primary: no control", "if arm == arms.BASELINE or arms.is_control(arm):", "if arm == arms.BASELINE:"),
    ],
    "test_settings.py::test_what_would_go_wrong_in_mid_grid_is_refused": [
        ("two folds never give an interval", "    if settings.FOLDS == 2:", "    if settings.FOLDS == 0:"),
    ],
    "test_planned.py::test_it_is_for_the_arms_that_are_compared_and_the_seeds_asked_for": [
        ("power: controls are no family", "family = [arm for arm in arms if not is_control(arm)]",
         "family = arms"),
        ("power: the primary comparison is not adjusted", "adjusted=1 if fraction == named else",
         "adjusted=1 if False else"),
        ("power: of the design", "known, Design(s.FOLDS, fraction),", "known, Design(1, fraction),"),
    ],
    "test_planned.py::test_finished_runs_of_the_data_set_tell_its_own_spreads": [
        ("power: own runs first", "known = _own_spreads(study) or power", "known = power"),
    ],
    "test_planned.py::test_the_plan_is_said_and_nothing_is_touched": [
        ("plan: days are no reason to stop", ' and s.DEVICE != "cpu" and not s.PLAN:',
         ' and s.DEVICE != "cpu":'),
    ],
    "test_planned.py::test_what_is_expected_is_recorded_until_the_first_test_score": [
        ("power: recorded before the first score",
         'if found and not any((study.folder / "finetune").rglob("scores.json")):', "if found:"),
    ],
    "test_planned.py::test_under_three_seeds_or_folds_nothing_can_be_shown_and_it_is_said": [
        ("power: seeds of one fold are one",
         "len({Design(s.FOLDS).block(seed) for seed in s.SEEDS})", "len(s.SEEDS)"),
    ],
    "test_planned.py::test_the_plan_is_said_and_nothing_is_touched ": [
        ("plan: refuses a primary that comes too late", "record_primary(study, keep=False)",
         "None"),
        ("plan: refuses other settings", "            check_stale(jobs, rerun=False)\n",
         "            pass\n"),
    ],
    "test_pool.py::test_parts_of_a_pool_are_nested_and_every_seed_has_its_own": [
        ("pool: parts are nested", 'seed=seed, purpose="pool")', 'seed=seed, purpose=f"pool {share}")'),
        ("pool: every seed has parts of its own", 'seed=seed, purpose="pool")', 'seed=0, purpose="pool")'),
        ("pool: parts are of all of it", "dict.fromkeys(pool), seed=seed", "dict.fromkeys(self.part(seed).train), seed=seed"),
        ("pool: as large as asked for", "    return round(count * share / 100)", "    return count * share // 100"),
    ],
    "test_pool.py::test_arms_that_learn_from_the_pool_are_made_from_parts_of_it_at_one_fraction": [
        ("pool: parts at one fraction", "(shares(study, arm) if fraction == drawn_at(study) else [100])",
         "shares(study, arm)"),
        ("pool: no parts for controls", "ours = study.pretrained_here(arm) and not arms.is_control(arm)",
         "ours = study.pretrained_here(arm)"),
        ("pool: no parts for encoders from elsewhere",
         "ours = study.pretrained_here(arm) and not arms.is_control(arm)", "ours = not arms.is_control(arm)"),
        ("pool: the whole comes first", "for pool in shares(study, arm)}, reverse=True)",
         "for pool in shares(study, arm)})"),
        ("pool: a pretraining is made for every arm that starts from it",
         "if arms.pretraining(arm) == name\n", "if arm == name\n"),
    ],
    "test_pool.py::test_a_part_of_the_pool_is_a_run_of_its_own_and_the_whole_is_what_it_was": [
        ("identity: the part's images", "self.cache.arrays(self.pool(seed, pool)),", "self.cache.arrays(self.pool(seed)),"),
        ("identity: a part is a seed's", "self.part(seed).fold if pool == 100 else seed", "self.part(seed).fold"),
        ("identity: the share", 'return {"pool": pool} if pool < 100 else {}', "return {}"),
        ("identity: nothing of the whole pool", 'return {"pool": pool} if pool < 100 else {}',
         'return {"pool": pool}'),
        ("identity: the start's share", "        pretrain = self.pretrain_run(name, seed, pool=pool)\n",
         "        pretrain = self.pretrain_run(name, seed)\n"),
        ("pool: folders of parts", 'if share < 100 else []),\n', "if False else []),\n"),
    ],
    "test_pool.py::test_a_part_of_the_pool_is_learnt_from_by_the_recipe_of_the_whole": [
        ("pool: the part is learnt from", "study.learnt_from(task, seed, pool=pool)",
         "study.learnt_from(task, seed)"),
        ("pool: statistics are the part's", "                                    pool=share_of(run.identity)), run)",
         "                                    ), run)"),
        ("pool: a part is gone through in full batches",
         "            yield batch + order[:size - len(batch)]", "            yield batch"),
    ],
    "test_pool.py::test_finetuning_starts_from_the_encoder_of_its_part_of_the_pool": [
        ("pool: the part's encoder is loaded", "load_start(study, model, arm, seed, cases, pool=share_of(run.identity))",
         "load_start(study, model, arm, seed, cases)"),
        ("pool: the encoder loaded is that of the identity", "        run = study.pretrain_run(name, seed, pool=pool)\n",
         "        run = study.pretrain_run(name, seed)\n"),
    ],
    "test_pool.py::test_records_say_from_which_part_of_the_pool_and_do_not_mix_them": [
        ("pool: parts are kept apart", "for run in of_share(runs, pool):", "for run in runs:"),
        ("pool: a record's share is its identity's", 'return int(run.get("identity", run).get("pool", 100))',
         'return int(run.get("pool", 100))'),
        ("pool: scores of finetuning say it", '("task", "fraction", "seed", "fold", "draw", "pool")\n',
         '("task", "fraction", "seed", "fold", "draw")\n'),
        ("pool: scores of pretraining say it", '**({"pool_share": run.identity["pool"]} if "pool"',
         '**({} if "pool"'),
    ],
    "test_pool.py::test_a_run_waits_for_the_encoder_of_its_part_of_the_pool": [
        ("pool: a run waits for its own encoder", "partial(study.pretrain_run, arm, seed, pool=pool)\n",
         "partial(study.pretrain_run, arm, seed)\n"),
    ],
    "test_pool.py::test_what_is_no_part_of_the_pool_is_refused": [
        ("pool: the whole is among them", "    if 100 not in settings.POOL:", "    if False:"),
        ("pool: a list like others", '"SEEDS", "POOL", "TUNE_SEEDS"):', '"SEEDS", "TUNE_SEEDS"):'),
    ],
    "test_pool.py::test_a_part_that_fills_no_batch_is_refused_before_anything_is_trained": [
        ("pool: a part fills a batch", "    check_pool(study)\n", ""),
        ("pool: the remedy is enough", "if part_of(whole, more) >= size),", "if part_of(whole, more) > size),"),
        ("pool: the smallest pool counts", "whole = min(len(study.pool(seed)) for seed",
         "whole = max(len(study.pool(seed)) for seed"),
    ],
    "test_pool.py::test_the_parts_are_said_beforehand": [
        ("pool: what is made of none is said", '"" if found else', '"" if True else'),
    ],
    "test_looks.py::test_a_look_before_all_seeds_are_done_is_said": [
        ("looks: a study on the way is said", "    left = {seed for seed in planned if any(seed not in",
         "    left = {seed for seed in [] if any(seed not in"),
        ("looks: the page says it too", '("baseline", "seeds", "last")', '("baseline", "last")'),
    ],
    "test_looks.py::test_seeds_that_were_added_after_scores_are_said": [
        ("looks: seeds that were added", "for one in asked[1:] if", "for one in asked[9:] if"),
    ],
    "test_looks.py::test_every_step_of_asking_is_kept_once": [
        ("looks: test scores at the time", '"scores_then": len(scores)}', '"scores_then": 0}'),
        ("looks: seeds edited by hand", "isinstance(n, int) for one in", "True for one in"),
    ],
    "test_looks.py::test_of_scores_from_before_seeds_were_kept_nobody_knows_what_was_asked_for": [
        ("looks: older seeds", "if asked or not scores else {}", "if True else {}"),
    ],
    "test_looks.py::test_what_is_refused_asks_for_no_seeds": [
        ("looks: once nothing is refused", "        record_primary(study)\n        mend",
         "        record_seeds(study)\n        mend"),
    ],
    "test_published.py::test_what_was_said_before_training_is_published_and_kept": [
        ("published: seeds asked for since", "plan = {**plan, \"seeds\": [*asked, *since]}",
         "pass"),
    ],
    "test_commands_3d.py::test_the_command_says_what_it_will_do": [
        ("few validation cases are said", "(val := len(study.splits.val)) < FEW_VALIDATION",
         "(val := len(study.splits.val)) < 0"),
    ],
    "test_progress.py::test_percentages_are_of_the_whole_study": [
        ("progress: earlier work counts", "0.0, sum(self.behind.values())", "0.0, 0.0"),
        ("progress: what is resumed counts once", "what -= self.behind.pop(run, 0.0)", "pass"),
    ],
    "test_grid.py::test_a_stop_and_the_next_start_say_the_same_share_of_the_whole_study": [
        ("progress: of all runs", "Progress(sum(job.work for job in jobs),",
         "Progress(sum(job.work for job in left),"),
        ("progress: a stop tells what is kept", "        goes_on = self._percent(kept)\n",
         "        goes_on = self._percent(self.made + self.skipped)\n"),
        ("progress: begun are those of these settings",
         'exists() and not run.done() and not run.changes()', "exists() and not run.done()"),
        ("start: begun runs are counted", "{f'{begun} begun, ' if begun else ''}", ""),
    ],
    "test_planned.py::test_fractions_of_the_same_cases_are_said_to_be_so": [
        ("plan: fractions of the same cases", "for same in alike.values() if len(same) > 1]",
         "for same in alike.values() if len(same) > 2]"),
    ],
    "test_planned.py::test_a_spread_of_other_images_is_called_a_guess": [
        ("plan: another data set's spread is a guess", '["study"] == study and one["dataset"] != dataset',
         '["study"] == study'),
    ],
    "test_planned.py::test_the_lines_name_both_gains_their_source_and_what_a_wanted_gain_takes": [
        ("plan: each gain says how often it is shown", "{one.half:.4f} in half; {one.most:.4f} in four of five",
         "{one.half:.4f}; {one.most:.4f}"),
    ],
    "test_planned.py::test_the_spreads_on_file_are_those_of_the_published_records": [
        ("spreads: a study in the folder comes first", "key=lambda name: (name[0] not in there, name)",
         "key=lambda name: name"),
    ],
}
