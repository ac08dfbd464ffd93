"""Side of this project in the benchmarks: a run as ``train_nerf.py`` prepares it, on images of noise in memory.

Steps are those of ``train_nerf.py``, from sampling pixels to Adam, without hooks (journal, checkpoints).
"""

import argparse
import functools
import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch

from enerf.config import parser as config_parser
from enerf.core import device as core_device
from enerf.datasets.scenes import synthetic
from enerf.datasets.scenes.scene import Scene
from enerf.engine import optimizers, schedule, trainer
from enerf.tasks.nerf import config as nerf_config
from enerf.tasks.nerf import setup as nerf_setup
from enerf.tasks.nerf import train as nerf_train
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.setup import Run

# Number and size of the images of nerf-pytorch's fern scene at factor 8.
PHOTOS, WIDTH, HEIGHT = 20, 504, 378


def add_options(parser: argparse.ArgumentParser, config_file: str = "fern.txt") -> None:
    """Add the options of training to a parser."""
    parser.add_argument("--config", default=config_file, help="one of configs/")
    parser.add_argument("--rays", type=int, default=0, help="rays a step; 0: the config's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--backend", default="auto", help="auto, torch, compiled, triton, tinycudann")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))


def options_of(args: argparse.Namespace, **changes: Any) -> NerfConfig:
    """The configuration of parsed arguments, with changes by option name."""
    options = {name: getattr(args, name) for name in ("device", "backend", "precision")}
    if args.rays:
        options["N_rand"] = args.rays
    return config_parser.replace(
        config_parser.parse(nerf_config.NerfConfig, ["--config", args.config])[0], no_reload=True, **options, **changes
    )


@functools.cache
def noise_scene(photos: int = PHOTOS, width: int = WIDTH, height: int = HEIGHT) -> Scene:
    """Forward-facing cameras with images of noise: the cost of a step does not depend on the images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (photos, height, width, 3), generator=generator, dtype=torch.uint8)
    camera = synthetic.camera(width, height)
    test = tuple(range(0, photos, 8))
    return Scene(
        name="noise",
        images=images,
        c2w=torch.tensor(synthetic.poses(photos), dtype=torch.float32),
        camera=camera,
        bounds=torch.tensor([[1.3, 9.0]]).expand(photos, 2),
        image_names=tuple(f"{i}.png" for i in range(photos)),
        train=tuple(i for i in range(photos) if i not in test),
        test=test,
        near=0.0,
        far=1.0,
        ndc=True,
        forward_facing=True,
        world_to_scene=torch.eye(4),
    )


class Training:
    """A run, trained step by step."""

    def __init__(self, options: NerfConfig, scene: Scene | None, *, warm: bool = True) -> None:
        self.run, self.words = prepared(options, scene)
        self._gradient = nerf_train.step_function(self.run)
        if warm:  # so that allocations and compilation are not measured
            self.step()

    def step(self) -> float:
        """Take one step; returns its loss."""
        training = self.run.state
        optimizers.set_learning_rate(training.optimizer, schedule.learning_rate(self.run.config.train, training))
        return trainer.one_step(training, self._gradient).loss

    def seconds(self, steps: int) -> float:
        """Mean seconds per step, over ``steps``."""
        return seconds_of(self.step, steps, self.run.device)

    @property
    def precision(self) -> str:
        """The precision that was chosen."""
        return str(self.run.fields.coarse.bind.keywords["precision"])


def prepared(options: NerfConfig, scene: Scene | None = None) -> tuple[Run, str]:
    """A prepared run, and what was logged; ``scene``, if given, replaces the one on disk."""
    recorder = LogRecorder()
    log = logging.getLogger("enerf")
    level, handlers = log.level, log.handlers[:]
    log.setLevel(logging.INFO)
    log.handlers[:] = [recorder]
    try:
        with ExitStack() as stack:
            if scene is not None:
                stack.enter_context(patch.object(nerf_setup, "load_scene", lambda _, **__: scene))
                stack.enter_context(patch.object(nerf_setup, "input_files", lambda _: []))
            run = nerf_setup.prepare(options)
    finally:
        log.setLevel(level)
        log.handlers[:] = handlers
    return run, "; ".join(line for line in recorder.lines if not line.startswith("going on from"))


class LogRecorder(logging.Handler):
    """Logging handler that stores messages in ``lines``."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Store the message of a record."""
        self.lines.append(record.getMessage())


def seconds_of(call: Callable[[], Any], times: int, device: torch.device) -> float:
    """Mean seconds per call, over ``times`` calls, with synchronization of the device."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(times):
        call()
    synchronize(device)
    return (time.perf_counter() - began) / times


def synchronize(device: torch.device) -> None:
    """Wait until the device has completed all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_of(name: str) -> torch.device:
    """The device of an option, without changing global settings."""
    return core_device.resolve_device(name)


def peak_memory(device: torch.device) -> float:
    """Peak memory of this process in MB: allocated on the GPU, or resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:  # not getrusage, whose peak includes that of the parent process
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) * 1024 / 1e6 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
