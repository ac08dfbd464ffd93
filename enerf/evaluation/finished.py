"""Whether a run has been done already, by what it left behind."""

from typing import Any

from enerf import config as options
from enerf.config import AnyConfig
from enerf.evaluation import report


def metrics_of(config: AnyConfig) -> dict[str, Any] | None:
    """The metrics of a run that was trained to its end with these very options, else None."""
    metrics_file, config_file = config.folder / "metrics.json", config.folder / "config.txt"
    if not metrics_file.is_file() or not config_file.is_file():
        return None
    if config_file.read_text(encoding="utf-8") != options.to_text(config):
        return None
    metrics: dict[str, Any] = report.read_json(metrics_file)
    in_time = 0 < config.train.max_seconds <= metrics["seconds"]["train"]
    return metrics if metrics["steps"] >= config.train.N_iters or in_time else None
