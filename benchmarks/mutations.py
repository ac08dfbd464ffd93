"""Mutation testing: count the small faults that a test suite finds.

A mutation changes one operator or constant of a source file. A test suite *kills* it when at least one test fails.
Four commands, run from the root of a checkout (``--help`` of each lists its options):

``draw``
    Draw mutations with a fixed seed and write them as a JSON list. Nothing is executed.
``contexts``
    Run the whole suite once under coverage and record which test executes which line.
``run``
    Apply the mutations one by one and run tests, in two stages. First the *mirrored* tests with ``-x``: those of
    ``enerf/a/b.py`` are ``tests/a/test_b.py``, ``tests/a/test_b_*.py`` and the doctests of the file, or all tests of
    ``tests/a/`` where no such file exists. Then, only for mutations that survive, the whole suite with ``-x``.
``compare``
    Compare the results of two suites on the same list. The exit code is 1 if the second kills fewer.

Isolation
---------
Tests run in a temporary copy of the tracked files, with ``tests/`` replaced by ``--tests``; the checkout is never
edited. The copy is a Git repository of its own and stands first on ``PYTHONPATH``. That ``enerf`` was imported from
the copy is checked after every run of pytest. Columns are counted in characters from 0, lines from 1. A mutation is
refused where the source line is not the recorded one.

What "the whole suite" means
----------------------------
Without ``--contexts`` every test runs. With it, only the tests that can be affected run, in both stages: a test that
never executes the mutated statement cannot fail because of it. "Execute" is extended where a line is executed once on
behalf of several tests:

- lines executed during set-up: all tests that use the same module or session fixtures as the test that ran them;
- lines executed while a test file is imported: all tests of that file and of those that import the same helpers;
- cached helper functions of test files: all tests of that file and of the test files that import it;
- module and class level, default arguments, decorators, functions with a cache decorator: all tests that execute
  any line of the file, or of a file that imports it, and all mirrored tests;
- no test executes the statement: all mirrored tests.

Lines executed in Python subprocesses and multiprocessing children count for the test that started them. Not recorded
are lines that ``torch.compile`` only traces, and calls made by a cached function on behalf of later tests. Tests
absent from the recording always run.

Fairness
--------
Tests that fail without any mutation are left out. Whenever a test kills a mutation it is run once more without the
mutation; if it fails there too, it is left out and the stage is repeated. Hypothesis runs with a fixed seed. A run
that exceeds the time limit counts as killed and is marked. Some survivors are *equivalent*: they do not change
what the code computes. They are reported like the others.
"""

from __future__ import annotations

import argparse
import ast
import atexit
import concurrent.futures
import contextlib
import fnmatch
import functools
import hashlib
import importlib.util
import io
import itertools
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

PACKAGE = "enerf"
ROOTS = tuple(
    f"{PACKAGE}/{name}" for name in ("conditioning", "optim", "rendering", "datasets", "fields", "geometry", "engine")
)
EXCLUDED = ("*triton*", "*tinycuda*", "*/capture.py", "*/cuda_graph.py", "*/distributed.py")  # needs a GPU or a peer
STATUSES = ("killed by mirrored tests", "killed by the whole suite", "survived")
SEED = 14
COUNT = 40
PLUGIN = "enerf_mutations_plugin"  # name under which pytest imports a copy of this file


def fail(message: str) -> NoReturn:
    """End the program with an error message and exit code 2."""
    print(f"mutations: {message}", file=sys.stderr)
    raise SystemExit(2)


@dataclass(frozen=True)
class Mutation:
    """One replacement in one line of one file.

    Attributes
    ----------
    file
        Path relative to the root of the checkout, with forward slashes.
    line, column, end_column
        Line from 1 and columns in characters from 0; ``end_column`` is exclusive.
    original, replacement
        Text of the span before and after.
    kind
        Group of operators, for example ``comparison``.
    source_line
        The whole line before the change; compared before the mutation is applied.
    statement
        First and last line of the enclosing statement, or of its header if it has a body.
    function
        Dotted name of the enclosing function or class; empty at module level.
    executed
        ``call`` for code executed at each call; ``import`` or ``cached`` for code executed once for many tests.
    """

    file: str
    line: int
    column: int
    end_column: int
    original: str
    replacement: str
    kind: str
    source_line: str
    statement: tuple[int, int]
    function: str
    executed: str

    def apply(self, source: str) -> str:
        """Return the mutated source; raise ``ValueError`` if the line is not the recorded one."""
        lines = source.split("\n")
        if self.line > len(lines) or lines[self.line - 1] != self.source_line:
            raise ValueError(f"{self.file}:{self.line} no longer matches the list: draw again or restore the file")
        lines[self.line - 1] = self.mutated_line()
        return "\n".join(lines)

    def mutated_line(self) -> str:
        """Return the line after the change."""
        return self.source_line[: self.column] + self.replacement + self.source_line[self.end_column :]

    def title(self) -> str:
        """Return position and change in one line."""
        return f"{self.file}:{self.line}:{self.column}  {self.original.strip()!r} -> {self.replacement!r}"

    def diff(self) -> str:
        """Return the removed and the added line."""
        return f"    - {self.source_line.strip()}\n    + {self.mutated_line().strip() or '(empty line)'}"


def mutation_of(values: dict[str, Any]) -> Mutation:
    """Return the mutation that ``asdict`` wrote."""
    return Mutation(**{**values, "statement": tuple(values["statement"])})


# ---------------------------------------------------------------------------------------------- draw

