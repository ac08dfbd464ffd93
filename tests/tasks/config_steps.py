"""One training step of any configuration in ``configs/`` on small generated data: on the CPU, a GPU, or ``meta``.

On the device ``meta`` tensors have shapes and no values: a step costs nothing at full size, and fails where tensors of
two devices meet, as it would on a GPU. Values that the host reads there are ones.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partialmethod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from enerf.config import parser
from enerf.config.options import RunConfig
from enerf.core import device as core_device
from enerf.core import memory as core_memory
from enerf.datasets.labelled import loader
from enerf.datasets.labelled import synthetic as labelled_synthetic
from enerf.datasets.scenes import synthetic as scenes_synthetic
from enerf.datasets.scenes import synthetic_around
from enerf.engine import trainer
from enerf.engine.checkpoint import State
from enerf.geometry import synthetic as geometry_synthetic
from enerf.geometry import write as geometry_write
from enerf.tasks.classifier import setup as classifier_setup
from enerf.tasks.classifier import train as classifier_train
from enerf.tasks.classifier.config import ClassifierConfig
from enerf.tasks.nerf import setup as nerf_setup
from enerf.tasks.nerf import step as nerf_step
from enerf.tasks.nerf import train as nerf_train
from enerf.tasks.nerf.batches import Batches
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.shape import loss_terms
from enerf.tasks.shape import setup as shape_setup
from enerf.tasks.shape import step as shape_step
from enerf.tasks.shape.config import ShapeConfig

FOLDER = Path(__file__).resolve().parents[2] / "configs"
META = torch.device("meta")
AROUND = ("object.txt", "unbounded.txt")  # configurations of scenes that cameras look at from all sides
# besides data: sizes that cost time on a CPU before the step; backends are compared with the reference elsewhere
SMALL = {
    "nerf": ["--factor", "1", "--backend", "torch"],
    "shape": ["--backend", "torch", "--pool", "16384", "--background", "none", "--far", "0"],
    "classifier": ["--N_batch", "16", "--train_images", "0", "--test_images", "0"],
}
READERS = {"nerf": NerfConfig, "shape": ShapeConfig, "classifier": ClassifierConfig}


def kind_of(name: str) -> str:
    """The task of a configuration, by its file name."""
    last = name.rpartition("/")[2]
    return "shape" if last.startswith("shape") else "nerf" if not last.startswith(("c", "imagenet")) else "classifier"


def distinct(names: Sequence[str]) -> list[str]:
    """The configurations that differ by more than their scene and the name of the run; the first of each kind."""
    found: dict[tuple[str, ...], str] = {}
    for name in names:
        lines = [line.strip() for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]
        kept = (line for line in lines if line and not line.startswith(("#", "expname", "datadir", "mesh", "images")))
        found.setdefault((kind_of(name), name.rpartition("/")[2] in AROUND, *sorted(kept)), name)
    return list(found.values())


def write_data(folder: Path) -> None:
    """Write small data for every kind of configuration."""
    size = {"width": 16, "height": 12, "supersample": 1, "progress": False}
    scenes_synthetic.write_scene(folder / "forward", views=6, **size)
    synthetic_around.write_scene(folder / "around", views=9, **size)
    vertices, faces = geometry_synthetic.SHAPES["plate"].mesh()
    geometry_write.write(folder / "plate.ply", vertices, faces)
    turn = np.linspace(0, 40, 500)
    normals = np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1)
    columns = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    points = [" ".join(map(str, row)) for row in np.concatenate([normals + np.eye(3)[2], normals], 1).tolist()]
    header = ["ply", "format ascii 1.0", f"element vertex {len(points)}\n{columns}end_header"]
    (folder / "cloud.ply").write_text("\n".join([*header, *points, ""]), encoding="utf-8")
    colors = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(colors).save(folder / "image.png")
    np.save(folder / "ball.npy", np.linalg.norm(np.indices((20, 20, 20)) - 9.5, axis=0) < 8)
    labelled_synthetic.write_cifar(folder / "cifar", 40, 20)
    labelled_synthetic.write_folder(folder / "photographs", 40, 20)


def options_of(name: str, data: Path, logs: Path, device: str = "cpu") -> RunConfig:
    """The options of a configuration on the small data; everything else, sizes of networks and batches, is its own."""
    kind, last = kind_of(name), name.rpartition("/")[2]
    if kind == "nerf":
        words = ["--datadir", str(data / ("around" if last in AROUND else "forward")), "--expname", "run"]
    elif kind == "shape":
        kinds = ("cloud", "image", "volume")
        target = next((each for each in kinds if last == f"shape_{each}.txt"), "mesh")
        source = {"cloud": "cloud.ply", "image": "image.png", "volume": "ball.npy"}.get(target, "plate.ply")
        option = f"--{target}"
        words = [option, str(data / source)]
    else:
        words = ["--images", str(data / ("photographs" if last.startswith("imagenet") else "cifar"))]
    where = ["--basedir", str(logs), "--device", device, "--no_reload"]
    return parser.parse(READERS[kind], ["--config", name, *words, *where, *SMALL[kind]])[0]


def step(config: RunConfig) -> tuple[State, float]:
    """The state after one training step of a configuration, and the loss of the step."""
    if isinstance(config, NerfConfig):
        run = nerf_setup.prepare(config)
        return run.state, trainer.one_step(run.state, nerf_train.step_function(run)).loss
    if isinstance(config, ShapeConfig):
        run = shape_setup.prepare(config)
        with loss_terms.of_run(run) as terms_at:
            gradient = lambda state: shape_step.gradient_step(run.field, lambda: terms_at(state.step))  # noqa: E731
            return run.state, trainer.one_step(run.state, gradient).loss
    run = classifier_setup.prepare(config)
    t = run.config.train
    with loader.Batches(run.data.train, t.N_batch, t.seed, run.config.data.augment) as batches:
        gradient = lambda state: classifier_train.step(run, batches, state)  # noqa: E731
        return run.state, trainer.one_step(run.state, gradient).loss


@contextmanager
def on_meta() -> Iterator[None]:
    """Context manager in which every run is prepared and trained on the device ``meta``.

    What a CUDA graph records must neither read values nor make tensors of numbers, since both wait for the device.
    """
    reads = _HostReads()
    with ExitStack() as stack:
        for place, name, value in (
            (core_device, "resolve_device", lambda _: META),
            (core_memory, "require", lambda *_: None),
            (torch, "Generator", _MetaGenerator),
            (torch, "autocast", lambda *_, **__: nullcontext()),  # there is none for meta
            (torch.optim.Adam, "__init__", partialmethod(_plain, torch.optim.Adam.__init__)),  # no fused one either
            (nerf_step, "gradient", reads.forbidden(nerf_step.gradient)),
            (Batches, "batch", reads.forbidden(Batches.batch)),
        ):
            stack.enter_context(patch.object(place, name, value))
        stack.enter_context(reads)
        yield


def _plain(optimizer: Any, initialize: Callable[..., None], *args: Any, **options: Any) -> None:
    """Initialize an optimizer without fused kernels."""
    initialize(optimizer, *args, **{**options, "fused": False})


class _MetaGenerator(torch.Generator):
    """A generator that stands for one of the device that it is asked for."""

    def __new__(cls, device: Any = "cpu") -> "_MetaGenerator":
        made = super().__new__(cls)
        made.where = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        """The device whose random numbers it stands for."""
        return self.where


class _HostReads(TorchDispatchMode):
    """Ones in the place of values that the host reads from ``meta``, except where that is forbidden."""

    is_forbidden = False

    def forbidden(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which fails if it reads a value or makes a tensor of numbers."""

        def refuse(*args: Any, **_: Any) -> None:
            raise AssertionError(f"a tensor is made of numbers of the host in a recorded step: {args}")

        def wrapped(*args: Any, **options: Any) -> Any:
            with patch.multiple(torch, tensor=refuse, as_tensor=refuse, from_numpy=refuse):
                self.is_forbidden = True
                try:
                    return function(*args, **options)
                finally:
                    self.is_forbidden = False

        return wrapped

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, aten = kwargs or {}, torch.ops.aten
        to_cpu = operation is aten._to_copy.default and str(kwargs.get("device")) == "cpu"
        if not (operation is aten._local_scalar_dense.default or to_cpu) or not args[0].is_meta:
            return operation(*args, **kwargs)
        assert not self.is_forbidden, "the host reads a value in a recorded step"
        made = torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        return made if to_cpu else made.item()
