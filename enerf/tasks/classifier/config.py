"""Options of classifier runs, grouped in dataclasses; see ``enerf.config.options``."""

from dataclasses import dataclass
from typing import ClassVar

from enerf.config.options import (
    INITS,
    METHODS,
    STEPS,
    ConditioningOptions,
    RecordOptions,
    RunConfig,
    StepOptions,
    inherited,
    name_of,
    option,
)
from enerf.core.errors import InputError
from enerf.optim.table import MATRIX_OPTIMIZERS, WITH_VIEWS

MODELS = ("inception", "densenet", "googlenet", "resnet18", "resnet50", "vit_s", "vit_b")
# Norms of activations, and treatments of weights or of their gradients.
NORMS = ("bn", "gn", "none", "ln")
TREATMENTS = ("", "w", "ws", "e", "bnp")
ATTENTION_TREATMENTS = ("sc", "pa")  # of ViTs only
NORMALIZATIONS = (
    *(norm + (f"+{treatment}" if treatment else "") for norm in NORMS for treatment in TREATMENTS),
    *(f"ln+{treatment}" for treatment in ATTENTION_TREATMENTS),
)
ATTENTION_INITS = ("conditioned_attention", "conditioned_attention_matrix", "gaussian_attention", "shifted_attention")
SHIFT = 10.0
OPTIMIZERS = (
    *("sgd", "adam", "adamw", "rmsprop", "adagrad"),
    *("intrinsic_adam", "intrinsic_rmsprop", "intrinsic_adagrad"),
)


@dataclass(frozen=True)
class ClassifierDataOptions:
    """Labeled images."""

    images: str = option(
        "",
        "folder or archive of CIFAR-10 or CIFAR-100 (binary or Python version), idx files (MNIST, "
        "Fashion-MNIST), or images in "
        "train/CLASS/ and test/CLASS/ (or val/CLASS/)",
        affects="data",
        is_source=True,
        is_path=True,
    )
    image_size: int = option(
        0,
        "width and height to which images are resized; 0: not resized, all images must have the same size",
        at_least=0,
        at_most=4096,
        affects="data",
    )
    train_images: int = option(
        0, "number of training images, the same subset for all seeds; 0: all", at_least=0, affects="data"
    )
    test_images: int = option(
        0, "number of test images, the same subset for all seeds; 0: all", at_least=0, affects="data"
    )
    augment: str = option(
        "shift_flip",
        "augmentation of training images: random shift by up to 4 pixels, and horizontal flip; or random resized "
        "crop, which needs --image_size",
        choices=("none", "shift", "shift_flip", "crop"),
        affects="data",
    )


@dataclass(frozen=True)
class ClassifierModelOptions:
    """Network."""

    model: str = option(
        "densenet", "network architecture, in its variant for small images", choices=MODELS, affects="model"
    )
    width: float = option(
        1.0, "multiplier of the architecture's number of channels", above=0, at_most=16, affects="model"
    )
    depth: int = option(
        0,
        "layers of DenseNet, or blocks of a ViT; 0: the architecture's default",
        at_least=0,
        at_most=400,
        affects="model",
    )
    patch: int = option(
        0,
        "side of a ViT's patches in pixels; 0: 4 for images up to 64 pixels, else 16",
        at_least=0,
        at_most=4096,
        affects="model",
    )