OPERATORS: dict[type, tuple[str, str, str]] = {  # node type: symbol, replacement, kind
    ast.Add: ("+", "-", "arithmetic"),
    ast.Sub: ("-", "+", "arithmetic"),
    ast.Mult: ("*", "/", "arithmetic"),
    ast.Div: ("/", "*", "arithmetic"),
    ast.Pow: ("**", "*", "arithmetic"),
    ast.FloorDiv: ("//", "/", "arithmetic"),
    ast.Mod: ("%", "*", "arithmetic"),
    ast.Lt: ("<", "<=", "comparison"),
    ast.LtE: ("<=", "<", "comparison"),
    ast.Gt: (">", ">=", "comparison"),
    ast.GtE: (">=", ">", "comparison"),
    ast.Eq: ("==", "!=", "comparison"),
    ast.NotEq: ("!=", "==", "comparison"),
    ast.And: ("and", "or", "boolean"),
    ast.Or: ("or", "and", "boolean"),
}
EXTREMES = {
    a: b
    for pair in (("min", "max"), ("minimum", "maximum"), ("amin", "amax"), ("argmin", "argmax"), ("fmin", "fmax"))
    for a, b in (pair, pair[::-1])
}
MESSAGES = {"warn", "warning", "info", "debug", "error", "exception", "critical", "log", "print", "say", "write_line"}
NEUTRAL_KEYWORDS = {  # changing them hardly changes a result
    "strict", "stacklevel", "indent", "exist_ok", "parents", "daemon", "non_blocking", "pin_memory", "frozen", "slots",
    "repr", "kw_only",
}  # fmt: skip
TYPE_NAMES = {
    "Literal", "Annotated", "Callable", "Float", "Float32", "Float64", "Int", "Int64", "UInt8", "Integer", "Bool",
    "Shaped", "Num", "Real", "Inexact", "tuple", "dict", "list", "type",
}  # fmt: skip
UNRUNNABLE = re.compile(r"cuda|triton|tinycudann|version_info|TYPE_CHECKING|__name__", re.IGNORECASE)
SILENT_NAMES = {"__version__", "__all__", "__slots__"}
DISPLAYS = (ast.List, ast.Tuple, ast.ListComp, ast.Dict, ast.Set, ast.JoinedStr)


