"""How classifier runs are presented in a report: curves, figures, published results."""

from typing import Any

from enerf.reporting.presentation import Curve, Figure, Presentation
from enerf.tasks.classifier import report


def differences(run: dict[str, Any]) -> list[str]:
    """Return in what a run on images of published results differs from their protocol; else an empty list.

    The paper trains convolutional networks by SGD at learning rate 1e-3, batch 128, for 200 epochs, ViT-B by AdamW.

    Raises
    ------
    KeyError, TypeError
        If the metrics are incomplete.
    """
    if len(report.published([run])) < 2:
        return []
    protocol = run["protocol"]
    is_vit = run["model"].startswith("ViT")
    wanted: dict[str, Any] = {"optimiser": "adamw"} if is_vit else {"optimiser": "sgd", "lrate": 1e-3, "batch": 128}
    found = [
        f"{name.replace('optimiser', 'optimizer')} {protocol[name]} instead of {value}"
        for name, value in wanted.items()
        if protocol[name] != value
    ]
    found += [f"{run['epochs']:g} epochs instead of 200"] if run["epochs"] != 200 and not is_vit else []
    found += [f"images: {run['note']}"] if run.get("note") else []
    found += ["measured on other data than trained on"] * bool(run.get("eval_files"))
    return found


PRESENTATION = Presentation(
    figures=(
        *(Figure(heading, path, digits) for heading, path, digits in report.COLUMNS),
        Figure("top 5 [%]", ("test", "top5"), 2),
    ),
    curves=(
        Curve("test_accuracy", "test accuracy [%]"),
        Curve("fit_accuracy", "accuracy on training images [%]"),
        Curve("test_loss", "test loss [nats]"),
        Curve("fit_loss", "loss on training images [nats]"),
        Curve("loss", "loss of training batches", is_detail=True),
        Curve("accuracy", "accuracy of training batches [%]", is_detail=True),
        Curve("lrate", "learning rate", logarithmic=True, is_detail=True),
        Curve("images_per_second", "training speed [images/s]", is_detail=True),
    ),
    seconds_column=1,
    published=report.published,
    differences=differences,
    note=f"Published results are those of {report.PROTOCOL}.",
)
