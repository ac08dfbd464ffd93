"""nerf-pytorch, run from a checkout outside this repository: imported as it is, nothing of it is changed."""

import importlib
import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any


def load(path: Path) -> ModuleType:
    """The peer's ``run_nerf`` module, from the folder of its checkout."""
    if not (path / "run_nerf.py").is_file():
        sys.exit(f"error: option --peer: {path} holds no run_nerf.py, expected a checkout of yenchenlin/nerf-pytorch")
    sys.path.insert(0, str(path))
    warnings.filterwarnings("ignore", message="torch.meshgrid")
    return importlib.import_module("run_nerf")


def arguments(peer: ModuleType, path: Path, config: str = "fern.txt") -> Any:
    """The peer's options for one of its own configuration files, with its logs in a temporary folder."""
    parser = peer.config_parser()
    logs = tempfile.mkdtemp(prefix="peer-logs-")
    args = parser.parse_args(["--config", str(path / "configs" / config), "--basedir", logs, "--no_reload"])
    (Path(logs) / args.expname).mkdir()
    return args