def last_name(node: ast.AST) -> str:
    """Return the last part of a dotted name, or an empty string."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def not_a_number(node: ast.AST) -> bool:
    """Return whether an operand is visibly a string or a container, so that the operator is not arithmetic."""
    text = isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    return text or isinstance(node, DISPLAYS) or (isinstance(node, ast.BinOp) and not_a_number(node.left))


def declares_only(node: ast.AST) -> bool:
    """Return whether a definition serves type checkers only: overloads, protocols, bodies of ``...``."""
    if isinstance(node, ast.ClassDef):
        return any(last_name(base) == "Protocol" for base in node.bases)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        body = [s for s in node.body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        return not body or any(last_name(d) == "overload" for d in node.decorator_list)
    return False


def excluded(node: ast.AST) -> bool:
    """Return whether nothing inside a node is mutated: messages, declarations, code that cannot run here."""
    simple = isinstance(node, ast.stmt) and not hasattr(node, "body")
    match node:
        case ast.Raise() | ast.Assert() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            found = True
        case ast.Call():
            found = last_name(node.func) in MESSAGES
        case ast.keyword():
            found = node.arg in NEUTRAL_KEYWORDS
        case ast.Subscript():
            found = last_name(node.value) in TYPE_NAMES
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            found = declares_only(node) or bool(UNRUNNABLE.search(node.name))
        case _:
            found = (simple or isinstance(node, ast.IfExp)) and bool(UNRUNNABLE.search(ast.unparse(node)))
    return found or any(last_name(target) in SILENT_NAMES for target in targets(node))


def targets(node: ast.AST) -> list[ast.expr]:
    """Return what a statement assigns to."""
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


class Finder:
    """Find every possible mutation of one source file.

    Parameters
    ----------
    file
        Path that the mutations record.
    source
        Text of the file.
    """

    def __init__(self, file: str, source: str) -> None:
        self.file, self.lines = file, source.split("\n")
        self.tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
        self.found: dict[tuple[int, int, int, str], Mutation] = {}
        self.functions: list[str] = []
        self.executed = "import"
        self.statement = (1, 1)
        self.bounds: set[ast.AST] = set()  # bounds of slices: moved by one, not mutated as constants as well
        self.visit(ast.parse(source))

    def visit(self, node: ast.AST) -> None:
        """Record the mutations of a node and of all below it."""
        if excluded(node):
            return
        before = self.statement
        if isinstance(node, (ast.stmt, ast.match_case)):
            self.statement = self.header(node)
        handler = getattr(self, f"on_{type(node).__name__.lower()}", None)
        if handler:
            handler(node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self.definition(node)
        elif isinstance(node, (ast.If, ast.While)) and UNRUNNABLE.search(ast.unparse(node.test)):
            self.all(node.orelse)
        elif isinstance(node, ast.Lambda):
            self.all([node.args, node.body])
        else:
            self.all(self.children(node))
        self.statement = before

    def all(self, nodes: Sequence[ast.AST]) -> None:
        """Visit some nodes in order."""
        for node in nodes:
            self.visit(node)

    @staticmethod
    def children(node: ast.AST) -> list[ast.AST]:
        """Return the children of a node without its annotations."""
        silent = {"annotation", "returns", "type_params", "bases"}
        values = [value for name, value in ast.iter_fields(node) if name not in silent]
        flat = itertools.chain.from_iterable(v if isinstance(v, list) else [v] for v in values)
        return [child for child in flat if isinstance(child, ast.AST)]

    def definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        """Visit a function or class: its header belongs to the scope around it, its body to its own."""
        before = self.executed
        is_class = isinstance(node, ast.ClassDef)
        self.all([*node.decorator_list, *([] if is_class else [node.args])])
        if not is_class:
            cached = any("cache" in ast.unparse(d) for d in node.decorator_list) or before == "cached"
            self.executed = "cached" if cached else "call"
        self.functions.append(node.name)
        self.all(node.body)
        self.functions.pop()
        self.executed = before

    @staticmethod
    def header(node: Any) -> tuple[int, int]:
        """Return the first and last line of a statement, without its body."""
        first = node.pattern.lineno if isinstance(node, ast.match_case) else node.lineno
        first = min([first, *(d.lineno for d in getattr(node, "decorator_list", []))])
        body = getattr(node, "body", None) or getattr(node, "cases", None)
        if not body:
            return first, node.end_lineno
        start = body[0].pattern.lineno if isinstance(body[0], ast.match_case) else body[0].lineno
        return first, max(first, start - 1)

    # -- positions

    def at(self, line: int, byte_column: int) -> tuple[int, int]:
        """Return line and column in characters for a position of ``ast``, which counts UTF-8 bytes."""
        return line, len(self.lines[line - 1].encode()[:byte_column].decode())

    def start(self, node: Any) -> tuple[int, int]:
        """Return the position of the first character of a node."""
        return self.at(node.lineno, node.col_offset)

    def end(self, node: Any) -> tuple[int, int]:
        """Return the position behind the last character of a node."""
        return self.at(node.end_lineno, node.end_col_offset)

    def record(self, start: tuple[int, int], end: tuple[int, int], replacement: str, kind: str) -> None:
        """Record a mutation of a span; spans of several lines are skipped."""
        if start[0] != end[0]:
            return
        line = self.lines[start[0] - 1]
        original = line[start[1] : end[1]]
        name = ".".join(self.functions)
        self.found[start[0], start[1], end[1], replacement] = Mutation(
            self.file,
            start[0],
            start[1],
            end[1],
            original,
            replacement,
            kind,
            line,
            self.statement,
            name,
            self.executed,
        )

    def between(self, left: ast.AST, right: ast.AST, operator: ast.AST, suffix: str = "") -> None:
        """Record the replacement of the operator between two operands."""
        if type(operator) not in OPERATORS:
            return
        symbol, replacement, kind = OPERATORS[type(operator)]
        first, last = self.end(left), self.start(right)
        for token in self.tokens:
            if first <= token.start and token.end <= last and token.string == symbol + suffix:
                self.record(token.start, token.end, replacement + suffix, kind)
                return

    # -- kinds of nodes

    def on_binop(self, node: ast.BinOp) -> None:
        """Arithmetic operators between numbers."""
        if not (not_a_number(node.left) or not_a_number(node.right)):
            self.between(node.left, node.right, node.op)

    def on_augassign(self, node: ast.AugAssign) -> None:
        """Arithmetic operators with assignment."""
        if not not_a_number(node.value):
            self.between(node.target, node.value, node.op, "=")

    def on_compare(self, node: ast.Compare) -> None:
        """Each operator of a chain of comparisons."""
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            self.between(left, right, operator)

    def on_boolop(self, node: ast.BoolOp) -> None:
        """Each ``and`` and ``or``."""
        for left, right in itertools.pairwise(node.values):
            self.between(left, right, node.op)

    def on_unaryop(self, node: ast.UnaryOp) -> None:
        """``not`` and unary minus, removed."""
        start = self.start(node)
        if isinstance(node.op, ast.Not):
            self.record(start, (start[0], start[1] + len("not ")), "", "not removed")
        elif isinstance(node.op, ast.USub) and node not in self.bounds:
            self.record(start, (start[0], start[1] + 1), "", "minus removed")

    def on_constant(self, node: ast.Constant) -> None:
        """Numbers and truth values."""
        value = node.value
        if node in self.bounds:
            return
        if isinstance(value, bool):
            self.record(self.start(node), self.end(node), str(not value), "truth value")
        elif isinstance(value, int):
            self.record(self.start(node), self.end(node), str(value + 1), "constant")
        elif isinstance(value, float):
            self.record(self.start(node), self.end(node), repr(2 * value if value else 1.0), "constant")

    def on_call(self, node: ast.Call) -> None:
        """Minimum and maximum, swapped."""
        name = last_name(node.func)
        if name in EXTREMES:
            line, column = self.end(node.func)
            self.record((line, column - len(name)), (line, column), EXTREMES[name], "minimum or maximum")

    def on_slice(self, node: ast.Slice) -> None:
        """Bounds of slices, moved by one; -1 becomes -2 because 0 would select nothing."""
        for bound in (node.lower, node.upper):
            if bound is None:
                continue
            inner = bound.operand if isinstance(bound, ast.UnaryOp) else bound
            if isinstance(inner, ast.Constant) and isinstance(inner.value, int):
                self.bounds |= {bound, inner}
                value = int(ast.literal_eval(bound))
                replacement = str(-2 if value == -1 else value + 1)
            else:
                replacement = f"({ast.unparse(bound)}) + 1"
            self.record(self.start(bound), self.end(bound), replacement, "slice bound")


def candidates(file: str, source: str) -> list[Mutation]:
    """Return every possible mutation of a file, in order of position."""
    return sorted(Finder(file, source).found.values(), key=lambda m: (m.line, m.column, m.replacement))


def changes_code(mutation: Mutation, source: str) -> bool:
    """Return whether the mutated source compiles and differs in its syntax tree."""
    try:
        mutated = ast.parse(mutation.apply(source))
    except SyntaxError:
        return False
    return ast.dump(mutated) != ast.dump(ast.parse(source))


def choose(pool: list[Mutation], count: int, rng: random.Random, checkout: Path) -> list[Mutation]:
    """Draw mutations: a kind first, then a mutation of it; at most one a statement.

    A kind is drawn with the square root of its frequency as weight, so that rare operators occur and constants do not
    prevail.
    """
    chosen: list[Mutation] = []
    while pool and len(chosen) < count:
        frequency = Counter(m.kind for m in pool)
        kinds = sorted(frequency)
        kind = rng.choices(kinds, [frequency[k] ** 0.5 for k in kinds])[0]
        taken = rng.choice([m for m in pool if m.kind == kind])
        pool = [m for m in pool if (m.file, m.statement) != (taken.file, taken.statement)]
        if changes_code(taken, read_source(checkout / taken.file)):
            chosen.append(taken)
    return chosen


def tracked(folder: Path) -> list[str]:
    """Return the tracked files below a folder, relative to it; outside Git all files but caches."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=folder, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return sorted(name for name in listed.stdout.split("\0") if name and (folder / name).is_file())
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in files if "__pycache__" not in path.parts)


def draw(options: argparse.Namespace) -> int:
    """Draw mutations, evenly over the roots, and write them."""
    names = [n for n in tracked(options.checkout) if n.endswith(".py")]
    names = [n for n in names if not any(fnmatch.fnmatch(n, pattern) for pattern in options.exclude)]
    drawn: list[Mutation] = []
    totals: Counter[str] = Counter()
    for index, root in enumerate(options.roots):
        files = [n for n in names if n.startswith(root.rstrip("/") + "/")]
        if not files:
            fail(f"no Python files in {root}: name the packages of this checkout with --roots")
        pool = [m for name in files for m in candidates(name, read_source(options.checkout / name))]
        totals[root] = len(pool)
        share = options.count // len(options.roots) + (index < options.count % len(options.roots))
        drawn += choose(pool, share, random.Random(f"{options.seed}:{root}"), options.checkout)
    write_json(options.out, [asdict(m) for m in drawn])
    for mutation in drawn:
        print(f"{mutation.title()}  ({mutation.kind})")
    print(f"{len(drawn)} of {sum(totals.values())} possible mutations, seed {options.seed}: {options.out}")
    return 0


