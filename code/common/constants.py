"""Constants of exp.py that mean the same in both trees, with the values both start from.

Each is a flag of both scripts, as --workers. A line of the same name in an exp.py, below its
import of this file, overrides one for that tree.
"""

# What is run, and where; none of these changes a number of a run.
RESULTS = "results"            # records go to RESULTS/<tree>/<dataset>
CACHE = "data"                 # preprocessed arrays go to CACHE/<dataset>/cache
ENCODER: list[str] = []        # more arms, from files: NAME=encoder.pt
DEVICE = "auto"                # auto, cpu, cuda or cuda:N
PRECISION = "auto"             # auto: bfloat16 where the device has it, else float32 (devices.py)
WORKERS = 0                    # runs at a time; 0: by GPUs, or as many as cores and memory allow
RUNS_PER_GPU = 1               # runs at a time on each GPU, where its memory allows more than one
RANKS_PER_RUN = 1              # GPUs, or processes on the CPU, that train one run together
PRIMARY: list[str] = []        # arm and fraction, as rotation 5: the comparison not adjusted
DRAWS = 1                      # labelled subsets an encoder, at PRIMARY's or the smallest fraction
POOL = [100]                   # percent of the pool to pretrain on; below 100 only where DRAWS are
THREADS = 1                    # CPU threads a run; numbers then do not depend on the core count
TUNE = False                   # choose each arm's rates on validation, then stop: no test case
TUNED = True                   # take the rates that --tune has chosen for the data set, if it has
TUNE_SEEDS = [1000, 1001]      # of the trials of --tune alone
RERUN = False                  # set runs made with other settings aside and train them anew
DETECT = 0.0                   # a gain to be shown with 80 % power: says how many seeds it takes
PLAN = False                   # only say what would be done, how long it takes, what it can show
TRACK = "none"                 # losses and scores also go to tensorboard or mlflow: RESULTS/track
STRICT = False                 # stop at exact duplicates instead of keeping them on one side

# Both stages.
LAYOUT = "channels_last"       # of weights in memory, or contiguous; the faster on the CPU
FOLDS = 5                      # seed k is tested on fold k mod FOLDS; 1: one fixed test set
GROUP_PATTERN = ""             # finds the patient in a case's name: ^(p[0-9]+)_; one side each
SPLIT_SEED = 0                 # of validation and the test folds, the same for every run

# Pretraining.
UNLABELLED = True              # unlabelled images join the pretraining pool
PRETEXT_PATIENCE = 50          # epochs without a better 5-epoch mean of the validation loss
PRETEXT_MIN_STEPS = 2000       # patience counts from here; small pools have few steps an epoch
PRETEXT_STEPS = 0              # optimiser steps at most; 0: the task's own, or by epochs alone
PRETEXT_LR = 0.0               # Adam; 0: the task's own, 1e-4 for the paper's
PRETEXT_SCHEDULE = "own"       # of the rate: the task's own, constant with patience, or cosine
PRETEXT_BATCH_SIZE = 0         # cases; 0: the task's own (pretext.py); if joint, the smallest
PRETEXT_DROPOUT: float | None = None  # of every dropout layer; None: the network's own, one half

# Finetuning.
WARMUP_EPOCHS: int | None = None  # epochs with the start frozen; None: WARMUP_SHARE of them all
WARMUP_SHARE = 0.0             # official: 1/16 in 3D, 3/20 in 2D
START_LR_FACTOR = 0.1          # rate of the weights handed on, over FINETUNE_LR; official: 1
START_NORM = "train"           # BatchNorm of what was handed on: batch statistics; eval: its own
FINETUNE_RAMP = 0.05           # share of the steps in which the rate rises to FINETUNE_LR
FINETUNE_SCHEDULE = "cosine"   # of the rate: down to 0 at the last step; or constant (official)
FINETUNE_DROPOUT: float | None = None  # of every dropout layer; None: the network's own, one half
NORM_MOMENTUM = 0.1            # of BatchNorm; official .01: too slow for a short run's statistics
EQUAL_STEPS = True             # False: an epoch is a pass over the subset, as in the paper
VALIDATIONS = 20               # evenly over a run; the best on validation is reported on test
