"""Mutations of the protocol: who is seen when, the loop, the runs, their starts and records."""

TABLE = {
    "test_arms.py::test_a_joint_loss_is_the_mean_of_losses_in_units_of_a_guess": [
        ("joint: losses in units of a guess", "task.loss(*pair) / task.guess", "task.loss(*pair)"),
    ],
    "test_arms.py::test_an_encoder_that_does_not_fit_is_named_key_by_key": [
        ("an encoder from elsewhere has to fit",
         '    if found:\n        raise InputError(f"{source}: its',
         '    if False:\n        raise InputError(f"{source}: its'),
        ("an encoder from elsewhere stays the same",
         "    if checkpoint.weights_digest(state) != digest:", "    if False:"),
    ],
    "test_heldout.py::test_an_encoder_from_elsewhere_that_has_seen_held_out_cases_is_refused": [
        ("an encoder from elsewhere has seen no test case",
         '(test, learnt_from | chosen_on, "test")', '(test, learnt_from, "test")'),
    ],
    "test_identities.py::test_classes_channels_precision_and_version_are_in": [
        ("identity: classes", '"classes": self.classes, "splits"', '"splits"'),
        ("identity: precision",
         'return {"precision": self.precision, "numbers"', 'return {"numbers"'),
    ],
    "test_identities.py::test_images_and_labels_change_the_runs_that_they_reach": [
        ("identity: the pool's images", '"pool images": self.cache.arrays(self.pool),', ""),
    ],
    "test_identities.py::test_constants_change_the_runs_that_they_reach": [
        ("identity: warm-up", '{"warmup": warmup_epochs(self.settings),\n', '{"warmup": 0,\n'),
        ("identity: settings of finetuning",
         '"settings": self.settings.of_stage("finetune"),', '"settings": {},'),
        ("identity: pretraining has no constant of finetuning",
         '{"pretrain": FINETUNE, "finetune": PRETRAIN}[stage]',
         '{"pretrain": PRETRAIN, "finetune": PRETRAIN}[stage]'),
    ],
    "test_loop.py::test_every_epoch_draws_other_batches_and_every_case_comes": [
        ("every epoch draws other batches",
         'generator(recipe.seed, f"{task.name} training", epoch)',
         'generator(recipe.seed, f"{task.name} training", 1)'),
        ("batches are full", "yield batch + order[:size - len(batch)]", "yield batch"),
        ("every pass has its own order",
         "order = [rows[i] for i in torch.randperm(len(rows), generator=rng).tolist()]",
         "order = list(rows)"),
        ("evaluation without augmentation",
         "task.prepare(batch, rng, training=False)\n                with",
         "task.prepare(batch, rng, training=True)\n                with"),
    ],
    "test_loop.py::test_another_seed_draws_other_batches_and_the_same_the_same": [
        ("every seed draws other batches", 'generator(recipe.seed, f"{task.name} training", epoch)',
         'generator(0, f"{task.name} training", epoch)'),
    ],
    "test_loop.py::test_a_run_goes_on_from_its_last_checkpoint_bit_for_bit": [
        ("dropout is reseeded every epoch",
         'torch.manual_seed(_number(recipe.seed, task.name, "dropout", epoch, *parallel.number()))',
         "pass"),
        ("evaluation with the same views every time",
         'rng = generator(recipe.seed, f"{task.name} validation")',
         "rng = torch.Generator().manual_seed(torch.seed() % 2**31)"),
        ("resume: the model", '            model.load_state_dict(saved["model"])\n', ""),
        ("resume: the optimiser",
         '            optimiser.load_state_dict(saved["optimiser"])\n', ""),
        ("resume: the state",
         'state = State(**saved["state"])', 'state = State(epoch=saved["state"]["epoch"])'),
        ("resume: after the last epoch, not at it", "range(state.epoch + 1, recipe.epochs + 1)",
         "range(max(1, state.epoch), recipe.epochs + 1)"),
        ("resume: logs are cut back", "        run.cut_log(name, state.epoch)\n", "        pass\n"),
    ],
    "test_loop.py::test_dropout_is_another_in_every_epoch_and_for_every_seed": [
        ("dropout is another one in every epoch",
         '"dropout", epoch, *parallel.number()))', '"dropout", *parallel.number()))'),
    ],
    "test_loop.py::test_the_weights_kept_are_those_of_the_best_smoothed_validation": [
        ("the best is the highest", "if full and smoothed > state.best:",
         "if full and smoothed < state.best or state.best_weights is None:"),
        ("the first of equal ones is kept",
         "if full and smoothed > state.best:", "if full and smoothed >= state.best:"),
        ("full windows only",
         "full = len(recent) == recipe.smoothing or step", "full = True or step"),
        ("validations are averaged",
         "smoothed = sum(recent) / len(recent)", "smoothed = recent[-1]"),
        ("best weights are a copy",
         "return {name: tensor.detach().clone() for name, tensor in module",
         "return {name: tensor.detach() for name, tensor in module"),
        ("evaluation in evaluation mode", "    model.eval()\n    rng", "    rng"),
    ],
    "test_loop.py::test_a_task_without_a_figure_of_its_own_is_chosen_by_the_lowest_loss": [
        ("losses are better when lower",
         'monitored = -figures["loss"] if', 'monitored = figures["loss"] if'),
    ],
    "test_loop.py::test_validations_are_evenly_spread_and_see_the_validation_cases": [
        ("validations are evenly spread",
         "return step * count // total > (step - 1) * count // total",
         "return step % max(1, total // count) == 0"),
    ],
    "test_loop.py::test_training_goes_on_in_training_mode_after_a_validation": [
        ("training mode after a validation",
         "recipe, state, epoch)\n            _train_mode(model, frozen=frozen)",
         "recipe, state, epoch)"),
    ],
    "test_loop.py::test_warm_up_freezes_the_encoder_for_its_epochs_and_not_longer": [
        ("a frozen encoder gets no gradient",
         "encoder.requires_grad_(not frozen)", "encoder.requires_grad_(True)"),
        ("a frozen encoder's BatchNorm is in evaluation",
         "encoder.train(not frozen)", "encoder.train(True)"),
        ("warm-up ends", "frozen = epoch <= recipe.warmup\n", "frozen = recipe.warmup > 0\n"),
        ("warm-up off by one",
         "frozen = epoch <= recipe.warmup\n", "frozen = epoch < recipe.warmup\n"),
    ],
    "test_optimiser.py::test_the_optimiser_is_fresh_where_the_encoder_starts_and_only_there": [
        ("a fresh optimiser after the warm-up",
         "optimiser = _optimiser(model, recipe)  # fresh", "pass  # fresh"),
        ("Adam's eps", "ADAM_EPS = 1e-7 ", "ADAM_EPS = 1e-8 "),
    ],
    "test_optimiser.py::test_the_encoder_has_its_own_rate": [
        ("the encoder has its own rate",
         '"lr": recipe.lr * recipe.start_lr_factor}', '"lr": recipe.lr}'),
    ],
    "test_optimiser.py::test_the_gradients_global_norm_is_clipped": [
        ("gradients are clipped",
         "nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)", "pass"),
    ],
    "test_optimiser.py::test_every_step_has_the_gradient_of_its_own_batch": [
        ("gradients do not add up", "optimiser.zero_grad(set_to_none=True)", "pass"),
        ("labels are those of the images",
         "self.labels[row] for row in rows]", "self.labels[row] for row in sorted(rows)]"),
    ],
    "test_loop.py::test_patience_counts_validations_without_a_better_one": [
        ("patience is counted from the best",
         "counted_from = max(state.best_at, math.ceil(recipe.patience_from / recipe.steps))",
         "counted_from = math.ceil(recipe.patience_from / recipe.steps)"),
        ("patience off by one",
         "- counted_from >= recipe.patience", "- counted_from > recipe.patience"),
    ],
    "test_loop.py::test_evaluation_is_the_same_every_time_and_changes_nothing": [
        ("all draws are made",
         "        for _ in range(recipe.draws):\n", "        for _ in range(1):\n"),
    ],
    "test_loop.py::test_the_loss_is_the_mean_over_cases_although_the_batches_are_uneven": [
        ("loss is a mean over cases", "total += task.loss(outputs, targets).double() * len(chunk)",
         "total += task.loss(outputs, targets).double() * len(rows) / math.ceil(len(rows) / "
         "recipe.batch_size)"),
    ],
    "test_loop.py::test_every_score_is_that_of_its_own_case_in_the_order_asked_for": [
        ("scores are in the order of the rows",
         "torch.cat(values).cpu()", "torch.cat(values[::-1]).cpu()"),
    ],
    "test_protocol.py::test_a_non_finite_loss_names_epoch_and_step": [
        ("a loss that is not finite ends the run",
         "bad = (~torch.isfinite(losses)).nonzero()", "bad = torch.isinf(losses).nonzero()"),
    ],
    "test_protocol.py::test_of_a_checkpoint_damaged_in_part_nothing_is_kept": [
        ("a damaged checkpoint starts anew", "            model.load_state_dict(initial)\n", ""),
    ],
    "test_protocol.py::test_only_one_process_holds_a_run_and_old_runs_are_kept": [
        ("one process holds a run",
         "        except Timeout:\n            yield False\n            return",
         "        except Timeout:\n            yield True\n            return"),
    ],
    "test_records.py::test_a_torn_line_of_a_log_is_cut_off": [
        ("resume: a torn line is cut off",
         'except (json.JSONDecodeError, KeyError, TypeError):\n        return float("inf")',
         "except (json.JSONDecodeError, KeyError, TypeError):\n        return 0"),
    ],
    "test_records.py::test_a_run_is_done_when_its_scores_are_those_of_its_identity": [
        ("a changed run is not done",
         'return (self.folder / "scores.json").exists() and not self.changes()',
         'return (self.folder / "scores.json").exists()'),
    ],
    "test_records.py::test_what_is_set_aside_never_overwrites_what_was": [
        ("nothing is overwritten when set aside",
         ".exists():\n        number += 1\n    shutil.move",
         ".exists() and number < 1:\n        number += 1\n    shutil.move"),
    ],
    "test_records.py::test_the_frozen_phase_is_a_share_of_the_epochs_or_what_is_given": [
        ("warm-up is a share of the epochs",
         "return round(settings.WARMUP_SHARE * settings.FINETUNE_EPOCHS)", "return 0"),
    ],
    "test_sharing.py::test_the_longest_come_first_and_pretraining_before_finetuning": [
        ("pretraining before finetuning", "key=lambda job: (job.finetunes, -job.work)",
         "key=lambda job: (-job.work, job.finetunes)"),
    ],
    "test_statistics.py::test_the_encoder_leaves_with_the_statistics_of_whole_images": [
        ("statistics are reset", "        layer.reset_running_stats()\n", ""),
        ("statistics are taken without dropout", "    encoder.eval()\n    for layer in batch_norms",
         "    encoder.train()\n    for layer in batch_norms"),
        ("statistics are those of the pool", "rows = cases.rows(study.pool)\n    order",
         "rows = cases.rows(study.splits.val)\n    order"),
    ],
    "test_statistics.py::test_each_kind_of_view_has_the_running_statistics_of_its_own": [
        ("joint: every task has statistics of its own",
         "with own.within(self.encoder):", "if True:"),
        ("statistics are put back",
         "                    setattr(layer, name, value)", "                    pass"),
    ],
    "test_wiring.py::test_weights_are_chosen_on_the_validation_cases_and_on_no_other": [
        ("weights are chosen on validation, not on test",
         "rows = cases.rows(study.splits.val)\n    state",
         "rows = cases.rows(study.splits.test)\n    state"),
        ("finetuning is validated on validation, not on test",
         "train=labelled, val=val, run=run", "train=labelled, val=test, run=run"),
        ("rows are those of the ids", "place = {case: row for row, case in enumerate(self.ids)}",
         "place = {case: row for row, case in enumerate(sorted(self.ids, reverse=True))}"),
    ],
    "test_wiring.py::test_no_test_case_is_anywhere_but_in_the_last_evaluations_of_finetuning": [
        ("no test case in pretraining", "train=cases.rows(learnt_from), val=rows",
         "train=cases.rows([*learnt_from, study.splits.test[0]]), val=rows"),
    ],
    "test_wiring.py::test_pretraining_sees_the_training_cases_and_the_unlabelled_and_nobody_else": [
        ("unlabelled images are pretrained on",
         "pool = [*parts.train, *rest]", "pool = [*parts.train]"),
        ("training images are pretrained on", "pool = [*parts.train, *rest]", "pool = [*rest]"),
        ("the oracle learns from all training labels",
         "return study.downstream(), model, study.labelled(100, seed)",
         "return study.downstream(), model, study.labelled(50, seed)"),
    ],
    "test_wiring.py::test_every_cases_score_is_written_under_its_own_name": [
        ("every case's score is its own", "dict(zip(study.splits.test, downstream.cases(scores)",
         "dict(zip(study.splits.test[::-1], downstream.cases(scores)"),
    ],
    "test_wiring.py::test_a_labelled_subset_is_the_same_for_every_arm_and_another_for_every_seed": [
        ("every seed has its own labelled subset",
         "return splits.subset(self.splits.train, self.strata, contains,\n                         "
         "    fraction=fraction, seed=seed)",
         "return splits.subset(self.splits.train, self.strata, contains,\n                         "
         "    fraction=fraction, seed=0)"),
        ("the subset is that of the run's seed",
         "(study.labelled(fraction, seed),", "(study.labelled(fraction, 0),"),
    ],
    "test_wiring.py::test_the_smallest_subset_that_can_has_every_class_for_every_seed": [
        ("subsets see which classes a case has",
         'contains = {case: self.cache.facts[case]["contains"] for case in self.splits.train}',
         "contains = {case: [0] for case in self.splits.train}"),
    ],
    ("test_wiring.py::test_every_arm_has_the_same_recipe_and_steps_and_the_baseline_is_never_froze"
     "n"): [
        ("the baseline is never frozen",
         "warmup=0 if task == BASELINE else warmup_epochs(s)", "warmup=warmup_epochs(s)"),
        ("arms are warmed up", "warmup=0 if task == BASELINE else warmup_epochs(s)", "warmup=0"),
        ("the baseline has the plain rate",
         "start_lr_factor=1.0 if task == BASELINE else s.START_LR_FACTOR",
         "start_lr_factor=s.START_LR_FACTOR"),
        ("arms have the start's rate",
         "start_lr_factor=1.0 if task == BASELINE else s.START_LR_FACTOR", "start_lr_factor=1.0"),
        ("equal steps at every fraction",
         "cases = self.splits.train if s.EQUAL_STEPS else self.labelled(fraction, seed)",
         "cases = self.labelled(fraction, seed)"),
        ("gradients are clipped where asked", "clip=s.FINETUNE_CLIP or None", "clip=None"),
        ("finetuning's own rate", "lr=s.FINETUNE_LR, warmup", "lr=s.PRETEXT_LR, warmup"),
    ],
    "test_wiring.py::test_without_equal_steps_an_epoch_is_a_pass_over_the_subset": [
        ("without equal steps an epoch is a pass",
         "cases = self.splits.train if s.EQUAL_STEPS else self.labelled(fraction, seed)",
         "cases = self.splits.train"),
        ("pretraining: the task's own batch", "batch = s.PRETEXT_BATCH_SIZE or task.batch_size",
         "batch = s.PRETEXT_BATCH_SIZE or 4 * task.batch_size"),
    ],
    "test_wiring.py::test_pretext_tasks_are_trained_as_set_and_the_oracle_as_the_baseline": [
        ("pretraining: 5 validations are averaged", "SMOOTHING = 5 ", "SMOOTHING = 1 "),
        ("pretraining: steps cover the pool", "steps=math.ceil(len(self.pool) / batch)",
         "steps=math.ceil(len(self.splits.train) / batch)"),
        ("pretraining: patience as set", "patience=s.PRETEXT_PATIENCE, ", "patience=None, "),
        ("the oracle is trained by another seed",
         "seed=seed + ORACLE_SEED)\n        return self", "seed=seed)\n        return self"),
    ],
    "test_wiring.py::test_what_is_reported_is_that_of_the_best_weights_and_beside_it_of_the_last": [
        ("best weights are loaded before testing",
         "    model.load_state_dict(state.best_weights)\n    figures, scores",
         "    figures, scores"),
        ("last weights are scored before the best are loaded",
         "    last = {name: evaluate(model, downstream, cases, rows, recipe)[0]\n            for "
         'name, rows in (("test", test), ("val", val))}\n    assert state.best_weights is not '
         "None\n    model.load_state_dict(state.best_weights)\n",
         "    assert state.best_weights is not None\n    "
         "model.load_state_dict(state.best_weights)\n    last = {name: evaluate(model, downstream, "
         'cases, rows, recipe)[0]\n            for name, rows in (("test", test), ("val", '
         "val))}\n"),
        ("test figures are those of the test cases",
         "figures, scores = evaluate(model, downstream, cases, test, recipe)",
         "figures, scores = evaluate(model, downstream, cases, test[::-1], recipe)"),
    ],
    "test_wiring.py::test_every_arm_starts_from_the_encoder_of_its_own_task_and_seed": [
        ("pretraining leaves the best encoder",
         "    model.load_state_dict(state.best_weights)\n    figures, _", "    figures, _"),
        ("every seed starts from its own encoder",
         "checkpoint.load_encoder(encoder, self.pretrain_run(name, seed).encoder)",
         "checkpoint.load_encoder(encoder, self.pretrain_run(name, 0).encoder)"),
        ("every task starts from its own encoder",
         "checkpoint.load_encoder(encoder, self.pretrain_run(name, seed).encoder)",
         'checkpoint.load_encoder(encoder, self.pretrain_run("rotation", seed).encoder)'),
        ("encoders are loaded",
         "checkpoint.load_encoder(encoder, self.pretrain_run(name, seed).encoder)", "pass"),
        ("identity: the encoder's weights",
         "return {**pretrain.identity, **how, **weights}", "return {**pretrain.identity, **how}"),
    ],
    "test_wiring.py::test_a_handed_on_encoder_has_the_statistics_of_whole_images_of_the_pool": [
        ("BatchNorm statistics of whole images",
         "encoder = for_whole_images(study, model.encoder, cases, seed)",
         "encoder = model.encoder"),
    ],
    "test_wiring.py::test_encoder_and_decoder_start_alike_in_every_arm_of_a_seed": [
        ("the baseline starts at random", "        if task == BASELINE:\n            return\n",
         "        if task == BASELINE:\n            task = 'rotation'\n"),
        ("networks start alike in every arm of a seed",
         "torch.manual_seed(seed)  # encoder and decoder start alike",
         "torch.manual_seed(0)  # encoder and decoder start alike"),
        ("networks do not depend on what was drawn before",
         "    torch.manual_seed(seed)  # encoder and decoder start alike in every arm, before "
         "loading\n",
         ""),
    ],
    "test_wiring.py::test_a_shuffled_start_has_the_values_of_its_task_and_not_their_places": [
        ("a shuffled start is shuffled", "            shuffle(encoder, seed)\n", ""),
    ],
    "test_wiring.py::test_encoders_start_alike_in_every_pretext_task_of_a_seed": [
        ("pretext networks start by their seed",
         "    torch.manual_seed(seed)\n    encoder = study.make_encoder()\n    rows",
         "    torch.manual_seed(0)\n    encoder = study.make_encoder()\n    rows"),
    ],
    "test_wiring.py::test_a_pretext_tasks_figures_are_those_of_the_best_weights_on_validation": [
        ("a guess is recorded beside the score", '"chance": chance,\n', '"chance": {},\n'),
    ],
    "test_wiring.py::test_cases_that_change_sides_make_other_runs": [
        ("identity: splits", '"splits": records.digest(parts),', '"splits": "same",'),
    ],
    "test_wiring.py::test_an_encoder_that_is_not_the_one_trained_is_noticed": [
        ("encoder.pt is checked against its digest",
         '    return None if same else f"{run.encoder}: not',
         '    return None if True else f"{run.encoder}: not'),
    ],
    "test_wiring.py::test_a_run_waits_for_its_own_encoder": [
        ("a run waits for its encoder",
         "return self.needs is None or self.needs().done()", "return True"),
    ],
    "test_wiring.py::test_beside_an_encoder_stands_which_images_it_has_seen": [
        ("encoder.json says what was learnt from",
         "learnt_from=_pixels(study, learnt_from)", "learnt_from=[]"),
    ],
}