def read_source(path: Path) -> str:
    """Return the text of a source file with its line ends as they are."""
    return path.read_bytes().decode("utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, replacing the old one only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        fail(f"{path} cannot be read: {problem}")


# ---------------------------------------------------------------------------------------------- pytest plugin


def test_name(item: Any) -> str:
    """Return the node id of a test, without the group that pytest-xdist may append to it."""
    grouped = getattr(item.config.option, "dist", "no") == "loadgroup"
    return re.sub(r"@[^\[\]@]*$", "", item.nodeid) if grouped else item.nodeid


class Plugin:
    """Select tests, set coverage contexts, write a report; active in the pytest processes that this program starts."""

    def __init__(self, config: Any) -> None:
        self.worker = getattr(config, "workerinput", {}).get("workerid", "")
        self.report: dict[str, Any] = {"failed": [], "errors": [], "tests": {}, "file": None}
        self.seconds: Counter[str] = Counter()
        self.coverage = None
        if os.environ.get("COVERAGE_PROCESS_START"):
            import coverage

            self.coverage = coverage.Coverage.current()

    def context(self, item: Any, phase: str) -> None:
        """Name the test whose lines are recorded from now on."""
        if self.coverage is not None:
            self.coverage.switch_context(f"{test_name(item)}|{phase}")

    def pytest_collectstart(self, collector: Any) -> None:
        """Start the import of a test file."""
        if self.coverage is not None:
            self.coverage.switch_context(f"{collector.nodeid}|collect")

    def pytest_collection_finish(self) -> None:
        """End the imports."""
        if self.coverage is not None:
            self.coverage.switch_context("")

    def pytest_runtest_setup(self, item: Any) -> None:
        """Start the set-up of a test."""
        self.context(item, "setup")

    def pytest_runtest_call(self, item: Any) -> None:
        """Start a test."""
        self.context(item, "call")

    def pytest_runtest_teardown(self, item: Any) -> None:
        """Start the tear-down of a test."""
        self.context(item, "teardown")

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        """Keep the tests that were asked for, and record the shared fixtures of each."""
        if os.environ.get("MUTATIONS_SELECT"):
            chosen = json.loads(Path(os.environ["MUTATIONS_SELECT"]).read_text(encoding="utf-8"))
            only, known, without = (set(chosen[key] or ()) for key in ("only", "known", "without"))
            everything = chosen["only"] is None
            keep = [
                item
                for item in items
                if (name := test_name(item)) not in without and (everything or name in only or name not in known)
            ]
            config.hook.pytest_deselected(items=[item for item in items if item not in set(keep)])
            items[:] = keep
        if self.worker in {"", "gw0"}:
            shared = {test_name(item): shared_fixtures(item) for item in items}
            Path(os.environ["MUTATIONS_REPORT"] + ".items").write_text(json.dumps(shared), encoding="utf-8")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Record outcome and duration of a test."""
        name = re.sub(r"@[^\[\]@]*$", "", report.nodeid) if "@" in report.nodeid.rsplit("]", 1)[-1] else report.nodeid
        self.seconds[name] += report.duration
        self.report["tests"][name] = round(self.seconds[name], 3)
        if report.failed and name not in self.report["failed"]:
            self.report["failed"].append(name)

    def pytest_collectreport(self, report: Any) -> None:
        """Record a file that cannot be collected."""
        if report.failed:
            self.report["errors"].append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write the report; in a worker of pytest-xdist write the coverage instead."""
        if self.coverage is not None:
            self.coverage.switch_context("")
            self.coverage.save()
        if self.worker:
            return
        module = sys.modules.get(PACKAGE)
        if module is not None:
            self.report["file"] = module.__file__
        Path(os.environ["MUTATIONS_REPORT"]).write_text(json.dumps(self.report), encoding="utf-8")


def shared_fixtures(item: Any) -> list[str]:
    """Return the fixtures of a test that it shares with other tests, without those of pytest and its plugins."""
    info = getattr(item, "_fixtureinfo", None)
    names = []
    for name, definitions in info.name2fixturedefs.items() if info else ():
        for definition in definitions or ():
            module = getattr(definition.func, "__module__", "") or ""
            if definition.scope != "function" and not re.match(r"_pytest|pytest|xdist|hypothesis", module):
                names.append(f"{definition.baseid}::{name}")
    return sorted(set(names))


def pytest_configure(config: Any) -> None:
    """Register the plugin in the pytest processes that this program starts."""
    if os.environ.get("MUTATIONS_REPORT"):
        config.pluginmanager.register(Plugin(config), "mutations")


# ---------------------------------------------------------------------------------------------- copies


@dataclass
class Result:
    """What a run of pytest returned: exit code (None after the time limit), report, end of the output, duration."""

    code: int | None
    report: dict[str, Any]
    tail: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether no test failed."""
        return self.code in {0, 5}  # 5: no test was selected

    @property
    def reasons(self) -> list[str]:
        """What failed."""
        named = self.report.get("failed", []) + [f"collection of {name}" for name in self.report.get("errors", [])]
        ended = "time limit exceeded" if self.code is None else f"pytest ended with exit code {self.code}"
        return named or [ended]


RUNNING: set[int] = set()  # process groups, killed when this program ends
STOPPING = threading.Event()  # no process is started any more


@atexit.register
def stop() -> None:
    """Kill the processes that are still running, and start no others."""
    STOPPING.set()
    for group in list(RUNNING):
        kill(group)


def kill(group: int) -> None:
    """Kill a process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


class Copy:
    """A temporary copy of a checkout with a given test folder, in which pytest runs.

    Parameters
    ----------
    checkout
        Root of the checkout.
    tests
        Folder that takes the place of ``tests/``.
    folder
        Where the copy is made.
    options
        Options of the command line: ``python``, ``marker``, ``pytest_args``.
    """

    def __init__(self, checkout: Path, tests: Path, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.root, self.options = folder, folder / "checkout", options
        self.stamp = time.time()
        for name in tracked(checkout):
            if not name.startswith("tests/"):
                _copy(checkout / name, self.root / name)
        for name in tracked(tests):
            _copy(tests / name, self.root / "tests" / name)
        (folder / "plugin").mkdir()
        shutil.copyfile(__file__, folder / "plugin" / f"{PLUGIN}.py")
        git = ["git", "-c", "core.hooksPath=/dev/null", "-c", "user.name=mutations", "-c", "user.email=none"]
        for words in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-q", "-m", "copy"]):
            subprocess.run([*git, *words], cwd=self.root, check=True)
        code = f"import {PACKAGE}; print({PACKAGE}.__file__)"
        command = [options.python, "-c", code]
        found = subprocess.run(command, cwd=folder, env=self.environment(), capture_output=True, text=True, check=True)
        self.check(found.stdout.strip())

    def check(self, file: str | None) -> None:
        """End the program if the package was not imported from the copy."""
        if file is not None and not Path(file).resolve().is_relative_to(self.root):
            fail(f"{PACKAGE} was imported from {file}, not from the copy in {self.root}")

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of the processes that run in the copy."""
        paths = [str(self.root), str(self.folder / "plugin"), os.environ.get("PYTHONPATH", "")]
        own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MUTATIONS_", "COVERAGE_"))}
        return {**inherited, **own, **more}

    def write(self, name: str, text: str) -> None:
        """Write a source file of the copy, such that no compiled version of it is used again."""
        path = self.root / name
        path.write_bytes(text.encode("utf-8"))
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
            compiled.unlink()
        self.stamp += 2  # compiled files are compared by seconds and size
        os.utime(path, (self.stamp, self.stamp))

    def pytest(
        self, paths: Sequence[str], limit: float | None, select: dict[str, Any] | None = None, **more: Any
    ) -> Result:
        """Run pytest on paths relative to the copy.

        ``select`` holds the node ids to run (``only``), those of the recording (``known``) and those left out
        (``without``). ``more`` are ``stop`` (``-x``), ``environment``, ``show`` (print instead of capture) and
        ``arguments``.
        """
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        shutil.rmtree(self.root / ".hypothesis", ignore_errors=True)
        variables = {"MUTATIONS_REPORT": str(report), **more.get("environment", {})}
        if select is not None:
            variables["MUTATIONS_SELECT"] = str(self.folder / "select.json")
            write_json(self.folder / "select.json", select)
        command = [self.options.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", PLUGIN]
        command += ["-m", self.options.marker, "--basetemp", str(self.folder / "tmp")]
        command += ["-x"] if more.get("stop", True) else []
        command += _plugin_arguments() + shlex.split(self.options.pytest_args) + list(more.get("arguments", ()))
        began = time.monotonic()
        code, tail = execute([*command, *paths], self.root, self.environment(**variables), limit, more.get("show"))
        seconds = time.monotonic() - began
        found = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
        self.check(found.get("file"))
        return Result(code, found, tail, seconds)


def _copy(source: Path, target: Path) -> None:
    """Copy a file and create the folders it needs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _plugin_arguments() -> list[str]:
    """Return arguments that make runs repeatable, for the pytest plugins that are installed."""
    have = {"xdist": ["-n", "0"], "hypothesis": ["--hypothesis-seed=0"]}
    return [word for name, words in have.items() if importlib.util.find_spec(name) for word in words]


def execute(
    command: list[str], folder: Path, environment: dict[str, str], limit: float | None, show: bool | None
) -> tuple[int | None, str]:
    """Run a command in a process group of its own; return exit code (None after the time limit) and last output."""
    if STOPPING.is_set():
        raise RuntimeError("stopped")
    with tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace") as output:
        stream = None if show else output
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
        RUNNING.add(process.pid)
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            kill(process.pid)  # and whatever the tests left running
            process.wait()
            RUNNING.discard(process.pid)
        if STOPPING.is_set():  # its end says nothing about the tests
            raise RuntimeError("stopped")
        output.seek(0)
        return code, output.read()[-3000:]


# ---------------------------------------------------------------------------------------------- contexts


def digest(paths: Sequence[Path]) -> str:
    """Return a checksum of the content of some files."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def tests_digest(tests: Path) -> str:
    """Return a checksum of a test folder."""
    return digest([tests / name for name in tracked(tests)])


COVERAGE = """[run]
parallel = true
core = ctrace
data_file = {folder}/coverage/data
source = {root}/{package}
context = ${{PYTEST_CURRENT_TEST-}}
patch = _exit
sigterm = true
disable_warnings = no-data-collected,module-not-imported,module-not-measured,already-imported,dynamic-conflict,
    module-not-python,couldnt-parse,no-ctracer,trace-changed
"""


def contexts(options: argparse.Namespace) -> int:
    """Run the suite under coverage and write what each test executes into a folder."""
    import coverage

    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mutations_") as place:
        folder = Path(place).resolve()
        copy = Copy(options.checkout, options.tests, folder, options)
        (folder / "coverage").mkdir()
        settings = folder / "coverage.ini"
        settings.write_text(COVERAGE.format(folder=folder, root=copy.root, package=PACKAGE), encoding="utf-8")
        run = copy.pytest(
            options.paths, None, stop=False, show=True, environment={"COVERAGE_PROCESS_START": str(settings)}
        )
        if run.code not in {0, 1}:
            fail(f"pytest ended with exit code {run.code}")
        shared = json.loads((folder / "report.json.items").read_text(encoding="utf-8"))
        parts = [str(path) for path in (folder / "coverage").iterdir()]
        combined = coverage.Coverage(data_file=str(options.out / "coverage.sqlite"), config_file=False)
        combined.combine(parts, strict=True)
        combined.save()
        failing = run.report["failed"]
        if failing:
            print(f"{len(failing)} tests failed under coverage; running them once more without it")
            again = copy.pytest(
                _files(set(failing)), None, {"only": failing, "known": list(shared), "without": []}, stop=False
            )
            failing = again.report["failed"]
            print("\n".join([f"left out, fails without any mutation: {name}" for name in failing]))
        about = {
            "root": str(copy.root),
            "tests_digest": tests_digest(options.tests),
            "sources": {n: digest([copy.root / n]) for n in tracked(copy.root) if n.startswith(PACKAGE + "/")},
            "seconds": run.seconds,
            "failing": failing,
            "tests": {n: {"seconds": s, "shared": shared.get(n, [])} for n, s in run.report["tests"].items()},
        }
    write_json(options.out / "tests.json", about)
    print(f"{len(about['tests'])} tests in {run.seconds:.0f} s, written to {options.out}")
    return 0


class Contexts:
    """Which tests can be affected by a mutation; see "What the whole suite means" at the top of this file.

    Parameters
    ----------
    folder
        Output of the command ``contexts``.
    tests
        Test folder; must be the recorded one.
    """

    def __init__(self, folder: Path, tests: Path) -> None:
        import coverage

        about = read_json(folder / "tests.json")
        if about["tests_digest"] != tests_digest(tests):
            fail(f"{folder} was recorded with other tests than those of {tests}: run `contexts` again")
        self.root, self.sources, self.failing = about["root"], about["sources"], about["failing"]
        self.tests: dict[str, dict[str, Any]] = about["tests"]
        self.data = coverage.CoverageData(basename=str(folder / "coverage.sqlite"))
        self.data.read()
        self.lock = threading.Lock()
        self.cached, self.imported = _helper_groups(tests)

    @functools.cache  # noqa: B019  one object lives as long as the program
    def lines(self, file: str) -> dict[int, frozenset[tuple[str, str]]]:
        """Return the pairs of test and phase that execute each line of a file."""
        found = self.data.contexts_by_lineno(f"{self.root}/{file}")
        return {
            line: frozenset(pair for name in names if (pair := parse_context(name))) for line, names in found.items()
        }

    def selection(self, mutation: Mutation, checkout: Path) -> set[str]:
        """Return the node ids of the tests that can be affected; empty if no test executes the statement."""
        with self.lock:
            if self.sources.get(mutation.file) != digest([checkout / mutation.file]):
                fail(f"{mutation.file} changed since the recording: run `contexts` again")
            first, last = mutation.statement
            pairs = {p for n, found in self.lines(mutation.file).items() if first <= n <= last for p in found}
            if mutation.executed != "call" or not pairs:
                for file in [mutation.file, *importers(mutation.file, checkout)]:
                    pairs |= {pair for found in self.lines(file).values() for pair in found}
            return self.extended(pairs)

    def extended(self, pairs: set[tuple[str, str]]) -> set[str]:
        """Return the tests of the given pairs and those that share fixtures, helpers or imports with them."""
        names = {name for name, phase in pairs if phase != "collect" and name in self.tests}
        fixtures = {f for name, phase in pairs if phase in {"setup", "teardown"} for f in self.shared(name)}
        names |= {name for name in self.tests if fixtures.intersection(self.shared(name))}
        imports = set(_files({name for name, phase in pairs if phase == "collect"}))
        for group in self.imported:
            if group & imports:
                imports = imports | group
        files = set(_files(names))
        for group in self.cached:
            if group & files:
                imports |= group
        return names | {name for name in self.tests if name.split("::", maxsplit=1)[0] in imports}

    def shared(self, name: str) -> list[str]:
        """Return the module and session fixtures of a test."""
        return self.tests.get(name, {}).get("shared", [])

    def seconds(self, names: set[str]) -> float:
        """Return how long some tests took together when they were recorded."""
        return sum(self.tests[name]["seconds"] for name in names)


def parse_context(name: str) -> tuple[str, str] | None:
    """Return test and phase of a coverage context.

    >>> parse_context("tests/test_a.py::test_b[x|y]|call")
    ('tests/test_a.py::test_b[x|y]', 'call')
    >>> parse_context("tests/test_a.py::test_b (setup)")
    ('tests/test_a.py::test_b', 'setup')
    >>> parse_context("") is None
    True
    """
    match = re.fullmatch(r"(.*?)(?:\|| \()(collect|setup|call|teardown)\)?", name, re.DOTALL)
    return (match[1], match[2]) if match else None


def _helper_groups(tests: Path) -> tuple[list[set[str]], list[set[str]]]:
    """Return groups of test files that share a file with cached functions, and those that share a helper file."""
    texts = {f"tests/{n}": (tests / n).read_text(encoding="utf-8") for n in tracked(tests) if n.endswith(".py")}
    cached, helpers = [], []
    for file, text in texts.items():
        stem = re.escape(Path(file).stem)
        imports = re.compile(rf"^\s*(from|import)\b.*\b{stem}\b", re.MULTILINE)
        group = {file} | {other for other, content in texts.items() if imports.search(content)}
        if re.search(r"@(functools\.)?(cache|lru_cache)\b", text):
            cached.append(group)
        if not Path(file).name.startswith(("test_", "conftest")):
            helpers.append(group)
    return cached, helpers


@functools.cache
def importers(file: str, checkout: Path) -> tuple[str, ...]:
    """Return the files of the package that import a module directly."""
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    found = []
    for other in tracked(checkout):
        if other.startswith(PACKAGE + "/") and other.endswith(".py") and other != file:
            nodes = ast.walk(ast.parse(read_source(checkout / other)))
            if any(module in _imported(node) for node in nodes):
                found.append(other)
    return tuple(found)


def _imported(node: ast.AST) -> set[str]:
    """Return the dotted names of modules that an import statement may load."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return set()


# ---------------------------------------------------------------------------------------------- run


def mirrored(file: str, tests: Path) -> list[str]:
    """Return the test paths, relative to a checkout, that mirror a source file; see the top of this file."""
    place = Path(file).relative_to(PACKAGE)
    folder = tests / place.parent
    found = [*folder.glob(f"test_{place.stem}.py"), *folder.glob(f"test_{place.stem}_*.py")]
    while not found and tests in folder.parents:
        found = [folder] if folder.is_dir() else []
        folder = folder.parent
    return [*sorted(f"tests/{path.relative_to(tests).as_posix()}" for path in found), file]


def belongs(name: str, paths: Sequence[str]) -> bool:
    """Return whether a test belongs to one of some files or folders."""
    file = name.split("::", maxsplit=1)[0]
    return any(file == path or file.startswith(path.rstrip("/") + "/") for path in paths)


def _files(names: set[str]) -> list[str]:
    """Return the files of some tests; those of ``tests/`` first, because its ``conftest.py`` sets import hooks."""
    return sorted({name.split("::", maxsplit=1)[0] for name in names}, key=lambda file: (file[:6] != "tests/", file))


@dataclass
class Judge:
    """Decides whether a suite kills mutations.

    Attributes
    ----------
    options
        Options of the command ``run``.
    recorded
        Output of ``contexts``, or None to run every test.
    without
        Tests that are left out because they fail without any mutation.
    """

    options: argparse.Namespace
    recorded: Contexts | None
    without: set[str] = field(default_factory=set)
    confirmed: set[str] = field(default_factory=set)

    def judge(self, copy: Copy, mutation: Mutation) -> dict[str, Any]:
        """Run the tests of one mutation; return its status, what killed it and the seconds taken."""
        began = time.monotonic()
        unexecuted = self.recorded is not None and not self._executed(mutation)
        outcome: dict[str, Any] = {"status": "survived", "killers": [], "tests_run": 0}
        outcome["note"] = "no test executes the statement" if unexecuted else ""
        for status, (paths, only) in zip(STATUSES, self.stages(mutation, unexecuted), strict=False):
            if only is not None and not only:
                continue
            result = self.stage(copy, mutation, paths, only)
            outcome["tests_run"] += len(result.report.get("tests", {}))
            if not result.passed:
                outcome.update(status=status, killers=result.reasons)
                if not result.report.get("failed"):
                    outcome["output"] = result.tail
                break
        return {**outcome, "seconds": round(time.monotonic() - began, 1)}

    def stages(self, mutation: Mutation, unexecuted: bool) -> list[tuple[list[str], set[str] | None]]:
        """Return the paths and node ids of the two stages; None instead of node ids stands for all tests."""
        paths = mirrored(mutation.file, self.options.tests)
        if self.recorded is None:
            return [(paths, None), ([], None)]
        selection = set() if unexecuted else self.recorded.selection(mutation, self.options.checkout)
        if unexecuted or mutation.executed != "call":
            selection |= {name for name in self.recorded.tests if belongs(name, paths)}
        first = {name for name in selection if belongs(name, paths)}
        rest = selection - first
        return [(_files(first), first), (_files(rest), rest)]

    def _executed(self, mutation: Mutation) -> bool:
        """Return whether any test executes the statement of a mutation."""
        first, last = mutation.statement
        return any(self.recorded.lines(mutation.file).get(line) for line in range(first, last + 1))

    def stage(self, copy: Copy, mutation: Mutation, paths: Sequence[str], only: set[str] | None) -> Result:
        """Run some tests with the mutation until it survives or is killed by tests that pass without it."""
        while True:
            select = {
                "only": None if only is None else sorted(only),
                "known": sorted(self.recorded.tests) if self.recorded else [],
                "without": sorted(self.without),
            }
            limit = self.options.timeout
            if only is not None:
                limit = min(limit, 180 + 8 * self.recorded.seconds(only))
            source = read_source(copy.root / mutation.file)
            copy.write(mutation.file, mutation.apply(source))
            try:
                result = copy.pytest(paths, limit, select)
            finally:
                copy.write(mutation.file, source)
            failed = set(result.report.get("failed", []))
            if result.code is None and only is not None and copy.pytest(paths, limit, select).code is None:
                fail(f"the time limit of {limit:.0f} s is exceeded without any mutation, too: is the machine busy?")
            if result.passed or self.confirms(copy, paths, failed):
                return result

    def confirms(self, copy: Copy, paths: Sequence[str], failed: set[str]) -> bool:
        """Return whether tests pass without a mutation; if not, leave them out from now on."""
        if not failed:  # the time limit, a crash, or an error during collection
            listed = copy.pytest(paths, None, arguments=["--collect-only"])
            if not listed.passed:
                fail(f"tests cannot be collected without any mutation:\n{listed.tail}")
            return True
        if failed <= self.confirmed:
            return True
        known = self.recorded.tests if self.recorded else ()
        where = _files(failed) if self.recorded else sorted(failed)
        again = copy.pytest(
            where, self.options.timeout, {"only": sorted(failed), "known": sorted(known), "without": []}
        )
        if again.passed:
            self.confirmed |= failed
            return True
        self.without |= failed
        print(f"left out, fails without any mutation: {', '.join(sorted(failed))}", flush=True)
        return False


def load_results(options: argparse.Namespace, drawn: list[Mutation]) -> dict[str, Any]:
    """Return the results so far; end the program if they belong to another list or suite."""
    head = {
        "list": hashlib.sha256(json.dumps([asdict(m) for m in drawn]).encode()).hexdigest()[:16],
        "tests": tests_digest(options.tests),
    }
    if not options.out.exists():
        return {**head, "marker": options.marker, "command": shlex.join(sys.argv), "left_out": [], "results": {}}
    before = read_json(options.out)
    for key, value in head.items():
        if before[key] != value:
            fail(f"{options.out} holds results of another {key}: choose another --out")
    return before


def run(options: argparse.Namespace) -> int:
    """Judge all mutations of a list that have no result yet, then print the table."""
    drawn = [mutation_of(values) for values in read_json(options.list)]
    for mutation in drawn:
        try:
            mutation.apply(read_source(options.checkout / mutation.file))
        except (OSError, ValueError) as problem:
            fail(str(problem))
    kept = load_results(options, drawn)
    todo = [index for index in range(len(drawn)) if str(index) not in kept["results"]]
    if todo:
        recorded = Contexts(options.contexts, options.tests) if options.contexts else None
        judge = Judge(options, recorded, set(kept["left_out"]) | set(recorded.failing if recorded else ()))
        for index, outcome in judged(judge, drawn, todo):
            kept["results"][str(index)] = {"mutation": asdict(drawn[index]), **outcome}
            kept["left_out"] = sorted(judge.without)
            write_json(options.out, kept)
    print(table(kept))
    return 0


def judged(judge: Judge, drawn: list[Mutation], todo: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield index and outcome of mutations as they are done, and print the progress."""
    options = judge.options
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutations_", ignore_cleanup_errors=True) as place:
        free: list[Copy] = []
        for worker in range(min(options.workers, len(todo))):
            (folder := Path(place).resolve() / str(worker)).mkdir()
            free.append(Copy(options.checkout, options.tests, folder, options))

        def work(index: int) -> tuple[int, dict[str, Any]]:
            copy = free.pop()
            try:
                return index, judge.judge(copy, drawn[index])
            finally:
                free.append(copy)

        with concurrent.futures.ThreadPoolExecutor(len(free)) as pool:
            futures = [pool.submit(work, index) for index in todo]
            try:
                for done, future in enumerate(concurrent.futures.as_completed(futures), 1):
                    index, outcome = future.result()
                    left = (time.monotonic() - began) / done * (len(todo) - done)
                    counted = f"[{len(drawn) - len(todo) + done:3}/{len(drawn)}]"
                    took = f"{outcome['seconds']:.0f} s, about {left / 60:.0f} min left"
                    print(f"{counted} {outcome['status']:26} {drawn[index].title()}  {took}", flush=True)
                    yield index, outcome
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                stop()


def counts(kept: dict[str, Any]) -> list[int]:
    """Return how many mutations have each status."""
    found = Counter(result["status"] for result in kept["results"].values())
    return [found[status] for status in STATUSES]


def table(kept: dict[str, Any]) -> str:
    """Return the summary of a suite and its survivors with their changed lines."""
    lines = [f"{'':28}{'mutations':>9}"]
    lines += [f"{status:28}{count:9}" for status, count in zip(STATUSES, counts(kept), strict=True)]
    by_root: dict[str, list[int]] = {}
    for result in kept["results"].values():
        root = "/".join(result["mutation"]["file"].split("/")[:2])
        row = by_root.setdefault(root, [0, 0])
        row[0] += result["status"] != "survived"
        row[1] += 1
    lines += ["", *(f"{root:28}{killed:5} of {total}" for root, (killed, total) in by_root.items())]
    for result in kept["results"].values():
        mutation = mutation_of(result["mutation"])
        if result["status"] == "survived":
            note = f"  [{result['note']}]" if result["note"] else ""
            lines += [
                "",
                f"survived: {mutation.title()}  in {mutation.function or 'the module'}{note}",
                mutation.diff(),
            ]
        elif "time limit exceeded" in result["killers"]:
            lines += ["", f"time limit exceeded: {mutation.title()}", mutation.diff()]
    if kept["left_out"]:
        lines += ["", "left out, fail without any mutation:", *(f"    {name}" for name in kept["left_out"])]
    return "\n".join(lines)


def compare(options: argparse.Namespace) -> int:
    """Print both suites beside one another; return 1 if the second kills fewer mutations of those judged by both."""
    first, second = (read_json(path) for path in (options.first, options.second))
    if first["list"] != second["list"]:
        fail("the results belong to different lists of mutations")
    both = [index for index in first["results"] if index in second["results"]]
    for kept in (first, second):
        if len(kept["results"]) > len(both):
            print(f"only the {len(both)} mutations judged by both suites are compared")
        kept["results"] = {index: kept["results"][index] for index in both}
    print(f"{'':28}{options.first.stem[:15]:>16}{options.second.stem[:15]:>16}")
    for status, a, b in zip(STATUSES, counts(first), counts(second), strict=True):
        print(f"{status:28}{a:16}{b:16}")
    for index in both:
        a, b = first["results"][index], second["results"][index]
        if (a["status"] == "survived") != (b["status"] == "survived"):
            mutation = mutation_of(a["mutation"])
            killer = (a["killers"] or b["killers"])[0]
            only = options.first.stem if b["status"] == "survived" else options.second.stem
            print(f"\nkilled only by {only} ({killer}): {mutation.title()}\n{mutation.diff()}")
    return int(counts(second)[-1] > counts(first)[-1])


# ---------------------------------------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(description="Mutation testing: how many small faults does a test suite find?")
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, function: Any) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=function.__doc__.split("\n")[0], description=function.__doc__)
        made.set_defaults(function=function)
        return made

    def running(made: argparse.ArgumentParser) -> None:
        made.add_argument("--tests", type=Path, default=Path("tests"), metavar="DIR", help="test folder (tests)")
        made.add_argument("--python", default=sys.executable, help="interpreter that runs pytest (this one)")
        made.add_argument("--marker", default="not slow", help="pytest's -m ('not slow')")
        made.add_argument("--pytest-args", default="", metavar="ARGS", help="more arguments of pytest, as one word")

    made = command("draw", draw)
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON list to write")
    made.add_argument("--count", type=int, default=COUNT, help=f"number of mutations ({COUNT})")
    made.add_argument("--seed", type=int, default=SEED, help=f"seed of the draw ({SEED})")
    made.add_argument("--roots", nargs="+", default=ROOTS, metavar="DIR", help=f"packages ({' '.join(ROOTS)})")
    made.add_argument("--exclude", nargs="*", default=EXCLUDED, metavar="GLOB", help=f"files ({' '.join(EXCLUDED)})")
    made = command("contexts", contexts)
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    made.add_argument("--paths", nargs="*", default=[], metavar="PATH", help="tests instead of the whole suite")
    running(made)
    made = command("run", run)
    made.add_argument("--list", type=Path, required=True, metavar="FILE", help="output of draw")
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="results; an existing file is continued")
    made.add_argument("--contexts", type=Path, metavar="DIR", help="output of contexts for the same tests")
    made.add_argument("--workers", type=int, default=1, help="mutations at a time (1)")
    made.add_argument("--timeout", type=float, default=3600.0, help="seconds of one run of pytest (3600)")
    running(made)
    made = command("compare", compare)
    made.add_argument("first", type=Path, help="results of the first suite (the full one)")
    made.add_argument("second", type=Path, help="results of the second suite (the thinned one)")
    return top


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    options = parser().parse_args(words)
    options.checkout = Path(__file__).resolve().parent.parent
    if hasattr(options, "tests"):
        options.tests = options.tests.resolve()
        if not options.tests.is_dir():
            fail(f"{options.tests} is not a folder")
    return options.function(options)


if __name__ == "__main__":
    sys.exit(main())
