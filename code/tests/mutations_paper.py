"""Mutations of --paper: what it sets, what wins over it, where its runs lie and start from."""

WIRED = "test_paper.py::test_finetuning_lies_beside_and_starts_from_the_same_encoders"

TABLE = {
    "test_paper.py::test_every_item_is_the_one_in_the_table": [
        ("--paper: the frozen part of the epochs", '"WARMUP_SHARE": 3 / 20,\n',
         '"WARMUP_SHARE": 1 / 20,\n'),
        ("--paper: steps by fraction", '"EQUAL_STEPS": False, "BATCH_SIZE": 2,',
         '"EQUAL_STEPS": True, "BATCH_SIZE": 2,'),
        ("--paper replaces the constants", "**known, **demo, **paper, **flags}",
         "**known, **demo, **flags}"),
    ],
    "test_paper.py::test_every_constant_of_finetuning_is_the_papers_or_said_to_be_ours": [
        ("--paper leaves no item of finetuning out", '"AUGMENT_ZOOM": 0.15, "AUGMENT_FLIPS": "both",',
         '"AUGMENT_ZOOM": 0.15,'),
    ],
    "test_paper.py::test_flags_win_and_the_demo_keeps_its_epochs_and_rate": [
        ("flags win over --paper", "**demo, **paper, **flags}", "**demo, **flags, **paper}"),
        ("--paper wins over the demo's recipe", "**known, **demo, **paper,",
         "**known, **paper, **demo,"),
        ("--demo --paper stays minutes", "if not (demo and name in DEMO_KEEPS)}", "}"),
        ("what differs from the paper's is named", "if made[name] != value]", "if False]"),
    ],
    "test_paper.py::test_the_momentum_is_that_of_the_running_statistics": [
        ("BatchNorm's momentum is the recipe's", "layer.momentum = recipe.norm_momentum",
         "layer.eps = recipe.norm_momentum"),
    ],
    "test_identities.py::test_constants_change_the_runs_that_they_reach": [
        ("identity: the momentum reaches finetuning alone", '"AUGMENT_", "NORM_",', '"AUGMENT_",'),
    ],
    WIRED: [
        ("the paper's runs lie apart", "self.dataset + records.PAPER * self.settings.PAPER",
         "self.dataset"),
        ("the paper's study has the default's encoders", "run_folder(self.home if both else",
         "run_folder(self.folder if both else"),
        ("the paper's oracle is its own", 'both = identity["stage"] == "pretrain" and not',
         'both = identity["stage"] == "pretrain" or not'),
        ("the momentum of a run is the constant", "norm_momentum=s.NORM_MOMENTUM",
         "norm_momentum=None"),
        ("the figure says whose the protocol is", '{"protocol": study.settings.PROTOCOL}', "{}"),
        ("the encoders' scores stand beside the paper's runs",
         'if run["encoder"] in starts]', 'if run["encoder"] not in starts]'),
    ],
    "test_paper.py::test_the_papers_dice_is_drawn_first_of_the_small_panels": [
        ("the paper's Dice is drawn under its protocol",
         'if "protocol" in run else [first, *rest, paper, *own]',
         'if False else [first, *rest, paper, *own]'),
    ],
}
