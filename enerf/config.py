"""Options and ``.txt`` files to frozen dataclasses.

Each field of a dataclass below is one option: its name, type, default and help stand in one place, and the parser, the
saved ``config.txt`` and the reader are made from them. Names that nerf-pytorch users know mean what they mean there,
with its defaults, so its configuration files run unmodified. A value on the command line wins over the file.
"""

import dataclasses
import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import configargparse

from enerf.types import InputError

CONFIG_FOLDER = Path(__file__).resolve().parent.parent / "configs"
METHODS = ("row", "column", "row_column", "jacobi")
INITS = ("default", "glorot", "he", "unit_row")
T = TypeVar("T")


def option(default: Any, help: str, **more: Any) -> Any:
    """A dataclass field that is also an option; ``more``: choices, at_least, above, bare."""
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class DataOptions:
    """scene"""

    datadir: str = option("./data/llff/fern", "scene folder")
    dataset_type: str = option("llff", "llff or blender (nerf-pytorch's LINEMOD and deepvoxels are not read)")
    factor: int = option(8, "LLFF: use images_FACTOR, made from images/ if absent; 1: images/", at_least=0)
    llffhold: int = option(
        8, "LLFF: every 8th image is a test view (the paper's rule); 0: the one most central view", at_least=0
    )
    no_ndc: bool = option(False, "LLFF: no normalised device coordinates (scenes that are not forward-facing)")
    spherify: bool = option(False, "LLFF: cameras all around an object")
    white_bkgd: bool = option(False, "white behind transparent images and transparent rays")
    half_res: bool = option(False, "Blender: half the resolution")
    testskip: int = option(8, "Blender: every 8th test view only; 0: all", at_least=0)
    pixel_centers: float = option(
        0.5, "where in a pixel its ray passes: 0.5 its centre, 0 its corner as in nerf-pytorch", choices=(0.5, 0.0)
    )


@dataclass(frozen=True)
class ModelOptions:
    """model"""

    netdepth: int = option(8, "hidden layers of the coarse network", at_least=1)
    netwidth: int = option(256, "width of the coarse network", at_least=2)
    netdepth_fine: int = option(8, "hidden layers of the fine network", at_least=1)
    netwidth_fine: int = option(256, "width of the fine network", at_least=2)
    multires: int = option(10, "frequency bands of the position encoding", at_least=0)
    multires_views: int = option(4, "frequency bands of the direction encoding", at_least=0)
    i_embed: int = option(0, "0: positional encoding; -1: none", choices=(0, -1))
    use_viewdirs: bool = option(False, "colour depends on the viewing direction")


@dataclass(frozen=True)
class ConditioningOptions:
    """conditioning (E-NeRF) and its scale-matched controls"""

    equilibrate: str = option(
        "none", "equilibrate the weights; bare: row, the paper's choice", choices=("none", *METHODS), bare="row"
    )
    equilibrate_layers: str = option(
        "hidden",
        "which layers are conditioned, weight-normalised or started by --init: hidden (every linear layer with more "
        "than one output that is not an output head), trunk, or names such as trunk.0,feature",
        bare="hidden",
    )
    equilibrate_gradient: str = option(
        "through", "the gradient passes through the norms, or takes them as constants", choices=("through", "detached")
    )
    weight_norm: bool = option(False, "control: weight normalisation of the same layers")
    init: str = option(
        "default", "control: start of the same layers: PyTorch's, Glorot's, He's, or rows of unit norm", choices=INITS
    )


@dataclass(frozen=True)
class RenderOptions:
    """sampling and rendering"""

    N_samples: int = option(64, "coarse samples a ray", at_least=2)
    N_importance: int = option(0, "additional fine samples a ray; 0: coarse network only", at_least=0)
    perturb: float = option(1.0, "0: no jitter; above 0: stratified jitter", at_least=0)
    lindisp: bool = option(False, "sample linearly in disparity instead of depth (no effect in NDC)")
    raw_noise_std: float = option(0.0, "standard deviation of the noise on the raw density; 1 recommended", at_least=0)
    chunk: int = option(1024 * 32, "most rays at once; lower it if memory runs out", at_least=1)
    netchunk: int = option(1024 * 64, "most points through a network at once; lower it if memory runs out", at_least=1)
    render_only: bool = option(False, "no training: load the weights and render the video path")
    render_test: bool = option(False, "with --render_only: the test views instead of the video path")
    render_factor: int = option(0, "render that many times smaller, for a preview (4 or 8)", at_least=0)


@dataclass(frozen=True)
class TrainOptions:
    """training"""

    N_rand: int = option(32 * 32 * 4, "rays a step", at_least=1)
    N_iters: int = option(200_000, "steps", at_least=0)
    max_seconds: float = option(0.0, "end after that many seconds of training, evaluation aside; 0: no limit", at_least=0)
    lrate: float = option(5e-4, "learning rate", above=0)
    lrate_decay: int = option(250, "the learning rate falls to a tenth in that many thousand steps", at_least=1)
    no_batching: bool = option(False, "the rays of a step come from one image")
    precrop_iters: int = option(0, "steps on central crops, with --no_batching", at_least=0)
    precrop_frac: float = option(0.5, "side of the central crop, as a fraction of the image", above=0, at_most=1)
    seed: int = option(0, "fixes start, batches and noise", at_least=0)
    device: str = option("auto", "auto, cpu, cuda, cuda:1 ...")


