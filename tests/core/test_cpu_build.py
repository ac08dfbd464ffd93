"""Compiled kernels: compiled once per source, compiler and flags; the reference implementation without a compiler."""

import ctypes
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from enerf.core import build_cache, cpu_build
from enerf.core.device import is_out_of_memory
from enerf.fields.backends import cpu_hashgrid, hashgrid

ANSWER = 'extern "C" int answer() {{ return {}; }}\n'


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """No kernel is loaded, the cache is empty, temporary files have a folder, and log lines are captured."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("ENERF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(logging.getLogger("enerf"), "propagate", True)
    _new_process()
    yield
    _new_process()


def _new_process() -> None:
    for function in (cpu_build.library, cpu_build._version, build_cache._process_folder):
        function.cache_clear()
    build_cache._warned.clear()


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
    return sorted((tmp_path / "cache").glob("*"))


def test_without_a_compiler_there_is_no_kernel_and_one_line_says_so(monkeypatch, tmp_path, caplog):
    _hide_compilers(monkeypatch)
    source = _source(tmp_path, ANSWER.format(42))
    with caplog.at_level(logging.INFO, "enerf"):
        assert cpu_build.library(source) is None
        assert cpu_build.library(source) is None
    message = "no C++ compiler was found: answer.cpp is not used, its reference implementation is"
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
    assert message.endswith("): its reference implementation is used")
    assert _kept(tmp_path) == []


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
    _new_process()
    assert cpu_build.library(source).answer() == 42
    assert _kept(tmp_path) == [made]
    assert made.stat().st_mtime_ns == before


@needs_compiler
def test_another_source_of_the_same_name_is_another_kernel(tmp_path):
    source = _source(tmp_path, ANSWER.format(42))
    assert cpu_build.library(source).answer() == 42
    _new_process()
    source.write_text(ANSWER.format(43), encoding="utf-8")
    assert cpu_build.library(source).answer() == 43
    assert len(_kept(tmp_path)) == 2


@pytest.mark.parametrize("flags", [("-O1",), ("-O2",)])
@needs_compiler
def test_other_flags_are_another_kernel(monkeypatch, tmp_path, flags):
    source = _source(tmp_path, ANSWER.format(42))
    cpu_build.library(source)
    _new_process()
    monkeypatch.setattr(cpu_build, "FLAGS", (*flags, "-shared", "-fPIC"))
    cpu_build.library(source)
    assert len(_kept(tmp_path)) == 2


# the compiler


def _script(folder: Path, text: str, name: str = "compiler") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


posix = pytest.mark.skipif(os.name != "posix", reason="shell scripts stand for compilers")


@needs_compiler
def test_a_compiler_without_openmp_makes_the_kernel_without_threads_and_a_warning_says_so(
    monkeypatch, tmp_path, caplog
):
    monkeypatch.setattr(cpu_build, "THREADS", (("--no-such-option",), ()))
    assert cpu_build.library(_source(tmp_path, ANSWER.format(42))).answer() == 42
    (message,) = (record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert message.startswith("answer.cpp is compiled without --no-such-option, for one thread (")


@needs_compiler
@pytest.mark.parametrize("given", ["no-such-compiler -O2", "'g++"])
def test_a_compiler_that_does_not_exist_is_named_and_another_one_is_used(monkeypatch, tmp_path, caplog, given):
    monkeypatch.setenv("CXX", given)
    assert cpu_build.library(_source(tmp_path, ANSWER.format(42))).answer() == 42
    (message,) = (record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert message.startswith(f"CXX={given}")
    assert message.endswith(f"{cpu_build.find_compiler()[0]} is used")


@posix
def test_the_command_of_the_compiler_may_have_arguments_and_its_path_spaces(monkeypatch, tmp_path):
    path = str(_script(tmp_path, "true", "my compiler"))
    for given, words in [(path, (path,)), (f"'{path}' -O2", (path, "-O2")), ("sh -c 'a b'", ("sh", "-c", "a b"))]:
        monkeypatch.setenv("CXX", given)
        assert cpu_build.find_compiler() == words


@posix
def test_a_compiler_that_hangs_is_stopped_with_its_children_and_asked_once(monkeypatch, tmp_path, caplog):
    marker = tmp_path / "started"
    script = _script(tmp_path, f"echo x >> {marker}; sleep 1000 & echo $! >> {tmp_path}/child; wait")
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setattr(cpu_build, "VERSION_SECONDS", 0.5)
    start = time.monotonic()
    for name in ("a.cpp", "b.cpp"):
        assert cpu_build.library(tmp_path / name) is None
    assert time.monotonic() - start < 20
    assert marker.read_text() == "x\n"
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/cmdline")
    assert not child.exists() or child.read_bytes() == b""  # ended, perhaps not yet waited for
    assert all("stopped after 0.5 seconds" in message for message in caplog.messages)


@posix
def test_messages_in_other_encodings_and_empty_results_are_a_reason(monkeypatch, tmp_path, caplog):
    source = _source(tmp_path, ANSWER.format(42))
    monkeypatch.setenv(
        "CXX", str(_script(tmp_path, r"""[ "$1" = --version ] || { printf '\351rror\n' >&2; exit 1; }"""))
    )
    assert cpu_build.library(source) is None
    monkeypatch.setenv("CXX", str(_script(tmp_path, r"printf '\351'", "silent")))
    _new_process()
    assert cpu_build.library(source) is None
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "(\N{REPLACEMENT CHARACTER}rror)" in warned[0]
    assert "(it made no library)" in warned[1]


# the cache


@needs_compiler
@pytest.mark.parametrize("damage", ["cut", "zeros", "one bit", "empty", "folder", "link"])
def test_a_damaged_library_is_never_loaded_but_compiled_again(tmp_path, caplog, damage):
    source = _source(tmp_path, ANSWER.format(42))
    cpu_build.library(source)
    (made,) = _kept(tmp_path)
    content = made.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    written = {"cut": content[:5000], "zeros": bytes(len(content)), "one bit": bytes(flipped), "empty": b""}
    made.unlink()
    if damage == "folder":
        made.mkdir()
    elif damage == "link":
        (tmp_path / "elsewhere.so").write_bytes(content)
        made.symlink_to(tmp_path / "elsewhere.so")
    else:
        made.write_bytes(written[damage])
    _new_process()
    assert cpu_build.library(source).answer() == 42
    assert any(message.startswith(f"{made}: ") and "again" in message for message in caplog.messages)
    if damage != "folder":
        assert made.read_bytes() == content
        assert not made.is_symlink()


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_folders_and_files_of_other_users_are_refused_with_a_word(tmp_path, caplog, what):
    source, cache = _source(tmp_path, ANSWER.format(42)), tmp_path / "cache"
    cpu_build.library(source)
    (made,) = _kept(tmp_path)
    os.chown(cache if what == "folder" else made, 12345, -1)
    _new_process()
    assert cpu_build.library(source).answer() == 42
    assert any("owned by another user (number 12345)" in message for message in caplog.messages)


@needs_compiler
@posix
@pytest.mark.parametrize(("what", "mode"), [("folder", 0o777), ("folder", 0o770), ("file", 0o666)])
def test_what_other_users_may_write_to_is_refused_with_a_word(tmp_path, caplog, what, mode):
    source, cache = _source(tmp_path, ANSWER.format(42)), tmp_path / "cache"
    cpu_build.library(source)
    (made,) = _kept(tmp_path)
    (cache if what == "folder" else made).chmod(mode)
    _new_process()
    assert cpu_build.library(source).answer() == 42
    assert any(f"other users may write to it (mode {mode:o}" in message for message in caplog.messages)
    (second,) = [path for path in tmp_path.rglob("answer-*.so") if path.stat().st_ino != made.stat().st_ino] or [made]
    assert not second.stat().st_mode & 0o077
    assert not second.parent.stat().st_mode & 0o077 or what == "file"


@posix
def test_a_default_folder_that_an_earlier_version_left_open_to_the_group_is_closed_and_used(monkeypatch, tmp_path):
    monkeypatch.delenv("ENERF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "enerf"
    folder.mkdir()
    folder.chmod(0o775)
    assert next(iter(build_cache.libraries("answer-1", lambda: b"content"))).parent == folder
    assert folder.stat().st_mode & 0o777 == 0o755


@needs_compiler
@posix
@pytest.mark.parametrize("place", ["file", "fifo", "below a file", "device", "loop", "no home", "relative home"])
def test_a_cache_folder_that_cannot_be_is_replaced_by_a_temporary_one_that_lasts(monkeypatch, tmp_path, caplog, place):
    source, occupied = _source(tmp_path, ANSWER.format(42)), tmp_path / "occupied"
    monkeypatch.setenv("ENERF_CACHE", str(occupied))
    if place in ("file", "below a file"):
        occupied.write_text("", encoding="utf-8")
        monkeypatch.setenv("ENERF_CACHE", str(occupied if place == "file" else occupied / "cache"))
    elif place == "fifo":
        os.mkfifo(occupied)
    elif place == "device":
        monkeypatch.setenv("ENERF_CACHE", os.devnull)
    elif place == "loop":
        occupied.symlink_to(occupied)
    else:
        monkeypatch.delenv("ENERF_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        monkeypatch.setenv("HOME", "" if place == "no home" else "somewhere")
    for _ in range(2):
        _new_process()
        assert cpu_build.library(source).answer() == 42
    (folder,) = (tmp_path / "temporary").iterdir()
    assert len(list(folder.iterdir())) == 1
    assert len({message for message in caplog.messages if "kernels are" in message}) == 1


@needs_compiler
def test_a_full_or_read_only_cache_is_replaced_too_and_then_only_read(monkeypatch, tmp_path, caplog):
    source, real = _source(tmp_path, ANSWER.format(42)), tempfile.mkstemp

    def full(*args: object, **options: object) -> object:
        if str(options["dir"]).endswith("cache"):
            raise OSError(28, "No space left on device")
        return real(*args, **options)

    monkeypatch.setattr(tempfile, "mkstemp", full)
    assert cpu_build.library(source).answer() == 42
    assert any("No space left on device" in message for message in caplog.messages)
    _new_process()
    monkeypatch.setattr(cpu_build, "_compile", None)
    assert cpu_build.library(source).answer() == 42


def test_a_temporary_folder_of_somebody_else_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setattr(build_cache, "cache_folder", lambda: None)
    squatted = tmp_path / "temporary" / f"enerf-cache-{getattr(os, 'geteuid', lambda: 'user')()}"
    squatted.write_text("", encoding="utf-8")
    (path,) = build_cache.libraries("answer-1", lambda: b"content")
    assert path.parent != squatted
    assert path.read_bytes() == b"content"
    if os.name == "posix":
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_processes_that_store_at_once_leave_whole_files_and_nothing_else(tmp_path):
    code = (
        "import sys; from enerf.core import build_cache\n"
        "build = lambda: bytes([int(sys.argv[1])]) * 1_000_000\n"
        "for _ in range(10): path = build_cache._stored(build_cache.cache_folder(), 'answer-1', build())"
    )
    (tmp_path / "cache").mkdir(mode=0o700)
    running = [subprocess.Popen([sys.executable, "-c", code, str(i % 2)]) for i in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    found = list(build_cache.libraries("answer-1", lambda: b""))[:2]
    assert {path.read_bytes()[:1] for path in found} == {b"\0", b"\1"}
    assert all(path.suffix == ".so" for path in _kept(tmp_path))


def test_files_of_killed_processes_are_removed_when_they_are_old(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    old, new = cache / "writing-a", cache / "writing-b"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    next(build_cache.libraries("answer-1", lambda: b"content"))
    assert not old.exists()
    assert new.exists()


def test_without_a_choice_kernels_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("ENERF_CACHE")
    monkeypatch.setattr(build_cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cpu_build.cache_folder() == tmp_path / "enerf"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cpu_build.cache_folder() == tmp_path / ".cache" / "enerf"


def test_a_chosen_folder_may_begin_with_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ENERF_CACHE", "~/kernels")
    assert cpu_build.cache_folder() == tmp_path / "kernels"


def test_a_status_is_an_exception_that_halves_chunks_if_memory_is_lacking():
    cpu_build.check(0, "k")
    with pytest.raises(MemoryError, match="the kernel k could not allocate memory") as error:
        cpu_build.check(cpu_build.NO_MEMORY, "k")
    assert is_out_of_memory(error.value)
    with pytest.raises(RuntimeError, match="the kernel k failed"):
        cpu_build.check(2, "k")