@dataclass(frozen=True)
class NormalizationOptions:
    """Normalization and conditioning."""

    normalisation: str = option(
        "",
        "NORM or NORM+TREATMENT. Norm of activations: bn (batch), gn (group), none, or ln (layer, for ViTs). Treatment "
        "of the layers --layers: w (weight normalization), ws (weight standardization), e (equilibration), bnp "
        "(batch-norm preconditioning of gradients); of the attention among them: sc (spectral conditioning: W + λI), "
        "pa (preconditioned attention). Empty: bn, for ViTs ln",
        choices=("", *NORMALIZATIONS),
        affects="model",
    )
    layers: str = option(
        "all",
        "layers that are conditioned and initialized by --init: all, first_conv_and_last_linear, hidden, Conv2d, "
        "Linear, "
        "or comma-separated names and patterns",
        affects="model",
    )
    equilibrate: str = option("row", "equilibration method of +e", choices=METHODS, bare="row", affects="model")
    equilibrate_gradient: str = inherited(ConditioningOptions, "equilibrate_gradient", "through")
    equilibrate_scale: str = inherited(ConditioningOptions, "equilibrate_scale", "fixed")
    equilibrate_p: float = inherited(ConditioningOptions, "equilibrate_p", 2.0)
    attention_shift: float = option(SHIFT, "λ of +sc", above=0, at_most=1e6, affects="model")
    init: str = option(
        "default",
        "control: initialization of the same layers: the network's default, Glorot, He, or rows of unit norm; of the "
        "attention among them: conditioned_attention (identity and semi-orthogonal matrices, for each head or for all "
        "heads at once), and controls of its scale and of +sc",
        choices=(*INITS, *ATTENTION_INITS),
        affects="training",
    )

    @property
    def parts(self) -> tuple[str, str]:
        """What normalizes activations (empty: as the network does), and what is done to weights (empty: nothing).

        >>> NormalizationOptions(normalisation="bn+ws").parts
        ('bn', 'ws')
        """
        norm, _, treatment = self.normalisation.partition("+")
        return norm, treatment

    def check(self) -> None:
        """Check that options of equilibration are only set with ``+e``, and λ only where it has an effect.

        ``+sc`` has the scales of equilibration too.

        Raises
        ------
        InputError
            For the first one that would have no effect.
        """
        treatment, found = self.parts[1], self.normalisation or "(empty)"
        if self.attention_shift != SHIFT and treatment != "sc" and self.init != "shifted_attention":
            raise InputError(
                f"option --attention_shift: found {self.attention_shift:g} with --normalisation {found}, expected "
                "ln+sc, or --init shifted_attention"
            )
        if treatment == "e":
            return
        for name in ("equilibrate", "equilibrate_gradient", "equilibrate_scale", "equilibrate_p"):
            if (treatment, name) == ("sc", "equilibrate_scale"):
                continue
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise InputError(
                    f"option --{name}: found {getattr(self, name)} with --normalisation {found}, expected one with +e: "
                    "only equilibration has such an option"
                )


@dataclass(frozen=True)
class ClassifierTrainOptions(StepOptions):
    """Training."""

    N_iters: int = option(
        0,
        "largest number of steps; 0: determined by --epochs",
        at_least=0,
        at_most=STEPS,
        affects="training",
        is_length=True,
    )
    epochs: float = option(
        200.0,
        "number of passes over the training images; 0: determined by --N_iters",
        at_least=0,
        at_most=1e6,
        affects="training",
        is_length=True,
    )
    N_batch: int = option(128, "batch size", at_least=1, at_most=1 << 24, affects="training")
    lrate: float = inherited(StepOptions, "lrate", 1e-3)
    lrate_schedule: str = inherited(StepOptions, "lrate_schedule", "constant")
    optimiser: str = option(
        "sgd",
        f"optimizer; {' and '.join(MATRIX_OPTIMIZERS)}: of the hidden weights, those between the first layer and the "
        "head, and adamw of all other parameters",
        choices=(*OPTIMIZERS, *MATRIX_OPTIMIZERS),
        affects="model",
    )
    lrate_matrices: float = option(
        0.0,
        f"initial learning rate of the hidden weights with --optimiser {' or '.join(MATRIX_OPTIMIZERS)}; 0: as --lrate",
        at_least=0,
        affects="training",
        absent=0.0,
    )
    momentum: float = option(0.0, "momentum of sgd and rmsprop", at_least=0, at_most=0.9999, affects="model")
    weight_decay: float = option(
        0.0,
        "weight decay of weights, not of biases and norm parameters: L2 penalty; decoupled for adamw, muon and soap",
        at_least=0,
        affects="training",
    )
    l1: float = option(
        0.0, "L1 penalty of the same weights; for intrinsic optimizers: of z = P⁻¹θ", at_least=0, affects="training"
    )
    l2: float = option(0.0, "L2 penalty of z = P⁻¹θ, for intrinsic optimizers only", at_least=0, affects="training")
    shrinkage: str = option(
        "sign",
        "L1 step of an intrinsic optimizer: by the sign, as in the theorem, or by soft thresholding, which gives "
        "exact zeros",
        choices=("sign", "soft"),
        affects="training",
    )
    label_smoothing: float = option(
        0.0,
        "fraction of each target that is distributed uniformly over all classes",
        at_least=0,
        at_most=0.99,
        affects="training",
    )
    mixup: float = option(
        0.0,
        "mixup: images are mixed in pairs with weights from Beta(mixup, mixup); 0: off",
        at_least=0,
        affects="training",
    )