@dataclass(frozen=True)
class RunOptions:
    """experiment and its records"""

    expname: str = option("", "name of the experiment; empty: the scene's name")
    basedir: str = option("./logs", "results go to basedir/expname")
    no_reload: bool = option(False, "start anew even if the experiment has checkpoints (they are kept aside)")
    ft_path: str = option("", "start from the weights in this checkpoint (.pt, or nerf-pytorch's .tar)")
    i_print: int = option(100, "steps between lines of train.jsonl", at_least=0)
    i_img: int = option(500, "steps between small test renders in TensorBoard; 0: never", at_least=0)
    i_weights: int = option(10_000, "steps between checkpoints; 0: at the end only", at_least=0)
    i_testset: int = option(50_000, "steps between renders of the test set; 0: never", at_least=0)
    i_video: int = option(50_000, "steps between videos; 0: never", at_least=0)
    i_eval: int = option(1000, "steps between points of the test-PSNR curve; 0: never", at_least=0)
    eval_rays: int = option(2048, "fixed pixels a test view for that curve; 0: all", at_least=0)
    i_spectrum: int = option(1000, "steps between records of κ(W) and row norms; 0: never", at_least=0)
    no_final_eval: bool = option(False, "do not render the test views at the end")


@dataclass(frozen=True)
class NerfConfig:
    """Everything a NeRF run is told, by subject."""

    run: RunOptions
    data: DataOptions
    model: ModelOptions
    conditioning: ConditioningOptions
    render: RenderOptions
    train: TrainOptions

    @property
    def scene(self) -> str:
        """The scene folder's name."""
        return Path(self.data.datadir).name or "scene"

    @property
    def folder(self) -> Path:
        """Where the run's results are."""
        return Path(self.run.basedir) / (self.run.expname or self.scene)


class Parser(configargparse.ArgumentParser):  # type: ignore[misc]
    """A parser whose errors are one sentence and an ``InputError``, not a usage page and an exit."""

    def error(self, message: str) -> NoReturn:
        """Raise the message as the user's mistake."""
        raise InputError(message.replace("argument --", "option --"))


def parse(argv: Sequence[str] | None = None, description: str = "", extra: Iterable[type] = ()) -> tuple[NerfConfig, list[Any]]:
    """The configuration of a command line, and the ``extra`` option tables filled from the same line.

    Raises
    ------
    InputError
        For an unknown option (with the nearest known names), an ill-typed value, or a missing file.
    """
    tables = [f.type for f in dataclasses.fields(NerfConfig)] + list(extra)
    parser = make_parser(tables, description)
    arguments = list(sys.argv[1:] if argv is None else argv)
    for word, value in zip(arguments, arguments[1:], strict=False):
        if word == "--config":
            find_config(value)  # say it in our words before configargparse does
    namespace, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise InputError(_unknown_message(unknown[0], parser, arguments, getattr(namespace, "config", None)))
    values = vars(namespace)
    filled = [read_table(table, values) for table in tables]
    n_own = len(dataclasses.fields(NerfConfig))
    config = NerfConfig(*filled[:n_own])
    check(config)
    return config, filled[n_own:]


