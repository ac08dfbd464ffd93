"""Compiled kernels: compiled once per source, compiler and flags; the reference implementation without a compiler."""

import ctypes
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch

from enerf.core import cpu_build
from enerf.fields.backends import cpu_hashgrid, hashgrid

ANSWER = 'extern "C" int answer() {{ return {}; }}\n'


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """No kernel is loaded, the cache is empty, and log lines are captured."""
    monkeypatch.setenv("ENERF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(logging.getLogger("enerf"), "propagate", True)
    cpu_build.library.cache_clear()
    yield
    cpu_build.library.cache_clear()


@pytest.fixture
def _compiler() -> None:
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++")):
        pytest.skip("no C++ compiler")


needs_compiler = pytest.mark.usefixtures("_compiler")


def _source(folder: Path, text: str) -> Path:
    path = folder / "answer.cpp"
    path.write_text(text, encoding="utf-8")
    return path


def _hide_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)


def _kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").iterdir())


def test_without_a_compiler_there_is_no_kernel_and_one_line_says_so(monkeypatch, tmp_path, caplog):
    _hide_compilers(monkeypatch)
    source = _source(tmp_path, ANSWER.format(42))
    with caplog.at_level(logging.INFO, "enerf"):
        assert cpu_build.library(source) is None
        assert cpu_build.library(source) is None
    message = "no C++ compiler was found: answer.cpp is not used, its torch reference implementation is"
    assert caplog.messages == [message]


def test_without_a_compiler_the_encoding_is_its_reference_implementation(monkeypatch):
    _hide_compilers(monkeypatch)
    _assert_the_reference_is_used()


def _assert_the_reference_is_used() -> None:
    assert not cpu_hashgrid.available()
    grid = hashgrid.make_grid(2, 2, 9, 4, 16)
    generator = torch.Generator().manual_seed(0)
    points, table = torch.rand(9, 3, generator=generator), torch.rand(grid.offsets[-1], 2, generator=generator)
    assert torch.equal(cpu_hashgrid.encode(points, table, grid), hashgrid.encode(points, table, grid))


@needs_compiler
def test_a_broken_source_is_logged_once_with_the_reason_and_the_reference_is_used(monkeypatch, tmp_path, caplog):
    source = _source(tmp_path, "int answer() { return forty_two; }\n")
    monkeypatch.setattr(cpu_hashgrid, "SOURCE", source)
    with caplog.at_level(logging.WARNING, "enerf"):
        _assert_the_reference_is_used()
        _assert_the_reference_is_used()
    (message,) = caplog.messages
    assert message.startswith("answer.cpp could not be compiled by ")
    assert message.endswith("): its torch reference implementation is used")
    assert _kept(tmp_path) == []


def test_a_compiler_that_is_not_there_is_told_by_name(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.WARNING, "enerf"):
        assert cpu_build.library(_source(tmp_path, ANSWER.format(42))) is None
    (message,) = caplog.messages
    assert "could not be compiled by no-such-compiler" in message


@needs_compiler
def test_a_kernel_is_a_library_of_plain_functions(tmp_path):
    library = cpu_build.library(_source(tmp_path, ANSWER.format(42)))
    assert isinstance(library, ctypes.CDLL)
    assert library.answer() == 42


@needs_compiler
def test_a_kernel_is_compiled_once_and_kept_in_the_chosen_folder(monkeypatch, tmp_path):
    source = _source(tmp_path, ANSWER.format(42))
    cpu_build.library(source)
    (made,) = _kept(tmp_path)
    assert made.match("answer-*.so")
    assert cpu_build.cache_folder() == made.parent
    before = made.stat().st_mtime_ns
    cpu_build.library.cache_clear()  # as in a new process
    assert cpu_build.library(source).answer() == 42
    assert _kept(tmp_path) == [made]
    assert made.stat().st_mtime_ns == before


@needs_compiler
def test_another_source_of_the_same_name_is_another_kernel(tmp_path):
    source = _source(tmp_path, ANSWER.format(42))
    assert cpu_build.library(source).answer() == 42
    cpu_build.library.cache_clear()
    source.write_text(ANSWER.format(43), encoding="utf-8")
    assert cpu_build.library(source).answer() == 43
    assert len(_kept(tmp_path)) == 2


@pytest.mark.parametrize("flags", [("-O1",), ("-O2",)])
@needs_compiler
def test_other_flags_are_another_kernel(monkeypatch, tmp_path, flags):
    source = _source(tmp_path, ANSWER.format(42))
    cpu_build.library(source)
    cpu_build.library.cache_clear()
    monkeypatch.setattr(cpu_build, "FLAGS", (*flags, "-shared", "-fPIC"))
    cpu_build.library(source)
    assert len(_kept(tmp_path)) == 2


@needs_compiler
def test_a_compiler_without_threads_makes_the_kernel_without_them(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu_build, "THREADS", (("--no-such-option",), ()))
    assert cpu_build.library(_source(tmp_path, ANSWER.format(42))).answer() == 42


@needs_compiler
def test_a_folder_that_cannot_be_made_leaves_the_reference_implementation(monkeypatch, tmp_path, caplog):
    occupied = tmp_path / "file"
    occupied.write_text("", encoding="utf-8")
    monkeypatch.setenv("ENERF_CACHE", str(occupied / "cache"))
    with caplog.at_level(logging.WARNING, "enerf"):
        assert cpu_build.library(_source(tmp_path, ANSWER.format(42))) is None
    assert len(caplog.messages) == 1


def test_without_a_choice_kernels_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("ENERF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cpu_build.sys, "platform", "linux")
    assert cpu_build.cache_folder() == tmp_path / "enerf"