@dataclass(frozen=True)
class ClassifierRunOptions(RecordOptions):
    """Experiment and logging."""

    i_eval: int = option(
        -1, "steps between points of the curve; -1: once per epoch; 0: never", at_least=-1, affects="neutral"
    )
    i_spectrum: int = option(
        -1,
        "steps between records of condition number κ and row norms of --layers; -1: as --i_eval; 0: never",
        at_least=-1,
        affects="neutral",
    )
    eval_images: int = option(
        2000,
        "number of test images, and of training images, that a point of the curve is evaluated on; 0: all test images",
        at_least=0,
        affects="neutral",
    )


@dataclass(frozen=True)
class ClassifierConfig(RunConfig):
    """All options of a classifier run."""

    run: ClassifierRunOptions
    data: ClassifierDataOptions
    model: ClassifierModelOptions
    conditioning: NormalizationOptions
    train: ClassifierTrainOptions
    kind: ClassVar[str] = "classifier"
    instead: ClassVar[dict[str, str]] = {
        "conditioning": "expected --normalisation with a treatment of weights: bn+e, bn+w, bn+ws, bn+bnp, for ViTs "
        "ln+e (--help has all), or --optimiser muon",
        "weight_norm": "expected --normalisation bn+w, for ViTs ln+w",
    }

    @property
    def scene(self) -> str:
        """Name of the images' folder or archive, and of the network."""
        return f"{name_of(self.data.images).split('.')[0] or 'images'}_{self.model.model}"

    def check(self) -> None:
        """Check that the options are compatible.

        Raises
        ------
        InputError
            For the first combination that is not.
        """
        if not self.data.images:
            raise InputError("option --images: found nothing, expected a folder or an archive of labeled images")
        self.conditioning.check()
        norm, is_vit = self.conditioning.parts[0], self.model.model.startswith("vit")
        if norm and is_vit != (norm == "ln"):
            raise InputError(
                f"option --normalisation: found {self.conditioning.normalisation} with --model {self.model.model}, "
                f"expected {'one that begins with ln' if is_vit else 'one that begins with bn, gn or none'}"
            )
        if self.conditioning.init in ATTENTION_INITS and not is_vit:
            raise InputError(
                f"option --init: found {self.conditioning.init} with --model {self.model.model}, expected vit_s or "
                "vit_b: other networks have no attention"
            )
        self._check_training()
        if self.data.augment == "crop" and not self.data.image_size:
            raise InputError("option --augment crop needs --image_size: found 0, expected the side of the crops")

    def check_given(self, on_line: set[str], in_file: set[str]) -> None:
        """Check that ``--equilibrate`` stands with ``+e``, and ``--lrate_matrices`` with an optimizer of matrices.

        Without them, they would have no effect, whatever their values.

        Raises
        ------
        InputError
            If they do not.
        """
        t = self.train
        if t.lrate_matrices and t.optimiser not in MATRIX_OPTIMIZERS:
            raise InputError(
                f"option --lrate_matrices: found {t.lrate_matrices:g} with --optimiser {t.optimiser}, expected "
                f"--optimiser {' or '.join(MATRIX_OPTIMIZERS)}: others have the rate --lrate for all parameters"
            )
        norm, treatment = self.conditioning.parts
        # a line that repeats a run, and the file of a run, give all options, and choose none
        chosen = any(
            "equilibrate" in names and not {"equilibrate_p", "layers"} <= names for names in (on_line, in_file)
        )
        if chosen and treatment != "e":
            norm = norm or ("ln" if self.model.model.startswith("vit") else "bn")
            raise InputError(
                f"option --equilibrate: found with --normalisation {self.conditioning.normalisation or '(empty)'}, "
                f"expected --normalisation {norm}+e, of which it is the method"
            )

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
        if t.optimiser in set(MATRIX_OPTIMIZERS) - set(WITH_VIEWS) and not self.model.model.startswith("vit"):
            raise InputError(
                f"option --optimiser: found {t.optimiser} with --model {self.model.model}, expected --model vit_s or "
                f"vit_b, or --optimiser {' or '.join(WITH_VIEWS)}: it does not update kernels of convolutions"
            )
        if t.shrinkage != "sign" and not intrinsic:
            raise InputError(
                f"option --shrinkage: found {t.shrinkage} with --optimiser {t.optimiser}, expected an intrinsic one"
            )
        if t.N_batch == 1 and self.conditioning.parts[0] in ("", "bn") and not self.model.model.startswith("vit"):
            raise InputError(
                "option --N_batch: found 1, expected at least 2 with batch normalization, which needs statistics of "
                "several images (--normalisation gn does not)"
            )
