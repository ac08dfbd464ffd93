"""Documentation: its Python code runs, and the files, links and options that it names exist."""

import os
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch

from enerf.conditioning import condition, layer_report
from enerf.config.methods import SHAPES

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
ENTRIES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "data/README.md")
PAGES = [*(ROOT / name for name in ENTRIES), *sorted((ROOT / "docs").rglob("*.md"))]
ELSEWHERE = {"imgs2poses.py"}  # files of other projects
PLACEHOLDER = re.compile(r"[A-Z]{3}|[*]|^logs/|^path/")  # such as SCENE, or a file that a run writes


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def fenced(page: Path, language: str) -> list[str]:
    """Code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def code(page: Path) -> str:
    """All code of a page: fenced, indented or inline; one piece a line."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^ {4}(\S.*)$", rest, re.MULTILINE)
    return "\n".join([*blocks, *indented, *re.findall(r"`([^`]+)`", rest)])


def prose(page: Path) -> str:
    """A page without its fenced code."""
    return re.sub(r"^```\w*\n.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@cache
def tracked() -> tuple[str, ...]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(listed.splitlines())


@cache
def words_of_the_code() -> set[str]:
    """Every identifier in the sources; options are fields or arguments among them."""
    sources = [ROOT / name for name in tracked() if re.match(r"(enerf|scripts|benchmarks)/.*\.(py|sh)$", name)]
    return {word for path in sources if path.is_file() for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}


WITH_PYTHON = [page for page in PAGES if fenced(page, "python")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=page_id)
def test_python_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    names: dict[str, object] = {"__name__": "__docs__"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for number, block in enumerate(fenced(page, "python"), start=1):
            exec(compile(block, f"{page_id(page)}, Python block {number}", "exec"), names)


def test_every_public_name_has_code_that_is_run():
    api = "\n".join(fenced(ROOT / "docs/api.md", "python"))
    names = ["condition", "bake", "conditioned_layers", "select", "baked_state", "unbaked_state", "computed_once"]
    names += ["condition_tensor", "register_layer", "register_map", "unknown_layers", "parameter_groups"]
    names += ["upgraded_state", "upgraded_optimizer_state"]
    names += ["IntrinsicAdam", "IntrinsicRMSprop", "IntrinsicAdagrad", "sparsity", "layer_report", "enerf.open_run"]
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", api)] == []


def section(page: str, heading: str) -> str:
    """The text below a heading of the second level."""
    return (ROOT / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("package", ["enerf.conditioning", "enerf.conditioning.diagnostics", "enerf.optim"])
def test_the_page_of_the_api_describes_every_name_that_a_package_exports(package: str):
    text = re.sub(r"^```\w*\n.*?^```", "", section("docs/api.md", package), flags=re.DOTALL | re.MULTILINE)
    words = {word for quoted in re.findall(r"`([^`]+)`", text) for word in re.findall(r"\w+", quoted)}
    assert [name for name in import_module(package).__all__ if name not in words] == []


def test_the_page_of_the_api_describes_every_statistic_of_a_layer():
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.MultiheadAttention(8, 2))
    condition(net, "row", ["0"])
    (row,) = re.findall(
        r"^\| `layer_report\(.*$", section("docs/api.md", "enerf.conditioning.diagnostics"), re.MULTILINE
    )
    statistics = {key for each in layer_report(net).values() for key in each}
    assert {"stable_rank_raw", "kappa_all_heads"} < statistics
    assert sorted(key for key in statistics if f"`{key}`" not in row) == []


def test_the_table_of_methods_has_every_one_of_comparisons_of_fields_with_its_options():
    rows = [line.split(" | ") for line in section("docs/runs.md", "Comparisons").splitlines() if line.startswith("| `")]
    row_of = {name: f"{names} {options}" for names, options in rows for name in re.findall(r"`(\w+)`", names)}
    assert sorted(row_of) == sorted(SHAPES.changes)
    for method, changes in SHAPES.changes.items():
        for option, value in changes.items():
            if option != "lrate_matrices":  # methods without an optimizer of matrices reset it
                assert f"--{option}" in row_of[method], method
                assert value is True or re.search(rf"(?<![\w+]){re.escape(str(value))}(?![\w+])", row_of[method]), (
                    method
                )


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files_and_headings_that_exist(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_scripts_and_modules_that_are_named_exist(page: Path):
    known = tracked()
    for name in re.findall(r"(?<![\w.])((?:\w+/)*\w+\.(?:py|sh|cpp))\b", code(page)):
        found = any(f"/{path}".endswith(f"/{name}") for path in known)
        assert found or name in ELSEWHERE or PLACEHOLDER.search(name), name


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_configurations_that_are_named_exist(page: Path):
    text = code(page)
    named = set(re.findall(r"--config[ =]([\w/*]+\.txt)", text))
    shipped = r"^((?:fast|cpu|paper)/[\w*]+\.txt|(?:shape|cifar|classifier|imagenet)_\w+\.txt)$"
    named |= set(re.findall(shipped, text, re.MULTILINE))
    for name in named:
        assert PLACEHOLDER.search(name) or (ROOT / "configs" / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_options_that_are_named_exist(page: Path):
    named = set(re.findall(r"(?<![\w-])--([A-Za-z]\w*)", code(page))) - {"OPTION"}
    assert sorted(named - words_of_the_code()) == []


def test_the_readme_stays_an_entry_page():
    assert README.stat().st_size <= 8192
    assert len(re.findall(r"!\[[^]]*\]\(", README.read_text(encoding="utf-8"))) == 1


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_lines_of_code_fit_a_page(page: Path):
    for block in [*fenced(page, "python"), *fenced(page, "bash")]:
        assert max(map(len, block.splitlines())) <= 150
