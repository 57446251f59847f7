"""Mutations of the finetuning recipe: ramp, loss, what is changed of volumes and of starts."""

TABLE = {
    "test_recipe.py::test_the_rate_rises_over_the_ramp_in_every_group": [
        ("ramp: linear", "factor *= (done + 1) / (recipe.ramp + 1)", "factor *= 0.5"),
        ("ramp: ends", "if done < recipe.ramp:", "if recipe.ramp:"),
    ],
    "test_recipe.py::test_cross_entropy_is_added_to_soft_dice": [
        ("cross-entropy: mean over voxels", "sums[0, classes] / sums[1, classes] if",
         "sums[0, classes] if"),
    ],
    "test_recipe.py::test_only_training_volumes_are_changed_and_their_labels_go_along": [
        ("3D: only training volumes are changed", "if training and self.augment is not None:",
         "if self.augment is not None:"),
    ],
    "test_recipe.py::test_labels_follow_the_volume_by_nearest_neighbour": [
        ("augment: labels by nearest neighbour", 'places, mode="nearest",', 'places, mode="bilinear",'),
    ],
    "test_recipe.py::test_volumes_are_turned_and_scaled_within_the_range": [
        ("augment: turned about each axis", "for axes in ((0, 1), (0, 2), (1, 2)):",
         "for axes in ((0, 1),):"),
        ("augment: scaled both ways", "augment.uniform(count, 1 - zoom, 1 + zoom, rng)",
         "augment.uniform(count, 1.0, 1 + zoom, rng)"),
    ],
    "test_recipe.py::test_a_share_of_the_volumes_is_turned_and_another_scaled": [
        ("augment: turned and scaled by coins of their own",
         "scaled, turned = augment.chance(count, share, rng), augment.chance(count, share, rng)",
         "scaled = turned = augment.chance(count, share, rng)"),
        ("augment: only a share is scaled", "torch.where(scaled, factors, 1)",
         "torch.where(turned | scaled, factors, 1)"),
    ],
    "test_recipe.py::test_light_is_changed_for_a_share_of_the_volumes_and_labels_stay": [
        ("augment: light of some", "torch.where(chance(batch, LIT, rng)",
         "torch.where(chance(batch, 1.0, rng)"),
    ],
    "test_recipe.py::test_noise_has_its_deviation_and_comes_from_the_generator_alone": [
        ("augment: noise of its own deviation", "generator=rng) * deviation\n",
         "generator=rng) * 0.1\n"),
    ],
    "test_recipe.py::test_photographs_are_mirrored_on_the_axes_asked_for": [
        ("2D: flips across and down", '"horizontal": (0,), "vertical": (1,)',
         '"horizontal": (1,), "vertical": (0,)'),
        ("2D: none is mirrored", "if axis not in axes]] = False", "if axis not in axes and axes]] = False"),
    ],
    "test_recipe.py::test_photographs_are_turned_and_relit_within_the_range": [
        ("2D: turned both ways",
         "augment.uniform(count, -degrees, degrees, rng))\n        matrix = augment.rotations(angles, (",
         "augment.uniform(count, 0.0, degrees, rng))\n        matrix = augment.rotations(angles, ("),
        ("2D: re-lit only if asked", "    if intensity:\n        images =",
         "    if True:\n        images ="),
    ],
    "test_recipe.py::test_every_dropout_layer_has_the_recipes_share": [
        ("dropout: that of the recipe", "module.p = recipe.dropout", "pass"),
        ("dropout: of all layers", "for module in model.modules():\n            if isinstance(module, nn.Drop",
         "for module in model.encoder.modules():\n            if isinstance(module, nn.Drop"),
    ],
    "test_recipe.py::test_norm_of_what_was_handed_on": [
        ("start: norm keeps its statistics", 'if self.recipe.start_norm == "eval":', "if False:"),
    ],
}
