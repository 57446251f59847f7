"""Mutations of masked autoencoding, Models Genesis, VolumeFusion, SimCLR, VICReg, mean teacher."""

R, C = "test_reconstruction.py::test_", "test_contrast.py::test_"
S, E = "test_semi.py::test_", "test_elsewhere.py::test_"
P = "test_planned.py::test_"

TABLE = {
    R + "three_quarters_of_the_cubes_show_the_mean_and_they_alone_count": [
        ("mae: three quarters are hidden", "masked = 0.75  #", "masked = 0.5  #"),
        ("mae: cubes of an eighth of the side", "cells = 8      #", "cells = 4      #"),
        ("mae: hidden cubes show the mean", "torch.where(hidden, mean, images)[:, None]",
         "torch.where(hidden, 0 * mean, images)[:, None]"),
        ("mae: targets are standardised", "standard = (images - mean) / images.std(",
         "standard = (images - mean) / images.amax("),
        ("mae: the guess is the best constant", "guess = (standard * hidden).sum(over",
         "guess = (standard * ~hidden).sum(over"),
    ],
    R + "the_score_is_what_is_better_than_the_guess": [
        ("restored: errors are squared", '((said.float() - wanted) ** 2 * counted)',
         '((said.float() - wanted).abs() * counted)'),
        ("restored: where it counts alone, in the score", "** 2 * counted).flatten(1)",
         "** 2).flatten(1)"),
        ("restored: where it counts alone, in the loss", "- wanted) ** 2 * counted).sum(),",
         "- wanted) ** 2).sum(),"),
        ("restored: mean over what counts", "counted.sum()])\n",
         "counted.sum() * 0 + counted.numel()])\n"),
    ],
    R + "pictures_show_the_answer_in_the_units_of_the_image": [
        ("pictures: shown, answered, wanted", "[shown, back(answer), back(wanted)]",
         "[shown, back(wanted), back(answer)]"),
        ("pictures: the answer where it counts alone",
         "answer = torch.where(counted > 0, outputs[:, 0].float(), wanted)",
         "answer = outputs[:, 0].float()"),
        ("pictures: mae's answers are brought back", "lambda values: (values - x) * slope + y",
         "lambda values: values"),
    ],
    R + "in_training_views_are_mirrored_and_some_scaled_or_turned": [
        ("mae: a fifth is scaled", "augment.where(augment.chance(count, 0.2, rng), scaled)",
         "augment.where(augment.chance(count, 0.6, rng), scaled)"),
        ("mae: a fifth is turned", "turned = augment.chance(count, 0.2, rng)",
         "turned = augment.chance(count, 0.7, rng)"),
    ],
    R + "places_are_exchanged_within_small_windows": [
        ("genesis: windows of a tenth", "space[0] // 10 + 1)", "space[0] // 4 + 1)"),
        ("genesis: places stay in the image", "moved.permute(back)", "moved.permute(0, *order)"),
    ],
    R + "intensities_follow_a_monotone_curve_that_falls_half_of_the_time": [
        ("genesis: the curve is monotone", "[0.0, *values, 1.0]", "[0.0, values[0], 2.5, 1.0]"),
        ("genesis: half of the curves fall",
         "if float(torch.rand((), generator=rng)) < 0.5:\n        y = y[::-1]",
         "if float(torch.rand((), generator=rng)) < 0.1:\n        y = y[::-1]"),
    ],
    R + "boxes_are_painted_over_or_all_but_boxes": [
        ("genesis: outside is all but boxes", "covered = torch.full(image.shape[1:], outside)",
         "covered = torch.full(image.shape[1:], False)"),
        ("genesis: up to five boxes", "while number < 5 and", "while number < 50 and"),
    ],
    R + "genesis_asks_for_the_original_and_compares_with_leaving_it_as_it_is": [
        ("genesis: the original is wanted", "torch.stack([images, shown, torch.ones_like(shown)]",
         "torch.stack([shown, shown, torch.ones_like(shown)]"),
    ],
    R + "voxels_are_mixed_by_the_class_that_is_asked_for": [
        ("volumefusion: mixed by alpha", "(alpha * images + (1 - alpha) * images.roll(1, 0))",
         "(alpha * images + alpha * images.roll(1, 0))"),
        ("volumefusion: each case has its own boxes",
         "torch.stack([self._map(images.shape[2:], rng) for _ in range(count)])",
         "torch.stack([self._map(images.shape[2:], rng)] * count)"),
    ],
    R + "boxes_are_as_many_and_as_large_as_said": [
        ("boxes: anywhere in the volume", "* (whole - length + 1)).long()",
         "* (whole - length + 1) * 0.5).long()"),
    ],
    R + "its_score_is_the_mean_share_found_of_each_class_and_a_guess_gets_a_fifth": [
        ("volumefusion: balanced over classes",
         "float((table.diagonal()[known] / table.sum(1)[known]).mean())",
         "float(table.diagonal().sum() / table.sum())"),
    ],
    R + "its_loss_is_dice_and_cross_entropy": [
        ("volumefusion: cross-entropy too", "overlaps(outputs[:, 0], targets, cross_entropy=True)",
         "overlaps(outputs[:, 0], targets, cross_entropy=False)"),
    ],
    R + "sixty_percent_of_the_blocks_are_hidden_in_2d": [
        ("mae 2D: 60 % of blocks of 12 at 96 px", "masked, alone = 0.6, 1",
         "masked, alone = 0.75, 1"),
    ],
    R + "what_is_hidden_reaches_no_map_at_any_stage_and_the_encoder_is_left_as_it_was": [
        ("spark: the image is masked", "self.encoder.stages(images * seen)",
         "self.encoder.stages(images)"),
        ("spark: convolutions do not spread", "SPREADING = (nn.Conv2d, ", "SPREADING = ("),
        ("spark: norms do not fill", "layer.forward = partial(normalised, layer, seen=seen)",
         "layer.forward = partial(normalised, layer, seen=torch.ones_like(seen))"),
        ("spark: the encoder is left as it was", "            hook.remove()",
         "            hook.id"),
    ],
    R + "norms_are_over_the_places_that_can_be_seen": [
        ("spark: the mean of what can be seen", "mean = sums[:-1] / count\n    centred",
         "mean = values.mean(over)\n    centred"),
        ("spark: the variance of what can be seen", "(centred.square() * there).sum(over)",
         "centred.square().sum(over)"),
        ("spark: running statistics", "layer.running_mean.lerp_(mean.detach(), layer.momentum)",
         "layer.running_mean.lerp_(mean.detach(), 1.0)"),
    ],
    C + "crops_show_at_least_three_tenths_and_stay_within_the_image": [
        ("crops: a share of the volume", "least, 1.0, rng) ** (1 / dimensions)",
         "least, 1.0, rng)"),
        ("crops: within the image", "* (1 - side)[:, None]", "* (1.2 - side)[:, None]"),
    ],
    C + "a_crop_is_the_part_of_the_image_it_says": [
        ("crops: moved", "torch.cat([matrix, offset[:, :, None]], dim=2)",
         "torch.cat([matrix, 0 * offset[:, :, None]], dim=2)"),
    ],
    C + "views_are_two_crops_of_each_case_drawn_apart": [
        ("two crops: drawn apart",
         "[self.changed(batch.images, rng) for _ in range(2)]",
         "[self.changed(batch.images, rng)] * 2"),
    ],
    C + "nt_xent_is_that_of_the_paper": [
        ("simclr: temperature .2", "temperature = 0.2", "temperature = 0.5"),
        ("simclr: not itself", 'masked_fill(same, float("-inf"))', "masked_fill(same, 0.0)"),
        ("simclr: the partner is the other crop", "device=device).roll(cases)",
         "device=device).roll(1)"),
    ],
    C + "vicreg_is_that_of_the_paper": [
        ("vicreg: 25, 25, 1", "weights = (25.0, 25.0, 1.0)", "weights = (25.0, 25.0, 5.0)"),
        ("vicreg: the diagonal is left out", "between.diagonal().pow(2).sum()", "0.0"),
        ("vicreg: variance as a hinge", "F.relu(1 - deviation)", "(1 - deviation).abs()"),
    ],
    C + "a_guess_finds_the_partner_as_often_as_said": [
        ("two crops: a guess among 2 B - 1", "1 / (2 * self.batch_size - 1)",
         "1 / (2 * self.batch_size)"),
        ("two crops: chance is that of what was compared", 'return {"accuracy": figures["guess"]}',
         "return self.chance"),
        ("two crops: as many as were there", "1 / (len(near) - 1)", "1 / 15"),
    ],
    C + "spread_and_rank_tell_codes_that_are_one_or_lie_on_a_line": [
        ("collapse: constant codes", 'if figures["spread"] < CONSTANT or', "if"),
        ("collapse: codes on a line", 'if figures["spread"] < CONSTANT or on_a_line:',
         'if figures["spread"] < CONSTANT:'),
        ("collapse: a few codes have no rank", 'figures["codes"] >= ENOUGH and', ""),
        ("spread: 1 where isotropic", "* np.sqrt(codes.shape[1])", "* 1.0"),
    ],
    C + "effective_rank_is_the_exponential_of_the_entropy": [
        ("rank: of centred codes", "np.linalg.svd(codes - codes.mean(0)",
         "np.linalg.svd(codes + 1.0"),
    ],
    C + "a_run_whose_codes_have_collapsed_stops_with_a_line": [
        ("collapse: stops the run", "and (said := task.collapsed(figures)):",
         "and (said := task.collapsed(figures)) and False:"),
        ("collapse: not before a tenth of the steps",
         "if step * 10 >= recipe.epochs * recipe.steps and", "if"),
    ],
    "test_new_tasks.py::test_what_a_reconstruction_answers_on_held_out_images_is_kept_and_drawn": [
        ("answers: of validation cases", "batch = cases.batch(val[:SHOWN]",
         "batch = cases.batch([*range(SHOWN)]"),
        ("answers: drawn in place of views", "if answers := _answers(study, name):", "if False:"),
    ],
    S + "its_labelled_batches_are_the_baselines_and_the_others_come_from_the_pool": [
        ("mean teacher: chance of its own", "        seen = self.views(self.cases",
         "        self.drawn = rng\n        seen = self.views(self.cases"),
        ("mean teacher: from the pool", "batches(self.unlabelled, self.recipe", "batches(self.val, self.recipe"),
    ],
    S + "the_teacher_is_the_moving_average_of_the_student": [
        ("mean teacher: at most .99", "DECAY = 0.99 ", "DECAY = 0.9 "),
        ("mean teacher: first the plain mean", "min(1 - 1 / (self.done + 1), DECAY)", "DECAY"),
    ],
    S + "they_have_to_agree_more_and_more_and_that_moves_the_student": [
        ("mean teacher: rises over three tenths", "RAMP = 0.3 ", "RAMP = 0.9 "),
        ("mean teacher: agreement counts", "return self.weight() * disagreement(self.downstream",
         "return 0 * disagreement(self.downstream"),
    ],
    S + "an_interrupted_run_goes_on_bit_for_bit_teacher_and_all": [
        ("mean teacher: kept in the checkpoint", 'return {"teacher": self.teacher}', "return {}"),
    ],
    S + "a_damaged_checkpoint_leaves_the_teacher_new_too": [
        ("mean teacher: new after a damaged checkpoint", "part.load_state_dict(more[name])",
         "pass"),
    ],
    S + "nothing_can_be_joined_to_it": [
        ("mean teacher: stands alone", "if part in FROM_SCRATCH]:", "if part == BASELINE]:"),
    ],
    S + "pairs_show_the_same_and_differ": [
        ("mean teacher: noise of .05", "NOISE = 0.05 ", "NOISE = 0.2 "),
        ("mean teacher: two augmentations",
         "return self.augment(batch.images, rng), self.augment(batch.images, rng)",
         "return (self.augment(batch.images, rng),) * 2"),
    ],
    S + "the_command_trains_and_tests_student_and_teacher": [
        ("mean teacher: is trained as one", "if arm in arms.SEMI:\n        unlabelled",
         "if False:\n        unlabelled"),
        ("mean teacher: the pool is part of its identity", "if arm not in arms.SEMI:\n            return {}",
         "if True:\n            return {}"),
    ],
    E + "torchvisions_densenet_gives_equal_features": [
        ("elsewhere: what is left out is said", 'f"; left out: {few(left, 3)}" if left else "")',
         '"")'),
    ],
    E + "old_names_of_its_layers_are_todays": [
        ("elsewhere: old names", 'OLD.sub(r"\\1\\2", name[len(prefix):])', "name[len(prefix):]"),
        ("elsewhere: counters may lack", "found.get(name, counters.get(name))", "found.get(name)"),
    ],
    E + "whole_networks_and_what_wraps_them": [
        ("elsewhere: wrapped", 'WRAPPERS = ("model", "state_dict", ', 'WRAPPERS = ("model", '),
        ("elsewhere: behind prefixes", '"encoder.", "module.", "model.", "module.encoder.", "model.',
         '"encoder.", "module.", "model.", "model.'),
    ],
    E + "of_another_network_nothing_fits_in_one_line": [
        ("elsewhere: of nothing that fits", "if _fitting(found, own) == 0:", "if False:"),
        ("elsewhere: nothing is loaded half", "if wrong := faults(own, {", "if False and faults(own, {"),
    ],
    S + "fixmatch_learns_what_it_is_sure_of_from_strong_changes": [
        ("fixmatch: sure in every output", "torch.maximum(shares, 1 - shares).min(1)",
         "torch.maximum(shares, 1 - shares).max(1)"),
        ("fixmatch: .95", "CONFIDENT = 0.95 ", "CONFIDENT = 0.9 "),
        ("fixmatch: over all of the batch", "mean_of((losses * (sure >= CONFIDENT)).sum(), len(losses))",
         "mean_of((losses * (sure >= CONFIDENT)).sum(), int((sure >= CONFIDENT).sum()))"),
    ],
    S + "fixmatch_shows_the_labelled_and_both_changes_in_one_batch": [
        ("fixmatch: both changes", "return torch.cat([weak, strong])", "return torch.cat([strong])"),
    ],
    S + "strong_changes_relight_and_hide_a_box": [
        ("fixmatch: a box is hidden", "augment.boxed(strong, 1 / 4, 1 / 2, rng)", "strong"),
        ("fixmatch: re-lit", "augment.uniform(count, -0.3, 0.3, rng)",
         "augment.uniform(count, -0.01, 0.01, rng)"),
    ],
    S + "fixmatch_is_for_one_label_an_image": [
        ("fixmatch: not in 3D", "if name == FIXMATCH and decoder:", "if False:"),
    ],
    E + "weights_of_runs_say_what_they_have_seen_or_are_refused": [
        ("best.pt says what it has seen", "if arms.pretraining(arm) not in study.external:", "if False:"),
        ("best.pt: the pool too", "*([] if arm == arms.BASELINE else study.pool(seed))", "*[]"),
        ("weights of ours without a record are refused",
         'if not origin.exists() and (file.parent / "config.json").exists():', "if False:"),
        ("a rival's name is no encoder's", "named(settings, [*FROM_SCRATCH,", "named(settings, ["),
    ],
    P + "the_largest_step_of_any_arm_is_counted": [
        ("memory: of rivals too", "return max([finetuned * rival, *(", "return max([finetuned, *("),
        ("memory: of pretrainings too", "study.pretrain_recipe(task, s.SEEDS[0]).batch_size", "0"),
        ("cost: a mask is not encoded", "each[0, :task.alone or None].numel()", "each[0].numel()"),
    ],
    P + "a_spread_of_few_runs_is_not_on_file": [
        ("spreads: of enough runs", "- 1) < LEAST:", "- 1) < 0:"),
    ],
    "test_bench_studies.py::test_bench_screen_scores_on_validation_and_says_what_was_learnt": [
        ("benchmarks: workers find a script's functions", "return importlib.import_module(SCRIPT)",
         'made = importlib.import_module(SCRIPT)\n    sys.modules.pop(SCRIPT)\n    return made'),
        ("screening: a group's own flags reach its arms", "return [[*parts[0], *more] for more in",
         "return [[*parts[0], *more[:2]] for more in"),
    ],
    "test_semi.py::test_the_command_trains_and_tests_student_and_teacher[3d]": [
        ("tables: the teacher's own scores", 'run["teacher"]["test"][measure] or 0.0)',
         'run["test"][measure] or 0.0)'),
    ],
}
