"""Parser of command lines and configuration files into option tables, and writer of configuration files.

Configuration files of nerf-pytorch are read unmodified. Values on the command line override those of the file.
"""

import argparse
import dataclasses
import difflib
import io
import itertools
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import configargparse

from enerf.config import options
from enerf.config.options import RunConfig
from enerf.core import files
from enerf.core.errors import InputError, shown

C = TypeVar("C", bound=RunConfig)

# The checkout's configs/, and its copy in an installed package; only a checkout has a pyproject.toml beside enerf/.
ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG_FOLDER = ROOT / "configs"
CONFIG_FOLDERS = (*([CONFIG_FOLDER] if (ROOT / "pyproject.toml").is_file() else []), ROOT / "enerf" / "configs")
CONFIG_BYTES = 1 << 24  # largest size of a configuration file
# Options of nerf-pytorch that are not supported, with the reason.
UNSUPPORTED = {"shape": "it chooses among deepvoxels scenes, which are not supported"}
T = TypeVar("T")


class Parser(configargparse.ArgumentParser):
    """Argument parser that raises ``InputError`` with one sentence instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise ``InputError`` with the message."""
        raise InputError(message.replace("argument --", "option --"))

    def parse_args(self, args: Any = None, namespace: Any = None, **more: Any) -> Any:
        """Parse the whole command line.

        Raises
        ------
        InputError
            For an unknown option, with the nearest known names, or a wrong value.
        """
        parsed, unknown = self.parse_known_args(args, namespace, **more)
        if unknown:
            raise InputError(_unknown_message(unknown[0], self, {}))
        return parsed


class Help(argparse.HelpFormatter):
    """Help formatter that appends the default value of each option."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.default is None or action.default == argparse.SUPPRESS:
            return text
        return text + (" (default: empty)" if action.default == "" else " (default: %(default)s)")


def parse(
    kind: type[C],
    argv: Sequence[str] | None = None,
    description: str = "",
    extra: Iterable[type] = (),
    *,
    prog: str | None = None,
    epilog: str = "",
    is_base: bool = False,
) -> tuple[C, list[Any]]:
    """Return the configuration of a command line, and the ``extra`` option tables filled from the same line.

    ``is_base``: runs with other options are made of it, so that an option without effect is no mistake.

    Raises
    ------
    InputError
        For an unknown option (with the nearest known names), an invalid value or combination, or a missing file.
    """
    own = dataclasses.fields(kind)
    tables: list[Any] = [f.type for f in own] + list(extra)
    parser = make_parser(tables, description, prog=prog, epilog=epilog)
    arguments = list(sys.argv[1:] if argv is None else argv)
    file = _config_path(arguments)  # first, for a better error message than configargparse's if it is missing
    try:
        namespace, unknown = parser.parse_known_args(arguments)
        if unknown:
            raise InputError(_unknown_message(unknown[0], parser, kind.instead))
        filled = [read_table(table, vars(namespace)) for table in tables]
        config = kind(*filled[: len(own)])
        if not config.run.basedir:
            raise InputError("option --basedir: found nothing, expected the folder of results, such as ./logs")
        config.check()
        if not is_base:
            config.check_given(_names_on_line(arguments), names_in_file(arguments))
    except InputError as error:
        raise InputError(_with_file(str(error), arguments, file)) from None
    return config, filled[len(own) :]


def make_parser(tables: Iterable[Any], description: str, *, prog: str | None = None, epilog: str = "") -> Parser:
    """Return the command-line parser of some option tables, one help group per table."""
    parser = Parser(
        prog=prog,
        usage="%(prog)s [--config FILE] [--OPTION VALUE] ...",
        epilog=epilog,
        description=description,
        config_file_open_func=_open_config,
        allow_abbrev=False,
        add_env_var_help=False,
        formatter_class=Help,
    )
    parser.add_argument("--config", is_config_file=True, metavar="FILE", help="a .txt file, by path or in configs/")
    for table in tables:
        group = parser.add_argument_group(options.title(table))
        for item in dataclasses.fields(table):
            group.add_argument(f"--{item.name}", **_argument(item))
    return parser


def read_table(table: type[T], values: dict[str, Any]) -> T:
    """Return an option table filled from a flat mapping: defaults for missing options, other keys are ignored."""
    known = {f.name: f.type for f in dataclasses.fields(table)}  # type: ignore[arg-type]
    given = {name: value for name, value in values.items() if name in known}
    return table(**{name: float(value) if known[name] is float else value for name, value in given.items()})


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Return all options as one flat mapping."""
    return {name: value for part in dataclasses.asdict(config).values() for name, value in part.items()}


