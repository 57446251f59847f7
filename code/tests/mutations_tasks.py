"""Mutations of pretext tasks, augmentations, patches and networks."""

TABLE = {
    "test_augment.py::test_volumes_of_an_exemplar_are_changed_as_in_the_paper": [
        ("3D exemplar: zoom in 15 %",
         "augment.chance(count, 0.15, rng)", "augment.chance(count, 0.85, rng)"),
        ("3D exemplar: brightness of .125",
         "on, augment.uniform(count, -0.125, 0.125, rng)",
         "on, augment.uniform(count, -0.5, 0.5, rng)"),
        ("3D exemplar: brightness in half of the cases",
         "on = augment.chance(count, 0.5, rng)", "on = augment.chance(count, 1.0, rng)"),
    ],
    "test_augment.py::test_volumes_of_an_exemplar_are_flipped_and_rotated_in_every_plane": [
        ("3D exemplar: flips",
         "matrix = augment.flips(count, 3, rng)", "matrix = augment.identity(count, 3)"),
        ("3D exemplar: rotates in all planes",
         "for plane in combinations(range(3), 2):\n            matrix = "
         "augment.where(augment.chance(count, 0.5, rng), augment.rotations(\n                "
         "self.angles",
         "for plane in [(0, 1)]:\n            matrix = augment.where(augment.chance(count, 0.5, "
         "rng), augment.rotations(\n                self.angles"),
        ("3D exemplar: half by any angle",
         "augment.uniform(count, 0.0, 2 * math.pi, rng)", "augment.uniform(count, 0.0, 0.1, rng)"),
    ],
    "test_augment.py::test_photographs_of_an_exemplar_are_changed_as_in_the_paper": [
        ("2D exemplar: brightness of .2",
         "augment.uniform(count, -0.2, 0.2, rng),\n                                           "
         "augment.uniform(count, 0.8", "augment.uniform(count, -0.5, 0.5, rng),\n"
         "                                           augment.uniform(count, 0.8"),
        ("2D exemplar: flips",
         "augment.flips(count, 2, rng) @ augment.rotations(angles, (0, 1), 2)",
         "augment.rotations(angles, (0, 1), 2)"),
    ],
    "test_augment.py::test_patches_are_jittered_by_the_papers_numbers": [
        ("3D jitter of 3 at 128",
         "JITTER = (3, 128)", "JITTER = (6, 128)"),
        ("2D jitter of 8 at 224",
         "JITTER = (8, 224)", "JITTER = (4, 224)"),
    ],
    "test_augment.py::test_photographs_are_zoomed_both_ways_and_mirrored_only_if_asked": [
        ("2D finetuning zooms both ways", "augment.zooms(count, 2, 1 - zoom, 1 + zoom, rng)",
         "augment.zooms(count, 2, 1 - zoom, 1, rng)"),
        ("2D finetuning flips only where asked", '"none": ()}', '"none": (0, 1)}'),
    ],
    "test_augment.py::test_every_axis_is_scaled_by_its_own_factor_within_the_range": [
        ("augment: zoom above 1 enlarges",
         "return torch.diag_embed(1 / factors)", "return torch.diag_embed(factors)"),
        ("augment: each axis has its own factor",
         "factors = low + (high - low) * torch.rand(batch, dimensions, generator=rng)",
         "factors = low + (high - low) * torch.rand(batch, 1, generator=rng).repeat(1, "
         "dimensions)"),
    ],
    "test_augment.py::test_each_axis_is_mirrored_half_of_the_time": [
        ("augment: flips half of the time", "probability: float = 0.5", "probability: float = 0.1"),
    ],
    "test_augment.py::test_rotations_are_rotations_by_their_angle_in_their_plane": [
        ("augment: rotations keep lengths",
         "matrix[:, j, i] = angles.sin()", "matrix[:, j, i] = -angles.sin()"),
    ],
    "test_augment.py::test_only_the_cases_that_chance_has_are_changed": [
        ("augment: only where chance has it",
         "torch.where(condition[:, None, None], matrix, identity(",
         "torch.where(~condition[:, None, None], matrix, identity("),
    ],
    "test_augment.py::test_resampling_is_linear": [
        ("augment: linear resampling",
         "    return F.grid_sample(images, _places(images, matrix, offset), align_corners=False)",
         "    return F.grid_sample(images, _places(images, matrix, offset), mode='nearest', "
         "align_corners=False)"),
    ],
    "test_augment.py::test_contrast_is_about_each_cases_own_mean_and_brightness_is_added": [
        ("augment: contrast about each case's mean",
         "mean = images.flatten(1).mean(1).view(shape)", "mean = images.mean()"),
        ("augment: contrast keeps the mean",
         ".add_(mean * (1 - scale) + shift)", ".add_(mean * scale + shift)"),
    ],
    "test_cpc.py::test_sizes_are_those_of_the_paper": [
        ("patches: overlap stays inside",
         "self.cell = (size + min(0, jitter)) // n", "self.cell = size // n"),
    ],
    "test_cpc.py::test_negatives_are_other_columns_of_the_same_volume": [
        ("cpc: negative is another column",
         "shift = torch.randint(1, among, own.shape", "shift = torch.randint(0, among, own.shape"),
        ("cpc 3D: negative of the same volume",
         "mirror, across = True, False", "mirror, across = True, True"),
    ],
    "test_cpc.py::test_negatives_are_other_columns_of_any_image_of_the_batch": [
        ("cpc 2D: negative of any image",
         "mirror, across = False, True", "mirror, across = False, False"),
    ],
    "test_cpc.py::test_a_logit_is_the_mean_product_and_the_loss_pulls_the_own_pair_up": [
        ("cpc: own towards 1, other towards 0",
         "(F.softplus(-own).mean() + F.softplus(other).mean()) / 2",
         "(F.softplus(own).mean() + F.softplus(-other).mean()) / 2"),
    ],
    "test_cpc.py::test_sixteen_pairs_of_each_kind_and_an_untrained_loss_of_a_guess": [
        ("cpc: mean product", "(predicted * codes).mean((2, 3)), (predicted * other).mean((2, 3))",
         "(predicted * codes).sum((2, 3)), (predicted * other).sum((2, 3))"),
    ],
    "test_cpc.py::test_the_head_uses_every_row_it_should": [
        ("cpc: the last rows are predicted",
         "grid[:, -AHEAD:].transpose(1, 2)", "grid[:, 1:1 + AHEAD].transpose(1, 2)"),
        ("cpc: the row below the context",
         "grid[:, 1, :, None]], dim=2)", "grid[:, 0, :, None]], dim=2)"),
    ],
    "test_cpc.py::test_crops_lie_anywhere_in_their_patch_in_training_and_in_the_middle_else": [
        ("cpc: crop at random in training",
         "inside = (torch.randint(spare + 1, corners.shape, generator=rng) if training",
         "inside = (torch.full(corners.shape, spare // 2) if training"),
        ("cpc: crops reach every place", "torch.randint(spare + 1, corners.shape, generator=rng)",
         "torch.randint(max(1, spare), corners.shape, generator=rng)"),
    ],
    "test_cpc.py::test_the_head_is_a_gru_over_the_context_and_a_layer_for_each_row_below": [
        ("cpc: zeros beyond the grid", "first = F.pad(grid[:, 0], (0, 0, 0, 1))",
         "first = F.pad(grid[:, 0], (0, 0, 0, 1), value=1.0)"),
        ("cpc: a prediction for each row",
         "torch.stack([layer(state) for layer in self.predict], dim=1)",
         "torch.stack([self.predict[0](state) for layer in self.predict], dim=1)"),
    ],
    "test_cpc.py::test_context_is_mirrored_in_3d_and_empty_beyond_the_grid_in_2d": [
        ("cpc: mirrored at the border",
         "[n - 1 - abs(n - 1 - abs(p)) for p in place]", "[min(n - 1, max(0, p)) for p in place]"),
    ],
    "test_networks.py::test_the_big_head_is_the_official_codes": [
        ("big head: dropout of one half",
         "                   nn.Dropout(0.5)]", "                   nn.Dropout(0.2)]"),
        ("dense layers are glorot-uniform",
         "nn.init.xavier_uniform_(layer.weight)\n    nn.init.zeros_",
         "nn.init.xavier_normal_(layer.weight)\n    nn.init.zeros_"),
    ],
    "test_networks.py::test_the_unets_blocks_are_the_official_codes": [
        ("U-Net: BatchNorm's eps",
         "EPS = 1e-3       # BatchNorm; official", "EPS = 1e-5       # BatchNorm; official"),
        ("U-Net: BatchNorm's momentum", "\nMOMENTUM = 0.1 ", "\nMOMENTUM = 0.01 "),
    ],
    "test_networks.py::test_dropout_drops_half_keeps_the_mean_and_leaves_evaluation_alone": [
        ("U-Net: dropout keeps the mean", "copy_(coins.mul_(2).flatten()", "copy_(coins.flatten()"),
        ("U-Net: dropout drops half",
         "octets.bitwise_and(2**bit).ne_(0)", "octets.bitwise_and(3 * 2**bit).ne_(0)"),
    ],
    "test_networks.py::test_the_encoder_takes_the_largest_of_every_eight_after_every_block": [
        ("U-Net: max pool",
         "volumes = F.max_pool3d(maps[-1], 2)", "volumes = F.avg_pool3d(maps[-1], 2)"),
    ],
    "test_networks.py::test_the_decoder_repeats_the_code_and_reads_every_skip": [
        ("U-Net: the last pool is undone by repetition",
         'size=bottleneck.shape[2:], mode="nearest")',
         'size=bottleneck.shape[2:], mode="trilinear")'),
        ("U-Net: skips are used", "self.part(torch.cat([self.up(x), skip], dim=1))",
         "self.part(torch.cat([self.up(x), 0 * skip], dim=1))"),
    ],
    "test_networks.py::test_the_grading_head_is_the_official_codes": [
        ("DenseNet head: dropout", "DROPOUT = 0.5             # official code\nSTEP",
         "DROPOUT = 0.2             # official code\nSTEP"),
    ],
    "test_pretexts.py::test_a_volume_is_turned_as_its_target_says": [
        ("rotation: the target is the turn",
         "patches.turn(image, self.turns[target])", "patches.turn(image, self.turns[target - 1])"),
        ("chance is one in the classes", '{"accuracy": 1 / classes}', '{"accuracy": 0.5}'),
        ("turns: about the middle plane as about the others",
         "return torch.rot90(image, quarters, plane)", "return torch.rot90(image, -quarters, plane)"),
    ],
    "test_pretexts.py::test_rpl_shows_the_centre_first_and_the_place_it_asks_for_second": [
        ("rpl: the centre is skipped", "other = targets + (targets >= self.centre)  # skips",
         "other = targets + (targets > self.centre)  # skips"),
        ("rpl: the centre is the first view",
         "torch.stack([corners[case, self.centre], corners[case, other]], dim=1)",
         "torch.stack([corners[case, other], corners[case, self.centre]], dim=1)"),
    ],
    "test_pretexts.py::test_patches_move_in_training_each_by_itself_and_stay_in_their_cell": [
        ("rpl: patches are jittered in training alone",
         "corners = self.grid.corners(count, rng, training=training)  # (B, cells, d)",
         "corners = self.grid.corners(count, rng, training=False)  # (B, cells, d)"),
        ("jigsaw: patches are jittered in training",
         "corners = self.grid.corners(count, rng, training=training)  # (B, V, d)\n        order",
         "corners = self.grid.corners(count, rng, training=False)  # (B, V, d)\n        order"),
        ("patches: offset uniform in 0..jitter",
         "torch.randint(self.jitter + 1, shape", "torch.randint(max(1, self.jitter), shape"),
        ("patches: centred in evaluation",
         "torch.full(shape, self.jitter // 2)", "torch.full(shape, 0)"),
        ("patches: each has its own offset",
         "offset = torch.randint(self.jitter + 1, shape, generator=rng)",
         "offset = torch.randint(self.jitter + 1, shape[:1] + (1, 1), "
         "generator=rng).expand(shape)"),
    ],
    "test_pretexts.py::test_jigsaw_has_the_same_hundred_puzzles_for_every_seed": [
        ("jigsaw: the same puzzle for every seed", "rng = torch.Generator().manual_seed(0)\n",
         "rng = torch.Generator().manual_seed(torch.initial_seed() % 2**31)\n"),
        ("permutations: far from all, not from the last",
         "nearest = torch.minimum(nearest, (candidates",
         "nearest = torch.maximum(nearest, (candidates"),
    ],
    "test_pretexts.py::test_an_exemplars_anchor_is_changed_and_its_negative_any_other_case": [
        ("exemplar: negative is another case",
         "shift = torch.randint(1, count, (count,)", "shift = torch.randint(0, count, (count,)"),
        ("exemplar: negative is any other case",
         "shift = torch.randint(1, count, (count,)", "shift = torch.randint(1, 2, (count,)"),
        ("exemplar: positive is the original",
         "views = torch.stack([self.augment(batch.images, rng), batch.images], dim=1)",
         "views = torch.stack([self.augment(batch.images, rng)] * 2, dim=1)"),
        ("exemplar: anchor is augmented",
         "views = torch.stack([self.augment(batch.images, rng), batch.images], dim=1)",
         "views = torch.stack([batch.images, batch.images], dim=1)"),
    ],
    "test_pretexts.py::test_the_triplet_loss_by_hand": [
        ("exemplar: the difference of codes", "between = ((anchor[:, None] - positive) ** 2)",
         "between = ((anchor[:, None] + positive) ** 2)"),
        ("exemplar: margin 1", "margin = 1.0 ", "margin = 0.5 "),
        ("exemplar: mean distance, not the sum",
         "between = ((anchor[:, None] - positive) ** 2).mean(2)",
         "between = ((anchor[:, None] - positive) ** 2).sum(2)"),
        ("exemplar: no loss beyond the margin",
         "+ self.margin).clamp(min=0).mean()", "+ self.margin).mean()"),
        ("exemplar: near minus far", "(near - self.negatives(near, far, targets) + self.margin)",
         "(self.negatives(near, far, targets) - near + self.margin)"),
    ],
    "test_pretexts.py::test_every_variant_is_scored_against_random_other_cases": [
        ("exemplar: every variant is scored against random others",
         "near < Exemplar.negatives(self, near, far, targets)",
         "near < self.negatives(near, far, targets)"),
    ],
    "test_pretexts.py::test_the_identity_is_no_puzzle_even_where_few_orders_exist": [
        ("permutations: no identity", "nearest = (candidates != torch.arange(length)).sum(1)",
         "nearest = torch.full((pool,), length)"),
    ],
    "test_pretexts.py::test_bytes_become_numbers_from_zero_to_one": [
        ("bytes become 0..1 (stack)", "return values.div_(255) if stored.dtype == torch.uint8",
         "return values.div_(256) if stored.dtype == torch.uint8"),
    ],
    "test_pretexts.py::test_the_head_gets_every_cases_views_in_their_order": [
        ("patches are encoded by one encoder in their order",
         "return torch.cat(parts, dim=1).unflatten(0, views.shape[:2])",
         "return torch.cat(parts, dim=1).unflatten(0, views.shape[1::-1]).transpose(0, 1)"),
    ],
    "test_science_2d.py::test_the_encoder_is_torchvisions_densenet": [
        ("DenseNet: average pooling",
         "F.adaptive_avg_pool2d(maps[-1], 1)", "F.adaptive_max_pool2d(maps[-1], 1)"),
    ],
    "test_science_3d.py::test_jigsaw_shuffles_by_the_permutation_it_asks_for": [
        ("jigsaw: the permutation, not its inverse", "order = self.permutations[targets]  # (B, V)",
         "order = self.permutations[targets].argsort(1)  # (B, V)"),
    ],
    ("test_science_3d.py::test_mined_negatives_are_the_nearest_and_the_nearest_beyond_the_origina"
     "l"): [
        ("exemplar_hard: the nearest",
         "return far.min(1).values\n", "return far.masked_fill(far.isinf(), 0).max(1).values\n"),
        ("exemplar_semihard: beyond the original",
         "far.masked_fill(far <= near[:, None]", "far.masked_fill(far > near[:, None]"),
    ],
    "test_new_tasks.py::test_each_task_has_its_own_batch_rate_steps_and_schedule": [
        ("a task's own steps", "most = s.PRETEXT_STEPS or task.steps", "most = s.PRETEXT_STEPS"),
        ("a task's own rate", "lr=s.PRETEXT_LR or task.lr", "lr=1e-4"),
        ("a task's own schedule", 'plan = task.schedule if s.PRETEXT_SCHEDULE == "own"',
         'plan = "constant" if s.PRETEXT_SCHEDULE == "own"'),
        ("no patience with a cosine", 'patience=s.PRETEXT_PATIENCE if plan == "constant" else None',
         "patience=s.PRETEXT_PATIENCE"),
        ("identity: what is a task's own", '**self._of_pretraining(seed, pool), "own": {', '**self._of_pretraining(seed, pool), "own": {} and {'),
    ],
    "test_new_tasks.py::test_constants_that_are_not_zero_override_a_tasks_own": [
        ("chance of the batch that is trained with", "self.settings.PRETEXT_BATCH_SIZE)\n        made",
         "0)\n        made"),
    ],
    "test_new_tasks.py::test_what_follows_a_step_is_done_after_every_step": [
        ("what follows a step", "        self.task.after_step(self.model)\n", ""),
    ],
    "test_new_tasks.py::test_the_encoder_is_handed_on_and_where_it_is_asked_for_the_decoder": [
        ("a decoder's last layer is new", 'name.split(".")[1] != LAST and name in wanted', "name in wanted"),
        ("the decoder is handed on where asked for", "        if decoder:\n            assert", "        if False:\n            assert"),
        ("the decoder is handed on nowhere else", "        if decoder:\n            assert", "        if True:\n            assert"),
        ("a shuffled decoder is shuffled", "shuffle([first, *rest], seed)", "shuffle([first], seed)"),
    ],
    "test_new_tasks.py::test_the_decoders_statistics_are_those_of_whole_images": [
        ("a decoder's statistics", "        seen = network\n", "        seen = network.encoder\n"),
    ],
    "test_new_tasks.py::test_with_the_decoder_it_too_is_frozen_first_and_has_the_starts_rate": [
        ("a decoder handed on is frozen first", "decoder=arms.hands_on_decoder(arm),\n", "decoder=False,\n"),
    ],
    "test_new_tasks.py::test_arms_of_one_task_share_its_pretraining": [
        ("identity: the decoder's weights", 'named = ["encoder", "decoder"] if "decoder" in how else ["encoder"]', 'named = ["encoder"]'),
    ],
    "test_optimiser.py::test_a_cosine_goes_from_the_rate_to_nearly_none_and_a_constant_stays": [
        ("a cosine ends at none", "(1 + math.cos(math.pi * share))", "(1 + math.cos(math.pi * share / 2))"),
        ("a constant stays", 'if recipe.schedule == "cosine" else 1.0', "if True else 1.0"),
        ("the schedule counts from the start", "self._set_rate(step - 1)", "self._set_rate(index)"),
    ],
}
