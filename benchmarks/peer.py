"""nerf-pytorch, imported unchanged from a checkout outside this repository."""

import ctypes
import importlib
import os
import sys
import tempfile
import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from enerf.core import device as core_device
from enerf.fields import nerf


def load(path: Path) -> ModuleType:
    """The peer's ``run_nerf`` module, from the folder of its checkout."""
    if not (path / "run_nerf.py").is_file():
        sys.exit(f"error: option --peer: {path} has no run_nerf.py, expected a checkout of yenchenlin/nerf-pytorch")
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


def add_option(parser: Any, *, required: bool = True) -> None:
    """Add the option with the path of the peer."""
    parser.add_argument(
        "--peer", type=Path, required=required, metavar="PATH", help="a checkout of yenchenlin/nerf-pytorch"
    )


class Peer:
    """The peer's networks and optimizer, made by its own ``create_nerf``, with torch's settings otherwise unchanged."""

    autocast: AbstractContextManager[Any] = nullcontext()  # of rendering and loss

    def __init__(self, path: Path, device: str, **changes: Any) -> None:
        if device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # it uses a GPU wherever one is available
        self.module = load(path)
        if self.module.device.type == "cuda":
            warnings.filterwarnings("ignore", message="torch.set_default_tensor_type")
            torch.set_default_tensor_type("torch.cuda.FloatTensor")  # as its own script does
        self.args = arguments(self.module, path)
        for name, value in changes.items():
            setattr(self.args, name, value)
        made = self.module.create_nerf(self.args)
        self.train_kwargs, self.test_kwargs, _, _, self.optimizer = made
        self.device = self.module.device
        self.words = f"torch {torch.__version__}, {torch.get_num_threads()} threads, {self.device.type}, stock"

    def step(self, rays: tuple[Tensor, Tensor], target: Tensor, camera: tuple[Any, ...], **more: Any) -> float:
        """One step of the peer's loop: render, loss of both networks, Adam; returns the loss."""
        with self.autocast:
            rgb, _, _, extras = self.module.render(
                *camera, chunk=self.args.chunk, rays=rays, retraw=True, **{**self.train_kwargs, **more}
            )
            loss = self.module.img2mse(rgb, target) + self.module.img2mse(extras["rgb0"], target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def render(self, rays: tuple[Tensor, Tensor], camera: tuple[Any, ...]) -> Tensor:
        """Colors of scene rays, as the peer renders a view."""
        with torch.no_grad():
            rgb, *_ = self.module.render(*camera, chunk=self.args.chunk, rays=rays, **self.test_kwargs)
        return rgb

    def take_weights(self, coarse: dict[str, np.ndarray], fine: dict[str, np.ndarray]) -> None:
        """Put weights, under this project's names, into the peer's networks."""
        for key, weights in (("network_fn", coarse), ("network_fine", fine)):
            named = nerf.from_nerf_pytorch(self.train_kwargs[key].state_dict())  # the same tensors, renamed
            if named.keys() != weights.keys():
                sys.exit("error: these weights are not of nerf-pytorch's network")
            for name, tensor in named.items():
                tensor.copy_(torch.as_tensor(weights[name]))


def camera_of(camera: Any) -> tuple[int, int, np.ndarray]:
    """Height, width and K of one of our cameras, in the format of the peer."""
    k = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    return camera.height, camera.width, k


class Stepping(Peer):
    """The peer's training step on random rays in NDC, and random colors."""

    def __init__(self, path: Path, device: str, n_rays: int, **changes: Any) -> None:
        super().__init__(path, device, **changes)
        generator = torch.Generator("cpu").manual_seed(0)
        origins, directions, target = (torch.rand(n_rays, 3, generator=generator, device="cpu") for _ in range(3))
        self._rays = ((origins - 0.5).to(self.device), (directions - 0.5).to(self.device))
        self._target = target.to(self.device)
        self.seconds(1)  # so that allocations and lazy set-up are not measured

    def seconds(self, steps: int) -> float:
        """Mean seconds per step, over ``steps``."""
        began = time.perf_counter()
        for _ in range(steps):  # the loss is read each time, which waits for the device
            self.step(self._rays, self._target, (1, 1, None), near=0.0, far=1.0, ndc=False)
        return (time.perf_counter() - began) / steps


def stepping(path: Path, device: str, n_rays: int, changes: dict[str, Any]) -> Stepping:
    """A ``Stepping``, from plain arguments."""
    return Stepping(path, device, n_rays, **changes)


def keep_large_arrays() -> bool:
    """Tell glibc's malloc to keep freed arrays above 32 MiB too; returns whether that succeeded."""
    most_mappings = -4
    return ctypes.CDLL("libc.so.6").mallopt(most_mappings, 0) == 1


class Tuned(Stepping):
    """The same with what users of torch know, on a CPU: malloc keeps freed memory of any size, and faster products.

    With ``bf16`` these are torch's autocast to bf16; with ``fp32`` torch's matmul precision "medium", where that still
    is fp32 (``device.fast_products``): on processors with AMX it rounds to bf16.
    """

    def __init__(self, path: Path, device: str, n_rays: int, precision: str, **changes: Any) -> None:
        keeps = device == "cpu" and core_device.keep_memory() and keep_large_arrays()
        products = core_device.fast_products() if device == "cpu" and precision == "fp32" else "stock"
        self.autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")
        super().__init__(path, device, n_rays, **changes)
        lines = ["malloc keeps memory"] * keeps + ["autocast to bf16"] * (precision == "bf16")
        lines += ['matmul precision "medium"'] * (products == "oneDNN")
        self.words = f"{self.words.removesuffix('stock')}tuned: {', '.join(lines) or 'nothing to tune'}"


def tuned(path: Path, device: str, n_rays: int, precision: str, changes: dict[str, Any]) -> Tuned:
    """A ``Tuned``, from plain arguments."""
    return Tuned(path, device, n_rays, precision, **changes)