def from_dict(kind: type[C], values: dict[str, Any]) -> C:
    """Return the configuration of a flat mapping as ``to_dict`` returns it; defaults for missing options.

    >>> from enerf.tasks.shape.config import ShapeConfig
    >>> from_dict(ShapeConfig, {"N_points": 7}).samples.N_points
    7
    """
    return kind(*(read_table(f.type, values) for f in dataclasses.fields(kind)))  # type: ignore[arg-type]


def replace(config: C, **changes: Any) -> C:
    """Return a copy of the configuration with some options changed, by name.

    Raises
    ------
    TypeError
        If a name is not an option.

    >>> from enerf.tasks.nerf.config import NerfConfig
    >>> replace(from_dict(NerfConfig, {}), N_rand=7).train.N_rand
    7
    """
    values = to_dict(config)
    if unknown := sorted(changes.keys() - values.keys()):
        raise TypeError(f"no option is named {unknown[0]!r}")
    return from_dict(type(config), {**values, **changes})


def to_text(config: RunConfig) -> str:
    """Return the text of a configuration file that ``--config`` reads back to the same values.

    Raises
    ------
    InputError
        If a string value cannot be written to such a file, e.g. because it contains a line break.
    """
    lines = []
    for part in dataclasses.fields(config):
        values = getattr(config, part.name)
        lines.append(f"# {options.title(type(values))}")
        lines += [_line(f.name, str(getattr(values, f.name))) for f in dataclasses.fields(values)]
        lines.append("")
    return "\n".join(lines)


def read_text(kind: type[C], path: Path) -> C | None:
    """Return the configuration of a ``config.txt``, with defaults for missing options; None if the file is invalid.

    Unlike ``parse``, it does not check combinations.
    """
    tables = [item.type for item in dataclasses.fields(kind)]
    try:
        values = vars(make_parser(tables, "").parse_known_args(["--config", str(path)])[0])
    except InputError:
        return None
    return from_dict(kind, values)


def _line(name: str, value: str) -> str:
    """Return ``name = value``, with quotes if the value would be read back differently without."""
    reader = configargparse.DefaultConfigFileParser()
    for quote in ("", '"', "'"):
        line = f"{name} = {quote}{value}{quote}".rstrip()
        if len(line.splitlines()) == 1 and reader.parse([line]).get(name) == value:
            return line
    raise InputError(f"option --{name}: found {value!r}, expected a text that can be written to a configuration file")


def find_config(name: str) -> Path:
    """Return the path of a configuration file, given as a path or a name in ``configs/``, with or without ``.txt``.

    The path is tried first, then the checkout's ``configs/``, then the ``enerf/configs`` of an installed package.

    Raises
    ------
    InputError
        If no file is found, with the nearest names.
    """
    path = files.expanded(name, "option --config")
    for candidate in (path, *(str(folder / path) for folder in CONFIG_FOLDERS)):
        for file in (candidate, f"{candidate}.txt"):
            if os.path.isfile(file):
                return Path(file)
    if os.path.exists(path):
        files.require_regular(path)
    searched = [folder for folder in CONFIG_FOLDERS if folder.is_dir()]
    known = {path.relative_to(folder).as_posix() for folder in searched for path in folder.rglob("*.txt")}
    places = " or ".join(f"{folder.relative_to(ROOT).as_posix()}/" for folder in searched)
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.4)
    hint = f"; near names in {places}: {', '.join(near)}" if near else ""
    raise InputError(f"option --config: no file {shown(name)}, neither as a path nor in {places}{hint}")


class _ConfigText(io.StringIO):
    """The text of a configuration file, with the file's name as configargparse expects it."""

    name = ""


def _open_config(name: str) -> Any:
    """Return the text of the file of ``--config`` as a stream.

    Raises
    ------
    InputError
        If it is not a text file, or names another one.
    """
    path = find_config(name)
    try:
        text = files.read_text(path, CONFIG_BYTES)  # skips the byte order mark of Windows editors
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a text file of `name = value` lines ({error})") from None
    if re.search(r"^[ \t]*(--)?config[ \t]*[=:]", text, re.MULTILINE):  # configargparse would read it as no option
        raise InputError(f"{path}: found a line `config = ...`, expected options: a file cannot include another")
    stream = _ConfigText(text, newline=None)
    stream.name = str(path)
    return stream


