"""The options of classifier runs, by subject; ``options`` says how a table becomes options."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from enerf.config.options import (
    INITS,
    METHODS,
    ConditioningOptions,
    RecordOptions,
    RunConfig,
    StepOptions,
    inherited,
    option,
)
from enerf.core.errors import InputError

MODELS = ("inception", "densenet", "googlenet", "resnet18", "resnet50", "vit_s", "vit_b")
# What normalises activations, and what is done to the weights or to their gradients.
NORMS = ("bn", "gn", "none", "ln")
TREATMENTS = ("", "w", "ws", "e", "bnp")
NORMALISATIONS = tuple(norm + (f"+{treatment}" if treatment else "") for norm in NORMS for treatment in TREATMENTS)
OPTIMISERS = (
    *("sgd", "adam", "adamw", "rmsprop", "adagrad"),
    *("intrinsic_adam", "intrinsic_rmsprop", "intrinsic_adagrad"),
)


@dataclass(frozen=True)
class LabelledOptions:
    """Labelled images."""

    images: str = option(
        "",
        "CIFAR-10 or CIFAR-100 (binary or Python form), idx files (MNIST, Fashion-MNIST), or images in "
        "train/CLASS/ and test/CLASS/ (val/CLASS/): a folder, or an archive",
        affects="data",
    )
    image_size: int = option(
        0, "side that images are brought to; 0: as they are, all alike", at_least=0, at_most=4096, affects="data"
    )
    train_images: int = option(
        0, "train on that many images, the same for all seeds; 0: all", at_least=0, affects="data"
    )
    test_images: int = option(0, "test on that many images, the same for all seeds; 0: all", at_least=0, affects="data")
    augment: str = option(
        "shift_flip",
        "of training images: shift by up to 4 pixels, flip left to right; or crop to a random part, for --image_size",
        choices=("none", "shift", "shift_flip", "crop"),
        affects="data",
    )


@dataclass(frozen=True)
class ClassifierModelOptions:
    """Network."""

    model: str = option("densenet", "architecture, in its form for small images", choices=MODELS, affects="model")
    width: float = option(1.0, "times the architecture's own channels", above=0, at_most=16, affects="model")
    depth: int = option(
        0, "layers of DenseNet, blocks of a ViT; 0: the architecture's own", at_least=0, affects="model"
    )
    patch: int = option(0, "side of a ViT's patches; 0: 4 for images up to 64, else 16", at_least=0, affects="model")


@dataclass(frozen=True)
class NormalisationOptions:
    """Normalization and conditioning."""

    normalisation: str = option(
        "",
        "activations: bn (batch), gn (group), none, ln (layer, of ViTs); weights of --layers: +w weight normalisation, "
        "+ws weight standardisation, +e equilibration; +bnp gradients preconditioned by batch statistics; "
        "empty: bn, of ViTs ln",
        choices=("", *NORMALISATIONS),
        affects="model",
    )
    layers: str = option(
        "all",
        "which layers are conditioned, or started by --init: all, first_conv_and_last_linear, hidden, Conv2d, Linear, "
        "or names and patterns with commas",
        affects="model",
    )
    equilibrate: str = option("row", "the map of +e", choices=METHODS, bare="row", affects="model")
    equilibrate_gradient: str = inherited(ConditioningOptions, "equilibrate_gradient", "through")
    equilibrate_scale: str = inherited(ConditioningOptions, "equilibrate_scale", "fixed")
    equilibrate_p: float = inherited(ConditioningOptions, "equilibrate_p", 2.0)
    init: str = option(
        "default",
        "control: start of the same layers: the network's own, Glorot's, He's, or unit rows",
        choices=INITS,
        affects="training",
    )

    @property
    def parts(self) -> tuple[str, str]:
        """What normalises activations (empty: the network's usual), and the treatment of weights.

        >>> NormalisationOptions(normalisation="bn+ws").parts
        ('bn', 'ws')
        """
        norm, _, treatment = self.normalisation.partition("+")
        return norm, treatment

    def check(self) -> None:
        """Refuse options of the map without the map.

        Raises
        ------
        InputError
            For the first that would have no effect.
        """
        if self.parts[1] == "e":
            return
        asked = self.normalisation or "(empty)"
        for name in ("equilibrate", "equilibrate_gradient", "equilibrate_scale", "equilibrate_p"):
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise InputError(
                    f"option --{name}: found {getattr(self, name)} with --normalisation {asked}, expected one with +e: "
                    "only equilibration has such an option"
                )


@dataclass(frozen=True)
class ClassifierTrainOptions(StepOptions):
    """Training."""

    N_iters: int = option(0, "at most that many steps; 0: as many as --epochs says", at_least=0, affects="training")
    epochs: float = option(
        200.0,
        "times that every training image is seen; 0: as many as --N_iters says",
        at_least=0,
        at_most=1e6,
        affects="training",
    )
    N_batch: int = option(128, "images a step", at_least=1, affects="training")
    lrate: float = inherited(StepOptions, "lrate", 1e-3)
    lrate_schedule: str = inherited(StepOptions, "lrate_schedule", "constant")
    optimiser: str = option("sgd", "what follows the gradients", choices=OPTIMISERS, affects="model")
    momentum: float = option(0.0, "of sgd and rmsprop", at_least=0, at_most=0.9999, affects="model")
    weight_decay: float = option(
        0.0,
        "of weights, not of biases and normalisers: L2 in the loss; adamw: decoupled",
        at_least=0,
        affects="training",
    )
    l1: float = option(
        0.0, "L1 of the same weights: in the loss; intrinsic optimisers: of z = P⁻¹θ", at_least=0, affects="training"
    )
    l2: float = option(0.0, "intrinsic optimisers: L2 of z = P⁻¹θ", at_least=0, affects="training")
    shrinkage: str = option(
        "sign",
        "how an intrinsic optimiser steps along L1: the theorem's sign, or to exact zeros",
        choices=("sign", "soft"),
        affects="training",
    )
    label_smoothing: float = option(
        0.0, "share of a target that is spread over all classes", at_least=0, at_most=0.99, affects="training"
    )
    mixup: float = option(
        0.0, "images are mixed in pairs, shares drawn from Beta(mixup, mixup); 0: not", at_least=0, affects="training"
    )


@dataclass(frozen=True)
class ClassifierRunOptions(RecordOptions):
    """Experiment and its records."""

    i_eval: int = option(
        -1, "steps between points of the curve; -1: once an epoch; 0: never", at_least=-1, affects="neutral"
    )
    i_spectrum: int = option(
        -1,
        "steps between records of κ and row norms of --layers; -1: with the curve; 0: never",
        at_least=-1,
        affects="neutral",
    )
    eval_images: int = option(
        2000,
        "test and training images that a point of the curve is measured on; 0: all test images",
        at_least=0,
        affects="neutral",
    )


@dataclass(frozen=True)
class ClassifierConfig(RunConfig):
    """Everything a classifier run is told, by subject."""

    run: ClassifierRunOptions
    data: LabelledOptions
    model: ClassifierModelOptions
    conditioning: NormalisationOptions
    train: ClassifierTrainOptions
    kind: ClassVar[str] = "classifier"

    @property
    def scene(self) -> str:
        """The name of the images' folder or archive, and of the network."""
        return f"{Path(self.data.images).name.split('.')[0] or 'images'}_{self.model.model}"

    def check(self) -> None:
        """Refuse combinations that cannot mean anything, with the reason.

        Raises
        ------
        InputError
            For the first of them.
        """
        if not self.data.images:
            raise InputError("option --images: found nothing, expected a folder or an archive of labelled images")
        self.conditioning.check()
        norm, is_vit = self.conditioning.parts[0], self.model.model.startswith("vit")
        if norm and is_vit != (norm == "ln"):
            raise InputError(
                f"option --normalisation: found {self.conditioning.normalisation} with --model {self.model.model}, "
                f"expected {'one that begins with ln' if is_vit else 'one that begins with bn, gn or none'}"
            )
        self._check_training()
        if self.data.augment == "crop" and not self.data.image_size:
            raise InputError("option --augment crop needs --image_size: found 0, expected the side of the crops")

    def _check_training(self) -> None:
        t = self.train
        if t.N_iters == 0 and t.epochs == 0:
            raise InputError("options --epochs and --N_iters: found 0 for both, expected how long to train")
        intrinsic = t.optimiser.startswith("intrinsic")
        for name, wrong in (
            ("l2", t.l2 and not intrinsic),
            ("weight_decay", t.weight_decay and intrinsic),
            ("momentum", t.momentum and not t.optimiser.endswith(("sgd", "rmsprop"))),
        ):
            if wrong:
                expected = {
                    "l2": "an intrinsic one (--weight_decay is for the others)",
                    "weight_decay": "another (an intrinsic one takes --l2)",
                    "momentum": "sgd or rmsprop",
                }[name]
                raise InputError(
                    f"option --{name}: found {getattr(t, name):g} with --optimiser {t.optimiser}, expected {expected}"
                )
        if t.shrinkage != "sign" and not intrinsic:
            raise InputError(
                f"option --shrinkage: found {t.shrinkage} with --optimiser {t.optimiser}, expected an intrinsic one"
            )
        if t.N_batch == 1 and self.conditioning.parts[0] in ("", "bn") and not self.model.model.startswith("vit"):
            raise InputError(
                "option --N_batch: found 1, expected at least 2 with batch normalisation: one image has no statistics "
                "of a batch (--normalisation gn needs none)"
            )
