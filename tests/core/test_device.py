"""Device resolution, matrix products and memory settings."""

import pytest
import torch

from enerf.core import device as core_device
from enerf.core.errors import InputError


def test_named_devices_are_those_of_torch():
    assert core_device.resolve_device("cpu") == torch.device("cpu")
    cuda = torch.cuda.is_available()
    assert core_device.resolve_device("auto").type == ("cuda" if cuda else "cpu")


@pytest.mark.parametrize("name", ["", "gpu", "meta", "mps", "cuda:x", "cuda:-1", "0", "CPU"])
def test_other_names_are_refused_in_one_sentence(name):
    with pytest.raises(InputError) as caught:
        core_device.resolve_device(name)
    assert str(caught.value) == f"option --device: found {name!r}, expected auto, cpu, cuda or cuda:N"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_missing_gpu_is_told_with_how_many_there_are(count, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(InputError, match=f"found 'cuda:{count}', but there are {count} CUDA devices"):
        core_device.resolve_device(f"cuda:{count}")
    if count:
        assert core_device.resolve_device(f"cuda:{count - 1}").index == count - 1


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert core_device.resolve_device("auto").type == "cuda"


def test_the_chosen_products_are_exact_enough_for_fp32():
    line = core_device.prepare(torch.device("cpu"))
    assert "CPU" in line
    assert f"{core_device.fast_products()} products" in line
    assert core_device.product_error() <= core_device.FP32_ERROR


def test_products_that_round_too_much_are_not_taken(monkeypatch):
    torch.set_float32_matmul_precision("medium")
    monkeypatch.setattr(core_device, "product_error", lambda: 4e-3)
    assert core_device.fast_products() == "stock"
    assert torch.get_float32_matmul_precision() == "highest"
    monkeypatch.setattr(core_device, "product_error", lambda: 1e-7)
    assert core_device.fast_products() == "oneDNN"
    assert torch.get_float32_matmul_precision() == "medium"


def test_the_error_of_a_product_is_seen(monkeypatch):
    linear = torch.nn.functional.linear
    exact = core_device.product_error()
    monkeypatch.setattr(torch.nn.functional, "linear", lambda a, b: linear(a.bfloat16(), b.bfloat16()).float())
    assert exact < 1e-5
    assert core_device.product_error() > 1e-3


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("fpu avx2 fma avx512f avx512bw avx512vl avx512_vnni", False),  # torch emulates bf16 there
        ("avx2 fma avx512f avx512bw avx512_bf16", True),
        ("avx2 amx_bf16 amx_tile", True),
        ("fp asimd bf16", False),  # ARM: not measured
        ("", False),
    ],
)
def test_bf16_on_a_cpu_needs_instructions_for_it(flags, has, monkeypatch):
    monkeypatch.setattr(core_device, "cpu_flags", lambda: frozenset(flags.split()))
    assert core_device.has_bf16(torch.device("cpu")) is has


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((8, 9), True), ((9, 0), True)])
def test_bf16_on_a_gpu_needs_compute_capability_8(capability, has, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert core_device.has_bf16(torch.device("cuda")) is has


@pytest.fixture
def _unread():
    core_device.cpu_flags.cache_clear()
    yield
    core_device.cpu_flags.cache_clear()


@pytest.mark.usefixtures("_unread")
def test_instruction_sets_are_read_from_the_first_processor(monkeypatch):
    text = "processor\t: 0\nvmx flags\t: x\nflags\t\t: fpu avx2 avx512_bf16\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    monkeypatch.setattr(core_device.Path, "read_text", lambda self, encoding: text)
    assert core_device.cpu_flags() == {"fpu", "avx2", "avx512_bf16"}


@pytest.mark.usefixtures("_unread")
def test_without_cpuinfo_torch_is_asked_and_names_are_translated(monkeypatch):
    def missing(self, encoding):
        raise FileNotFoundError

    found = {"avx2": True, "fma3": True, "avx512_f": True, "avx512_bf16": False, "cpu_name": "x", "l1d_cache_size": 1}
    monkeypatch.setattr(core_device.Path, "read_text", missing)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert core_device.cpu_flags() == {"avx2", "fma", "avx512f"}
    core_device.cpu_flags.cache_clear()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert core_device.cpu_flags() == frozenset()


def test_without_glibc_memory_is_left_alone(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(core_device.ctypes, "CDLL", absent)
    assert core_device.keep_memory() is False


def test_a_cpu_takes_no_more_points_than_its_caches_like():
    assert core_device.points_at_once(torch.device("cpu"), 1 << 20, 256) == core_device.CPU_VALUES // 256
    assert core_device.points_at_once(torch.device("cpu"), 1 << 20, 64) == core_device.CPU_VALUES // 64
    assert core_device.points_at_once(torch.device("cpu"), 5, 256) == 5
    assert core_device.points_at_once(torch.device("cuda"), 1 << 20, 256) == 1 << 20


def test_real_and_named_failures_of_memory_are_recognized():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert core_device.is_out_of_memory(caught.value)
    assert core_device.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert core_device.is_out_of_memory(MemoryError())
    assert core_device.is_out_of_memory(RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED when calling"))


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("can't allocate memory"), KeyError("a")])
def test_other_errors_are_not_taken_for_it(error):
    assert not core_device.is_out_of_memory(error)