def make_parser(tables: Iterable[Any], description: str) -> Parser:
    """The command-line parser of some option tables, one help group a table."""
    parser = Parser(
        description=description,
        config_file_open_func=_open_config,
        allow_abbrev=False,
        add_env_var_help=False,
        formatter_class=configargparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--config", is_config_file=True, metavar="FILE", help="a .txt file, by path or in configs/")
    for table in tables:
        group = parser.add_argument_group((table.__doc__ or table.__name__).strip())
        for item in dataclasses.fields(table):
            group.add_argument(f"--{item.name}", **_argument(item))
    return parser


def read_table(table: type[T], values: dict[str, Any]) -> T:
    """One option table filled from a flat mapping; missing options keep their defaults."""
    known = {f.name for f in dataclasses.fields(table)}  # type: ignore[arg-type]
    return table(**{name: value for name, value in values.items() if name in known})


def check(config: NerfConfig) -> None:
    """Refuse combinations that cannot mean anything, with the reason."""
    kind, chosen = config.data.dataset_type, config.conditioning
    if kind in ("LINEMOD", "deepvoxels"):
        raise InputError(f"option --dataset_type: {kind} scenes are not read here, expected llff or blender")
    if kind not in ("llff", "blender"):
        raise InputError(f"option --dataset_type: found {kind!r}, expected llff or blender")
    if chosen.weight_norm and chosen.equilibrate != "none":
        raise InputError("options --weight_norm and --equilibrate are two answers to one question: give one of them")
    if config.train.precrop_iters and not config.train.no_batching:
        raise InputError("option --precrop_iters needs --no_batching: crops are taken from one image at a time")


def to_dict(config: NerfConfig) -> dict[str, Any]:
    """All options as one flat mapping of plain values."""
    return {name: value for part in dataclasses.asdict(config).values() for name, value in part.items()}


def from_dict(values: dict[str, Any]) -> NerfConfig:
    """The configuration of a flat mapping, as ``to_dict`` makes it.

    >>> from_dict({"N_rand": 7}).train.N_rand
    7
    """
    return NerfConfig(*(read_table(f.type, values) for f in dataclasses.fields(NerfConfig)))  # type: ignore[arg-type]


def replace(config: NerfConfig, **changes: Any) -> NerfConfig:
    """The configuration with some options changed, by their flat names."""
    return from_dict({**to_dict(config), **changes})


def to_text(config: NerfConfig) -> str:
    """The configuration as a ``.txt`` file that ``--config`` reads back to the same values."""
    lines = []
    for part in dataclasses.fields(NerfConfig):
        values = getattr(config, part.name)
        lines.append(f"# {(type(values).__doc__ or '').strip()}")
        lines += [f"{f.name} = {getattr(values, f.name)}" for f in dataclasses.fields(values) if getattr(values, f.name) != ""]
        lines.append("")
    return "\n".join(lines)


def find_config(name: str) -> Path:
    """The configuration file of that name: a path, or a name in ``configs/``, with or without ``.txt``."""
    for candidate in (Path(name), CONFIG_FOLDER / name, CONFIG_FOLDER / f"{name}.txt"):
        if candidate.is_file():
            return candidate
    known = sorted(p.relative_to(CONFIG_FOLDER).as_posix() for p in CONFIG_FOLDER.rglob("*.txt"))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"; near names in {CONFIG_FOLDER.name}/: {', '.join(near)}" if near else ""
    raise InputError(f"option --config: no file {name!r}, neither as a path nor in {CONFIG_FOLDER.name}/{hint}")


def _open_config(name: str) -> Any:
    """The text file behind ``--config``."""
    path = find_config(name)
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a text file of `name = value` lines ({error})") from None
    return path.open(encoding="utf-8")


def _argument(item: dataclasses.Field) -> dict[str, Any]:
    """What argparse is told of one option."""
    meta = item.metadata
    told: dict[str, Any] = {"default": item.default, "help": meta["help"].replace("%", "%%"), "type": _reader(item)}
    if item.type is bool:
        return {**told, "nargs": "?", "const": True, "metavar": "True|False"}
    if "bare" in meta:
        told |= {"nargs": "?", "const": meta["bare"]}
    choices = meta.get("choices")
    told["metavar"] = "|".join(str(c) for c in choices) if choices else item.type.__name__.upper()  # type: ignore[union-attr]
    return told


def _reader(item: dataclasses.Field) -> Any:
    """The function that turns an option's text into its value, or raises with what was expected."""
    meta = item.metadata

    def read(text: str) -> Any:
        value = _convert(text.strip(), item)
        choices = meta.get("choices")
        wrong = (
            (choices is not None and value not in choices and f"one of {', '.join(map(str, choices))}")
            or ("at_least" in meta and not value >= meta["at_least"] and f"at least {meta['at_least']}")
            or ("above" in meta and not value > meta["above"] and f"more than {meta['above']}")
            or ("at_most" in meta and not value <= meta["at_most"] and f"at most {meta['at_most']}")
        )
        if wrong:
            raise configargparse.ArgumentTypeError(f"found {text!r}, expected {wrong}")
        return value

    return read


def _convert(text: str, item: dataclasses.Field) -> Any:
    """An option's text as its type."""
    if item.type is bool or (item.metadata.get("bare") and text.lower() in ("true", "false")):
        if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise configargparse.ArgumentTypeError(f"found {text!r}, expected True or False")
        yes = text.lower() in ("true", "yes", "1")
        return yes if item.type is bool else (item.metadata["bare"] if yes else item.default)
    if item.type is str:
        return "" if text == "None" else text
    try:
        return item.type(text)  # type: ignore[operator]
    except ValueError:
        kind = {int: "a whole number", float: "a number"}[item.type]  # type: ignore[index]
        raise configargparse.ArgumentTypeError(f"found {text!r}, expected {kind}") from None


def _unknown_message(word: str, parser: Parser, argv: list[str], config: str | None) -> str:
    """The sentence about the first word that is no option."""
    name = word.lstrip("-").split("=")[0]
    where = f"{config}: " if config and not any(a.lstrip("-").split("=")[0] == name for a in argv) else ""
    if not word.startswith("-"):
        return f"{where}found {word!r} where an option was expected (options start with --)"
    known = [s.lstrip("-") for action in parser._actions for s in action.option_strings]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"{where}unknown option {name!r}" + (f"; nearest known: {', '.join(near)}" if near else "; see --help")