def _argument(item: dataclasses.Field) -> dict[str, Any]:
    """Return the keyword arguments of ``add_argument`` for one option."""
    meta = item.metadata
    kwargs: dict[str, Any] = {"default": item.default, "help": meta["help"].replace("%", "%%"), "type": _reader(item)}
    if item.type is bool:
        return {**kwargs, "nargs": "?", "const": True, "metavar": "True|False"}
    if "bare" in meta:
        kwargs |= {"nargs": "?", "const": meta["bare"]}
    choices = meta.get("choices")
    kwargs["metavar"] = "|".join(str(c) for c in choices if c != "") if choices else item.type.__name__.upper()  # type: ignore[union-attr]
    return kwargs


def _reader(item: dataclasses.Field) -> Any:
    """Return the function that converts an option's text to its value; it raises ``ArgumentTypeError`` if invalid."""
    meta = item.metadata

    def read(text: str) -> Any:
        value = _convert(text.strip(), item)
        choices = meta.get("choices")
        named = ", ".join(str(choice) or "(empty)" for choice in choices or ())
        wrong = (
            (choices is not None and value not in choices and f"one of {named}")
            or (item.type is float and not choices and not math.isfinite(value) and "a finite number")
            or ("at_least" in meta and not value >= meta["at_least"] and f"at least {meta['at_least']}")
            or ("above" in meta and not value > meta["above"] and f"more than {meta['above']}")
            or ("at_most" in meta and not value <= meta["at_most"] and f"at most {meta['at_most']}")
            or (item.type is int and not abs(value) <= options.LARGEST and f"at most {options.LARGEST}")
        )
        if wrong:
            raise configargparse.ArgumentTypeError(f"found {shown(text)}, expected {wrong}")
        if item.type is str and (meta["is_path"] or meta["is_name"]):
            check = files.expanded if meta["is_path"] else files.inner_name
            return check(value, f"option --{item.name}")
        return value

    return read


def _convert(text: str, item: dataclasses.Field) -> Any:
    """Convert an option's text to the option's type."""
    if item.type is bool or (item.metadata.get("bare") and text.lower() in ("true", "false")):
        if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise configargparse.ArgumentTypeError(f"found {shown(text)}, expected True or False")
        yes = text.lower() in ("true", "yes", "1")
        return yes if item.type is bool else (item.metadata["bare"] if yes else item.default)
    if item.type is str:
        return "" if text == "None" else text
    try:
        return item.type(text)  # type: ignore[operator]
    except ValueError:
        kind = {int: "a whole number", float: "a number"}[item.type]  # type: ignore[index]
        raise configargparse.ArgumentTypeError(f"found {shown(text)}, expected {kind}") from None


def _unknown_message(word: str, parser: Parser, instead: Mapping[str, str]) -> str:
    """Return the error message for an argument that is not an option; ``instead``: hints for some names."""
    name = word.lstrip("-").split("=")[0]
    if not word.startswith("-"):
        return f"found {shown(word)} where an option was expected (options start with --)"
    if name in UNSUPPORTED:
        return f"option --{name}: {UNSUPPORTED[name]}"
    if name in instead:
        return f"unknown option {shown(name)}; {instead[name]}"
    known = [s.lstrip("-") for action in parser._actions for s in action.option_strings]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"unknown option {shown(name)}" + (f"; nearest known: {', '.join(near)}" if near else "; see --help")


def _names_on_line(arguments: list[str]) -> set[str]:
    """Names of the options of a command line."""
    return {word[2:].split("=")[0] for word in arguments if word.startswith("--")}


def names_in_file(arguments: list[str]) -> set[str]:
    """Names of the options that are set by the file of ``--config`` on a command line; empty if it names no file.

    Raises
    ------
    InputError
        If the file is missing or no text file of options.
    """
    file = _config_path(arguments)
    if file is None:
        return set()
    with _open_config(str(file)) as stream:
        try:
            return {name.removeprefix("--") for name in configargparse.DefaultConfigFileParser().parse(stream)}
        except configargparse.ConfigFileParserException as error:
            raise InputError(f"{file}: {error}") from None


def _config_path(arguments: list[str]) -> Path | None:
    """Return the configuration file of a command line, the last one if there are several."""
    named = [value for word, value in itertools.pairwise(arguments) if word == "--config"]
    named += [word.split("=", 1)[1] for word in arguments if word.startswith("--config=")]
    if not named:
        return None
    file = find_config(named[-1])
    _open_config(str(file)).close()
    return file


def _with_file(message: str, arguments: list[str], file: Path | None) -> str:
    """Prefix an error message with the configuration file if its option was given there, not on the command line."""
    named = re.match(r"(?:unknown )?option (?:--|')(\w+)", message)
    given = {word.lstrip("-").split("=")[0] for word in arguments if word.startswith("--")}
    return f"{file}: {message}" if file and named and named[1] not in given else message
