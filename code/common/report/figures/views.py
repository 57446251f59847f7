"""What each pretext task shows the network, and asks."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt

from common.report.curves import Curves
from common.report.figures.examples import Array
from common.report.figures.palette import look_of
from common.report.figures.style import STYLE, WIDTH, bare, footing, heading, scale, write


def views(saved: Mapping[str, Array], curves: Curves, path: Path) -> None:
    """What each pretext task shows the network of two cases, and what it asks."""
    tasks = [str(name) for name in saved["tasks"]]
    shapes = [saved[f"views {task}"].shape[1:3] for task in tasks]
    with plt.rc_context(STYLE):
        # As many inches high as its aspect asks for, within reason.
        heights = [min(1.7, max(0.85, 3.3 * h / w)) for h, w in shapes]
        height = sum(heights) + 0.46 * len(tasks) + 0.9
        figure = plt.figure(figsize=(WIDTH, height))
        top = height - 0.5
        for task, inches in zip(tasks, heights, strict=True):
            images, captions = saved[f"views {task}"], saved[f"captions {task}"]
            figure.text(0.012, (top - inches / 2) / height, task, fontsize=10, fontweight="bold",
                        color=look_of(task, tasks).colour, va="center")
            for column, (image, caption) in enumerate(zip(images, captions, strict=True)):
                panel = figure.add_axes((0.13 + 0.435 * column, (top - inches) / height, 0.42,
                                         inches / height))
                panel.imshow(image, cmap="gray", vmin=0, vmax=255)
                bare(panel)
                bar = scale(panel, image.shape[1], most=min(image.shape[:2]), below=True)
                panel.set_xlabel(f"{caption} (bar: {bar})", fontsize=8, labelpad=7)
            top -= inches + 0.46
        heading(figure, f"{curves.dataset}: what the pretext tasks show, and ask", curves)
        footing(figure, "Two cases of the pretraining pool; of what is answered, two validation "
                "cases. Of volumes the middle axial slice; a grid's layers lie side by side.",
                f"Bars: so many voxels or pixels. {saved['axes']}")
        write(figure, path)
