"""What is set aside before training: damaged records, and runs made with other settings."""

import sys
from collections.abc import Callable, Sequence

from common.errors import InputError
from common.runs import checkpoint
from common.runs.records import Run
from common.schedule.plan import Job


def mend(jobs: Sequence[Job]) -> None:
    """Set runs with damaged records aside, and needed encoders that are, saying so.

    They are then trained anew. An encoder that no unfinished run starts from is left as it is: on a
    GPU its weights cannot be had again bit for bit, and the finished runs would be lost with it.
    """
    for job in jobs:  # pretraining first: finetuning runs read its scores
        _mend(job.make(), Run.damage)
    needed = {run.folder: run for job in jobs if job.needs is not None and not job.make().done()
              if (run := job.needs()).done()}
    for run in needed.values():
        _mend(run, encoder_damage)


def _mend(run: Run, damage: Callable[[Run], str | None]) -> None:
    """Set a run aside if it is damaged."""
    if damage(run) is None:
        return
    with run.claim() as mine:  # looked at again: another process may have mended it meanwhile
        if mine and (found := damage(run)):
            print(f"warning: {found}; {run.name} is set aside as {run.set_aside().name} and "
                  "trained anew", file=sys.stderr)


def check_stale(jobs: Sequence[Job], *, rerun: bool) -> None:
    """Stop before training if runs on disk were made with other settings, or set them aside."""
    stale = [(run, changes) for run in (job.make() for job in jobs) if (changes := run.changes())]
    if stale and not rerun:
        run, changes = stale[0]
        raise InputError(f"{run.folder}: made with other settings ({'; '.join(changes[:4])}), as "
                         f"were {len(stale) - 1} more runs; give --results OTHER to keep both, or "
                         "--rerun to set the old ones aside")
    for run, _ in stale:
        with run.claim() as mine:
            if not mine:
                raise InputError(f"{run.folder}: another process is training it; stop that first")
            print(f"set aside: {run.name} -> {run.set_aside().name}")


def encoder_damage(run: Run) -> str | None:
    """Why a finished run's encoder.pt cannot be used, in one line; None if it can."""
    if not run.encoder.exists():
        return f"{run.encoder}: missing"
    try:
        same = checkpoint.weights_digest(checkpoint.load(run.encoder)) == run.scores()["encoder"]
    except (InputError, AttributeError, TypeError) as error:
        return str(error)
    return None if same else f"{run.encoder}: not the weights this run has trained"
