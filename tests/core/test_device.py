"""Device resolution, matrix products and memory settings."""

import pytest
import torch

from enerf.core import device
from enerf.core.errors import InputError


def test_named_devices_are_those_of_torch():
    assert device.resolve_device("cpu") == torch.device("cpu")
    cuda = torch.cuda.is_available()
    assert device.resolve_device("auto").type == ("cuda" if cuda else "cpu")


@pytest.mark.parametrize("name", ["", "gpu", "meta", "mps", "cuda:x", "cuda:-1", "0", "CPU"])
def test_other_names_are_refused_in_one_sentence(name):
    with pytest.raises(InputError) as caught:
        device.resolve_device(name)
    assert str(caught.value) == f"option --device: found {name!r}, expected auto, cpu, cuda or cuda:N"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_missing_gpu_is_told_with_how_many_there_are(count, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(InputError, match=f"found 'cuda:{count}', but this machine has {count} CUDA devices"):
        device.resolve_device(f"cuda:{count}")
    if count:
        assert device.resolve_device(f"cuda:{count - 1}").index == count - 1


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.resolve_device("auto").type == "cuda"


def test_the_chosen_products_are_exact_enough_for_fp32():
    line = device.prepare(torch.device("cpu"))
    assert "CPU" in line
    assert f"{device.fast_products()} products" in line
    assert device.product_error() <= device.FP32_ERROR


def test_products_that_round_too_much_are_not_taken(monkeypatch):
    torch.set_float32_matmul_precision("medium")
    monkeypatch.setattr(device, "product_error", lambda: 4e-3)
    assert device.fast_products() == "stock"
    assert torch.get_float32_matmul_precision() == "highest"
    monkeypatch.setattr(device, "product_error", lambda: 1e-7)
    assert device.fast_products() == "oneDNN"
    assert torch.get_float32_matmul_precision() == "medium"


def test_the_error_of_a_product_is_seen(monkeypatch):
    linear = torch.nn.functional.linear
    exact = device.product_error()
    monkeypatch.setattr(torch.nn.functional, "linear", lambda a, b: linear(a.bfloat16(), b.bfloat16()).float())
    assert exact < 1e-5
    assert device.product_error() > 1e-3


@pytest.mark.parametrize(
    ("low", "full", "pays"), [(1.0, 2.0, True), (1.0, 1.2, False), (1.0, 1.0, False), (9, 1, False)]
)
def test_bf16_is_taken_on_a_cpu_where_it_wins_a_race_clearly(low, full, pays, monkeypatch):
    seconds = {torch.bfloat16: low, torch.float32: full}
    monkeypatch.setattr(device, "product_seconds", seconds.__getitem__)
    assert device.has_bf16(torch.device("cpu")) is pays


@pytest.mark.parametrize("supported", [True, False])
def test_on_a_gpu_the_driver_is_believed_and_imitations_do_not_count(supported, monkeypatch):
    def driver(including_emulation):
        assert including_emulation is False
        return supported

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", driver)
    monkeypatch.setattr(device, "product_seconds", None)  # not called
    assert device.has_bf16(torch.device("cuda")) is supported


def test_a_product_is_timed_by_its_fastest_try_in_one_thread(monkeypatch):
    threads, ran, clock = torch.get_num_threads(), [], iter([0.0, 3.0, 10.0, 10.5, 20.0, 22.0])
    torch.set_num_threads(2)
    monkeypatch.setattr(torch, "mm", lambda a, b: ran.append((a.dtype, a.shape, torch.get_num_threads())))
    monkeypatch.setattr(device.time, "perf_counter", lambda: next(clock))
    try:
        assert device.product_seconds(torch.bfloat16, size=8, tries=3) == 0.5
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert ran == [(torch.bfloat16, (8, 8), 1)] * 3


def test_the_number_of_threads_is_put_back_after_an_error(monkeypatch):
    def fails(a, b):
        raise RuntimeError("not implemented for 'BFloat16'")

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(torch, "mm", fails)
    try:
        with pytest.raises(RuntimeError, match="not implemented"):
            device.product_seconds(torch.bfloat16)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_real_products_take_time_that_grows_with_their_size():
    small, large = (device.product_seconds(torch.float32, size=size, tries=10) for size in (32, 512))
    assert 0 < small < large


def test_without_glibc_memory_is_left_alone(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(device.ctypes, "CDLL", absent)
    assert device.keep_memory() is False


def test_a_cpu_takes_no_more_points_than_its_caches_like():
    assert device.points_at_once(torch.device("cpu"), 1 << 20, 256) == device.CPU_VALUES // 256
    assert device.points_at_once(torch.device("cpu"), 1 << 20, 64) == device.CPU_VALUES // 64
    assert device.points_at_once(torch.device("cpu"), 5, 256) == 5
    assert device.points_at_once(torch.device("cuda"), 1 << 20, 256) == 1 << 20


def test_real_and_named_failures_of_memory_are_recognized():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert device.is_out_of_memory(caught.value)
    assert device.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert device.is_out_of_memory(MemoryError())
    assert device.is_out_of_memory(RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED when calling"))


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("can't allocate memory"), KeyError("a")])
def test_other_errors_are_not_taken_for_it(error):
    assert not device.is_out_of_memory(error)
