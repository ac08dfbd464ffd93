"""Triton's compiler for a GPU of compute capability 9.0 that need not be there."""

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from enerf.fields.backends import triton_kernels

requires_compiler = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or triton_kernels.interpreted(),
    reason="triton is not installed, or its interpreter is enabled, which compiles nothing",
)


def compiled(name: str, kinds: dict[str, Any], known: dict[str, Any], warps: int, cache: Path) -> Any:
    """A kernel compiled by its name: types of its arguments, values of its constants, warps, folder of the cache."""
    triton, backends = importlib.import_module("triton"), importlib.import_module("triton.backends.compiler")
    kernel = triton_kernels.load(name)
    types = {argument: "constexpr" if argument in known else kinds[argument] for argument in kernel.arg_names}
    source = triton.compiler.ASTSource(kernel, types, known)
    options = {"num_warps": warps, "num_stages": 3, "enable_fp_fusion": True}
    with patch.dict(os.environ, TRITON_CACHE_DIR=str(cache)):
        return triton.compile(source, target=backends.GPUTarget("cuda", 90, 32), options=options)
