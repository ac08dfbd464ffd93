"""Tests of conventions of the code that no linter checks."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "enerf").rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
HEAVY = ("torch", "numpy", "cv2", "imageio", "matplotlib", "tensorboard")


def is_plain(node: ast.stmt) -> bool:
    """Whether a statement of an ``__init__`` is a value, or a part of lazy exports (PEP 562)."""
    match node:
        case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
            calls = [part.func for part in ast.walk(value) if isinstance(part, ast.Call)]
            return all(isinstance(func, ast.Attribute) and func.attr == "items" for func in calls)
        case ast.Import(names=[ast.alias(name=module)]) | ast.ImportFrom(module=str(module)):
            names = [alias.name for alias in node.names]
            return module.split(".")[0] in sys.stdlib_module_names or names == ["_moved"]
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body, orelse=[]):
            return all(isinstance(inner, ast.ImportFrom) for inner in body)
        case ast.FunctionDef(name=name):
            return name in {"__getattr__", "__dir__"}
    return ast.unparse(node) == "_moved.register()"  # module paths of the previous release


def test_init_files_contain_a_docstring_plain_values_and_lazy_exports_only():
    for path in (p for p in MODULES if p.name == "__init__.py"):
        first, *rest = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(first, ast.Expr), path
        assert isinstance(first.value, ast.Constant), path
        assert [ast.unparse(node) for node in rest if not is_plain(node)] == [], path


def test_the_top_level_contains_packages_only():
    assert {p.name for p in (ROOT / "enerf").iterdir() if p.is_file()} == {"__init__.py", "py.typed"}


def test_modules_do_not_import_the_top_level_package():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert "enerf" not in [alias.name for alias in node.names], path
            if isinstance(node, ast.ImportFrom):
                assert node.module != "enerf", path


def test_files_are_short_and_have_specific_names():
    for path in MODULES + SCRIPTS:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 500, path
        assert path.stem not in {"utils", "util", "helpers", "common", "base", "misc"}, path


def test_functions_are_short():
    for path in MODULES + SCRIPTS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                docstring = ast.get_docstring(node, clean=False) or ""
                length = node.end_lineno - node.lineno + 1 - docstring.count("\n")
                assert length <= 60, f"{path}: {node.name} is {length} lines long without its docstring"


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, enerf; print([m for m in {HEAVY} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_files_named_in_the_readme_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"(?:scripts|benchmarks)/[\w/]+\.(?:py|sh)", readme):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"--config ([\w/]+\.txt)", readme):
        assert (ROOT / "configs" / name).is_file(), name
    for name in re.findall(r"\]\((benchmarks/[^)#]+)\)", readme):
        assert (ROOT / name).exists(), name


def test_no_file_names_absolute_local_paths():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wrong = re.compile(r"/(?:work|root|home)/\w|/tmp/(?!\w*\{)")
    for name in tracked.split():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".txt", ".toml", ".sh"} and path != Path(__file__) and path.is_file():
            assert not wrong.search(path.read_text(encoding="utf-8")), name
