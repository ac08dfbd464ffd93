"""Classifier runs: images, network, optimizer and precision; prepared from options or opened from a folder."""

import copy
import logging
import math
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from enerf.conditioning import layers
from enerf.core import device as core_device
from enerf.core import files, rng
from enerf.core import memory as core_memory
from enerf.core.errors import InputError
from enerf.datasets.labelled import archive, load
from enerf.datasets.labelled.dataset import LabelledImages
from enerf.engine import checkpoint, joint_start, resume, run_record
from enerf.engine.checkpoint import State
from enerf.engine.run_record import Record
from enerf.fields import conditioning
from enerf.fields.backends import registry
from enerf.fields.backends.registry import Resolved
from enerf.tasks.classifier import build, memory, optimizers
from enerf.tasks.classifier.config import SHIFT, ClassifierConfig

log = logging.getLogger("enerf")


@dataclass(frozen=True)
class ClassifierRun:
    """A network with all that is needed to train and evaluate it.

    Attributes
    ----------
    config
        Options, with numbers of steps filled in by ``resolve_steps``.
    data
        Images and labels, on the CPU.
    model
        Images -> logits; the same object as ``state.model``.
    layers
        Names of the selected layers: conditioned, or unconditioned as a control.
    state, device
        Weights, optimizer and step; their device.
    record
        Precisions that trained it.
    """

    config: ClassifierConfig
    data: LabelledImages
    model: nn.Module
    layers: list[str]
    state: State
    device: torch.device
    record: Record

    @property
    def computed(self) -> dict[str, Any]:
        """Nothing that may differ between computers."""
        return {}

    @property
    def precision(self) -> str:
        """Precision of matrix products in the network: ``fp32`` or ``bf16``."""
        return self.record.current.precision

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in the training images."""
        return steps_per_epoch(self.config, self.data)


def prepare(config: ClassifierConfig, shared: Resolved | None = None, *, opening: bool = False) -> ClassifierRun:
    """Load the images, build network and optimizer, and resume from the run's last checkpoint if there is one.

    ``shared`` is the precision of the comparison that the run belongs to: a new run uses it for ``auto``.

    Raises
    ------
    InputError
        If the options, the images or the checkpoint cannot be used.
    """
    device = core_device.resolve_device(config.train.device)
    words = core_device.prepare(device)
    config, data = resolve_steps(config), load_data(config)
    found = resume.last_checkpoint(config, opening=opening)
    now = resolve_backend(config, run_record.backend_to_reuse(found, shared))
    files = resume.check_inputs(config, found, input_files(config), opening=opening)
    record = run_record.record_of(found, now, config, files)
    log.info("%s; %s", words, record.current.precision)
    if not opening:
        check_memory(config, data, device)
    model, names = new_model(config, data)
    model = model.to(device).to(memory_format=core_device.image_order(device))  # type: ignore[call-overload]
    training = resume.begin(config, model, optimizers.make(config.train, model), found)
    return ClassifierRun(config, data, model, names, training, device, record)


def open_run(folder: Path, device: str = "auto", source: str = "") -> ClassifierRun:
    """Open a run at its last checkpoint; ``source`` is the new path of its images, if they were moved.

    Raises
    ------
    InputError
        If the folder is not a classifier run, or its images are missing.
    """
    content, _ = checkpoint.newest(folder, [ClassifierConfig.kind])
    config = resume.reopened(ClassifierConfig, content["config"], folder, device, "images", source)
    return joint_start.opened(partial(prepare, config, opening=True))


def resolve_backend(config: ClassifierConfig, recorded: Resolved | None = None) -> Resolved:
    """Return the precision of matrix products in the network; the backend is always torch.

    Priority: the option, the precision that the run was trained with before, the device (bf16 if it has instructions
    for it, except with group norm on a CPU, where torch is several times slower in bf16 than in fp32). A difference to
    ``recorded`` is logged as a warning.
    """
    requested, device = config.train.precision, core_device.resolve_device(config.train.device)
    is_known = recorded is not None and recorded.precision != registry.UNKNOWN
    if requested == "auto" and not is_known and device.type == "cpu" and norm_of(config) == "gn":
        requested = "fp32"
    precision, reason = registry.resolve_precision(requested, device, recorded)
    found = Resolved("torch", precision, device.type)
    if recorded is not None and recorded.differs(found):
        log.warning("%s", registry.difference_words(recorded, found, reason))
    return found


def load_data(config: ClassifierConfig) -> LabelledImages:
    """Load the labeled images of a configuration, limited to the number that it asks for.

    Raises
    ------
    InputError
        If they are missing, damaged, or fewer than that number or than a batch.
    """
    path = Path(files.expanded(config.data.images, "option --images"))
    data = _load(path, archive.fingerprint(path), config.data.image_size)
    data = data.fewer(config.data.train_images, config.data.test_images)
    if len(data.train) < config.train.N_batch:
        raise InputError(
            f"option --N_batch: found {config.train.N_batch}, expected at most the {len(data.train)} training images"
        )
    return data


def input_files(config: ClassifierConfig) -> list[Path]:
    """Return the archive of images of a configuration, or the files of the data set in its folder.

    Raises
    ------
    InputError
        If the folder cannot be listed, or no data set is recognized.
    """
    path = Path(config.data.images).expanduser()
    return load.files_of(path) if path.is_dir() else [path]


@lru_cache(maxsize=1)
def _load(path: Path, fingerprint: str, image_size: int) -> LabelledImages:
    """Load images; the last ones are cached, until a file changes, because all runs of a comparison use them."""
    return load.load(path, image_size=image_size)


def resolve_steps(config: ClassifierConfig) -> ClassifierConfig:
    """Return the configuration with epochs and curve intervals converted to steps, as written to ``config.txt``.

    Raises
    ------
    InputError
        As ``load_data``.
    """
    steps = steps_per_epoch(config, load_data(config))
    t, r = config.train, config.run
    wanted = [n for n in (t.N_iters, math.ceil(t.epochs * steps)) if n > 0]
    every = steps if r.i_eval < 0 else r.i_eval
    return replace(
        config,
        train=replace(t, N_iters=min(wanted)),
        run=replace(r, i_eval=every, i_spectrum=every if r.i_spectrum < 0 else r.i_spectrum),
    )


def check_memory(config: ClassifierConfig, data: LabelledImages, device: torch.device) -> None:
    """Check that network and batch fit the memory of the device.

    Raises
    ------
    InputError
        If they do not, or the options of the network are incompatible.
    """
    if memory.is_ordinary(config, data.size):
        return
    try:
        needs = memory.training_bytes(config, norm_of(config), len(data.classes), data.channels, data.size)
    except ValueError as error:
        raise InputError(f"the options of the network: {error}") from None
    core_memory.require(needs, device)


def steps_per_epoch(config: ClassifierConfig, data: LabelledImages) -> int:
    """Return the number of full batches in the training images."""
    return len(data.train) // config.train.N_batch


def norm_of(config: ClassifierConfig) -> str:
    """Return the norm of activations; the network's default if the option is empty."""
    return config.conditioning.parts[0] or build.norms_of(config.model.model)[0]


