"""Mutations that only a card shows: tensors of two places, waits, devices without their index."""

TESTS = "test_on_a_card.py::test_"
STEP = f"{TESTS}a_task_trains_on_a_card_without_a_wait_and_as_on_the_cpu"
WALK = f"{TESTS}the_command_trains_on_one_card_from_start_to_end"

ROWS = [
    ("card: what is sent is pinned", "        tensor = tensor.pin_memory()", "        pass",
     f"{STEP}[card-3d-rotation]"),
    ("card: what is sent is queued", "return tensor.to(device, non_blocking=True)",
     "return tensor.to(device)", f"{STEP}[card-3d-rotation]"),
    ("card: exemplar's diagonal is made there", 'device=between.device), float("inf"))',
     '), float("inf"))', f"{STEP}[card-3d-exemplar]"),
    ("card: grades are coded there", "torch.arange(self.labels, device=targets.device)",
     "torch.arange(self.labels)", f"{STEP}[card-2d-grading]"),
    ("card: the mean loss is summed there",
     "total = torch.zeros((), dtype=torch.float64, device=cases.device)",
     "total = torch.zeros((), dtype=torch.float64)", f"{STEP}[card-3d-rotation]"),
    ("card: losses stay there for an epoch",
     "losses = torch.zeros(recipe.steps, device=self.cases.device)",
     "losses = torch.zeros(recipe.steps)",
     f"{TESTS}the_waits_of_an_epoch_do_not_grow_with_its_steps"),
    ("card: a step does not ask for its loss", "        loss.backward()\n        if",
     "        loss.backward()\n        loss.item()\n        if", f"{STEP}[card-3d-rotation]"),
    ("card: rotation sends its targets", "return views[:, None], send(targets, batch.device)",
     "return views[:, None], targets", f"{STEP}[card-3d-rotation]"),
    ("card: cpc sends its negatives", "send(self._negatives(count, rng), batch.device)",
     "self._negatives(count, rng)", f"{STEP}[card-2d-cpc]"),
    ("card: an augmentation's matrices are queued", "send(affine, images.device)",
     "affine.to(images.device)", f"{STEP}[card-2d-exemplar]"),
    ("card: cpc's table of neighbours moves with the head",
     'self.register_buffer("around", around, persistent=False)', "self.around = around",
     f"{STEP}[card-2d-cpc]"),
    ("card: labels of the host are sent",
     "send(torch.stack([self.labels[row] for row in rows]), self.device)",
     "torch.stack([self.labels[row] for row in rows])", f"{STEP}[host-2d-grading]"),
    ("card: a gradient's norm is not asked for",
     "nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)",
     "nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip, error_if_nonfinite=True)",
     f"{STEP}[card-3d-rotation]"),
    ("card: files hold tensors of the CPU", "tree_map_only(Tensor, Tensor.cpu, dict(state))",
     "dict(state)", f"{TESTS}a_checkpoint_holds_tensors_of_the_cpu"),
    ("card: devices have their index", '[torch.device("cuda", first) for first in sound]',
     '[torch.device("cuda") for first in sound]', f"{WALK}[full]"),
    ("card: bfloat16 from 8.0", "BFLOAT16_FROM = (8, 0)", "BFLOAT16_FROM = (7, 0)",
     f"{WALK}[old]"),
    ("card: workers get the cards in turn", "places[index % len(places)]", "places[0]",
     f"{TESTS}two_cards_are_dealt_to_the_workers_in_turn"),
    ("card: each rank has its card", "first.index + rank", "first.index",
     f"{TESTS}a_run_of_two_ranks_takes_both_cards"),
    ("card: cases lie there only where they leave room", "free / 2", "free * 9", f"{WALK}[full]"),
    ("card: the encoder is there before its head", "Parts(encoder.to(cases.device)", "Parts(encoder",
     f"{WALK}[old]"),
]

TABLE: dict[str, list[tuple[str, ...]]] = {}  # by the tests that should fail
for *row, tests in ROWS:
    TABLE.setdefault(tests, []).append(tuple(row))
