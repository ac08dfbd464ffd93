"""A classifier run: labelled images, their network, and what can be asked of them; prepared from options or opened."""

import copy
import logging
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from enerf.conditioning import layers
from enerf.core import device as core_device
from enerf.core import rng
from enerf.core.errors import InputError
from enerf.datasets.labelled import load
from enerf.datasets.labelled.dataset import LabelledImages
from enerf.engine import backend_record, checkpoint, resume
from enerf.engine.backend_record import Record
from enerf.engine.checkpoint import State
from enerf.fields import conditioning
from enerf.fields.backends import registry
from enerf.fields.backends.registry import Resolved
from enerf.tasks.classifier import build, optimizers
from enerf.tasks.classifier.config import ClassifierConfig

log = logging.getLogger("enerf")


@dataclass(frozen=True)
class ClassifierRun:
    """A network, and all that is needed to train and to measure it.

    Attributes
    ----------
    config
        With its steps counted: see ``resolved``.
    data
        Images and labels, on the CPU.
    model
        Images -> logits; what ``state.model`` holds.
    layers
        The layers that the options mean: conditioned, or left plain as a control.
    state, device
        Weights and optimiser, and where they are.
    record
        Of the precisions that have trained it.
    """

    config: ClassifierConfig
    data: LabelledImages
    model: nn.Module
    layers: list[str]
    state: State
    device: torch.device
    record: Record

    @property
    def precision(self) -> str:
        """What products inside the network are computed with."""
        return self.record.current.precision

    @property
    def steps_an_epoch(self) -> int:
        """Whole batches of the training images."""
        return steps_an_epoch(self.config, self.data)


def prepare(config: ClassifierConfig, shared: Resolved | None = None) -> ClassifierRun:
    """Images, network and optimiser of a configuration, resumed from the run's last checkpoint if it has one.

    ``shared`` is what ``auto`` means for a fresh run: the precision of the comparison that it is part of.

    Raises
    ------
    InputError
        For a user's mistake.
    """
    device = core_device.resolve_device(config.train.device)
    words = core_device.prepare(device)
    config, data = resolved(config), load_data(config)
    found = resume.last_checkpoint(config)
    record = backend_record.record_of(found, resolve_precision(config, backend_record.backend_to_reuse(found, shared)))
    log.info("%s; %s", words, record.current.precision)
    model, names = new_model(config, data)
    model = model.to(device).to(memory_format=core_device.image_order(device))  # type: ignore[call-overload]
    training = resume.begin(config, model, optimizers.make(config.train, model), found)
    if training.step >= config.train.N_iters:
        log.info("nothing is left to train: step %d of --N_iters %d", training.step, config.train.N_iters)
    return ClassifierRun(config, data, model, names, training, device, record)


def open_run(folder: Path, device: str = "auto", source: str = "") -> ClassifierRun:
    """Open a run as its last checkpoint left it; ``source`` is the new place of its images, if they have moved.

    Raises
    ------
    InputError
        If the folder is no run of a classifier, or its images are missing.
    """
    content, _ = checkpoint.newest(folder, [ClassifierConfig.kind])
    return prepare(resume.reopened(ClassifierConfig, content["config"], folder, device, "images", source))


def resolve_precision(config: ClassifierConfig, recorded: Resolved | None = None) -> Resolved:
    """The precision of products inside the network; classifiers are evaluated by torch.

    The option decides, then what the run was trained with before, then the device: bf16 where it has instructions for
    it, except that torch's group normalisation of bf16 on a CPU takes several times longer than of fp32. A difference
    to the record is logged as a warning.
    """
    asked, device = config.train.precision, core_device.resolve_device(config.train.device)
    is_known = recorded is not None and recorded.precision != registry.UNKNOWN
    if asked == "auto" and not is_known and device.type == "cpu" and norm_of(config) == "gn":
        asked = "fp32"
    precision, reason = registry.resolve_precision(asked, device, recorded)
    found = Resolved("torch", precision, device.type)
    if recorded is not None and recorded.differs(found):
        log.warning("%s", registry.difference_words(recorded, found, reason))
    return found


def load_data(config: ClassifierConfig) -> LabelledImages:
    """The labelled images of a configuration, as many as it asks for.

    Raises
    ------
    InputError
        If they are missing, damaged, fewer than that, or fewer than a batch.
    """
    try:
        path = Path(config.data.images).expanduser()
        stamp = path.stat().st_mtime_ns if path.exists() else 0
    except (OSError, RuntimeError) as error:  # a name that is too long, a home that is nobody's
        reason = str(getattr(error, "strerror", None) or error).rstrip(".").lower()
        raise InputError(f"option --images: the path cannot be looked up ({reason}), expected one that can") from None
    data = _loaded(path, stamp, config.data.image_size).fewer(config.data.train_images, config.data.test_images)
    if len(data.train) < config.train.N_batch:
        raise InputError(
            f"option --N_batch: found {config.train.N_batch}, expected at most the {len(data.train)} training images"
        )
    return data


@lru_cache(maxsize=1)
def _loaded(path: Path, stamp: int, image_size: int) -> LabelledImages:
    """The images of a path, read again only if it has changed: comparisons learn the same ones many times."""
    return load.load(path, image_size=image_size)


def resolved(config: ClassifierConfig) -> ClassifierConfig:
    """The configuration with epochs and points of the curve counted in steps, as ``config.txt`` will say them.

    Raises
    ------
    InputError
        As ``load_data``.
    """
    steps = steps_an_epoch(config, load_data(config))
    t, r = config.train, config.run
    wanted = [n for n in (t.N_iters, math.ceil(t.epochs * steps)) if n > 0]
    every = steps if r.i_eval < 0 else r.i_eval
    return replace(
        config,
        train=replace(t, N_iters=min(wanted)),
        run=replace(r, i_eval=every, i_spectrum=every if r.i_spectrum < 0 else r.i_spectrum),
    )


def steps_an_epoch(config: ClassifierConfig, data: LabelledImages) -> int:
    """Whole batches of the training images."""
    return len(data.train) // config.train.N_batch


def norm_of(config: ClassifierConfig) -> str:
    """What normalises activations, the network's usual one unless told otherwise."""
    return config.conditioning.parts[0] or build.norms_of(config.model.model)[0]


def method_name(config: ClassifierConfig) -> str:
    """How a run's method is called: its normalisation, the start of a control, and what differs from the usual map."""
    c, t, norm = config.conditioning, config.train, norm_of(config)
    words = [norm + (f"+{c.parts[1]}" if c.parts[1] else "")]
    words += conditioning.map_words(c) if c.parts[1] == "e" else []
    words += [c.init] if c.init != "default" else []
    words += [c.layers] if c.layers != "all" and (c.parts[1] or c.init != "default") else []
    words += [t.optimiser] if t.optimiser != "sgd" else []
    return "-".join(words)


def new_model(config: ClassifierConfig, data: LabelledImages) -> tuple[nn.Module, list[str]]:
    """The freshly started and conditioned network of a configuration, on the CPU, and the layers that are meant.

    Raises
    ------
    InputError
        If options do not go together: layer normalisation for a CNN, say, or a layer that is not there.
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
            seed=rng.stream_seed(config.train.seed, 0),
        )
    except ValueError as error:
        raise InputError(f"the options of the network: {error}") from None
    return model, names


def frozen(model: nn.Module) -> nn.Module:
    """A copy of a network as it is now, baked, for everything but learning."""
    made = layers.bake(copy.deepcopy(model)).eval()
    return made.requires_grad_(False)