def method_name(config: ClassifierConfig) -> str:
    """Return the name of a run's method: normalization, and options that differ from their defaults."""
    c, t, norm = config.conditioning, config.train, norm_of(config)
    words = [norm + (f"+{c.parts[1]}" if c.parts[1] else "")]
    words += conditioning.map_words(c) if c.parts[1] == "e" else []
    words += [c.equilibrate_scale] if c.parts[1] == "sc" and c.equilibrate_scale != "fixed" else []
    words += [f"shift{c.attention_shift:g}"] if c.attention_shift != SHIFT else []
    words += [c.init] if c.init != "default" else []
    words += [c.layers] if c.layers != "all" and (c.parts[1] or c.init != "default") else []
    if t.optimiser != "sgd":
        words += [t.optimiser + conditioning.rate_word(t.lrate_matrices, t.lrate)]
    return "-".join(words)


def new_model(config: ClassifierConfig, data: LabelledImages) -> tuple[nn.Module, list[str]]:
    """Build, initialize and condition the network on the CPU; return it and the names of the selected layers.

    Raises
    ------
    InputError
        If options are incompatible, such as layer normalization for a CNN, or a layer does not exist.
    """
    m, c = config.model, config.conditioning
    try:
        model = build.network(
            m.model,
            classes=len(data.classes),
            channels=data.channels,
            size=data.size,
            norm=norm_of(config),
            seed=config.train.seed,
            width=m.width,
            depth=m.depth,
            patch=m.patch,
        )
        names = build.condition(
            model,
            c.parts[1],
            layers=c.layers,
            init=c.init,
            method=c.equilibrate,
            gradient=c.equilibrate_gradient,
            scale=c.equilibrate_scale,
            p=c.equilibrate_p,
            shift=c.attention_shift,
            seed=rng.stream_seed(config.train.seed, 0),
        )
    except ValueError as error:
        raise InputError(f"the options of the network: {error}") from None
    return model, names


def frozen(model: nn.Module) -> nn.Module:
    """Return a copy of a network for evaluation, with baked weights and without gradients."""
    baked = layers.bake(copy.deepcopy(model)).eval()
    return baked.requires_grad_(False)
