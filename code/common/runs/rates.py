"""What of finetuning each arm has for itself: its rate, that of its start, how long that is frozen.

Equal tuning, not equal settings: what suits random weights destroys pretrained ones. ``--tune``
(schedule/tuning.py) chooses them on validation, each arm's from as many trials, and writes the
choice into plan.json; without one the constants hold for every arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common import arms
from common.errors import InputError
from common.files import Json, differences, plain
from common.settings import Settings, warmup_epochs


@dataclass(frozen=True)
class Rates:
    """How an arm is finetuned where it differs from the others; part of its runs' identity."""

    lr: float      # of what is new
    factor: float  # rate of what was handed on, over lr; 0: never changed
    warmup: int    # epochs in which what was handed on is frozen

    def __str__(self) -> str:
        """Name the trial, also as a folder: lr0.003-start0.1-frozen2."""
        return f"lr{self.lr:g}-start{self.factor:g}-frozen{self.warmup}"


def of_constants(settings: Settings, arm: str) -> Rates:
    """What the constants say; what starts from random weights has nothing that was handed on."""
    if arm in arms.FROM_SCRATCH:
        return Rates(settings.FINETUNE_LR, 1.0, 0)
    return Rates(settings.FINETUNE_LR, settings.START_LR_FACTOR, warmup_epochs(settings))


def chosen(plan: Json) -> dict[str, Rates]:
    """What plan.json says was chosen, by arm; {} where nothing was."""
    return {arm: Rates(**one["chosen"]) for arm, one in plan.get("rates", {}).get("arms", {}
                                                                                 ).items()}


def key(arm: str) -> str:
    """The arm whose rates an arm has: a shuffled start is treated as what it is the control of."""
    return arm.removesuffix(f"@{arms.SHUFFLED}")


def check(plan: Json, made_with: Json, *, tasks: Sequence[str], seeds: Sequence[int],
          where: str) -> None:
    """Check that the choice in plan.json holds for these arms and seeds; InputError if not.

    ``made_with`` is what reaches every finetuning run; ``where`` names plan.json.
    """
    recorded = plan["rates"]
    again = ("give --tune with this command to choose anew (with --rerun too where its trials are "
             "old), or --no-tuned to do without")
    if changed := differences(recorded["of"], plain(made_with)):
        raise InputError(f"{where}: its rates were chosen under other settings "
                         f"({'; '.join(changed[:3])}); {again}")
    if missing := [arm for arm in tasks if key(arm) not in recorded["arms"]]:
        raise InputError(f"{where}: has no rates for {', '.join(missing)}; {again}")
    if seen := sorted({*seeds} & {*recorded["seeds"]}):
        raise InputError(f"SEEDS: {seen[0]} has chosen the rates in {where}; give others, or "
                         "--no-tuned to do without")


def described(rates: Mapping[str, Rates]) -> str:
    """The choice in one line."""
    return "; ".join(f"{arm} {one.lr:g}"
                     + ("" if arm in arms.FROM_SCRATCH else f" x {one.factor:g}")
                     + (f", frozen {one.warmup} epochs" if one.warmup else "")
                     for arm, one in rates.items())
