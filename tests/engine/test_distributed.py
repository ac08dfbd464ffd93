"""Tests of several processes that work together: sums, order, decisions, and weights that stay equal bit for bit."""

import pytest
import torch

from enerf.core.errors import InputError
from enerf.engine import distributed
from enerf.engine.distributed import ALONE, Team
from tests import processes
from tests.engine import joint_worker

SIZE = 3


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict]:
    """The results of all processes, by rank."""
    folder = tmp_path_factory.mktemp("results")
    run = processes.run("tests.engine.joint_worker:main", [[str(folder)]] * SIZE, folder / "output")
    assert run.codes == [0] * SIZE, run.output(0) + run.output(1) + run.output(2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(SIZE)]


def test_gradients_are_replaced_by_their_sums_equal_bit_for_bit_in_all_processes(found):
    expected = [sum(parts) for parts in zip(*(joint_worker.gradients(rank) for rank in range(SIZE)), strict=True)]
    for i, wanted in enumerate(expected):
        assert all(torch.equal(each["sums"][i], found[0]["sums"][i]) for each in found)
        torch.testing.assert_close(found[0]["sums"][i], wanted, rtol=1e-6, atol=1e-6)


def test_map_gives_the_results_of_all_processes_in_order(found):
    assert all(each["mapped"]["squares"] == [(x % SIZE, x * x) for x in range(7)] for each in found)


def test_an_input_error_of_one_process_or_of_the_reader_of_the_results_is_raised_in_all(found):
    assert [each["mapped"]["messages"][0] for each in found] == ["no result for 2"] * SIZE
    others = ["process 0 could not go on"] * (SIZE - 1)
    for i in (1, 2):
        assert [each["mapped"]["messages"][i] for each in found] == ["disk full", *others]
    whole = list(range(9))
    assert [each["mapped"]["taken"] for each in found] == [[[0, 1], whole], *[[[0, 1, 2], whole]] * (SIZE - 1)]


@pytest.mark.parametrize("name", joint_worker.OPTIMIZERS)
def test_parameters_stay_equal_bit_for_bit_and_are_those_of_one_process(found, name):
    assert all(torch.equal(each[name], found[0][name]) for each in found)
    close = 1e-6 if name == "soap" else 1e-9  # soap's eigenvectors are in single precision
    torch.testing.assert_close(found[0][name], joint_worker.trained(name, ALONE), rtol=close, atol=close)


def test_batch_normalization_takes_the_statistics_of_the_joint_batch(found):
    alone = joint_worker.normalized(ALONE)
    for i, wanted in enumerate(alone):
        parts = [each["normalized"][i] for each in found]
        per_row = i % 6 < 2  # outputs and gradients of inputs
        joined = torch.cat(parts) if per_row else parts[0]
        torch.testing.assert_close(joined, wanted, rtol=1e-10, atol=1e-10)
        assert per_row or all(torch.equal(part, parts[0]) for part in parts)


def test_batch_norm_preconditioning_is_that_of_the_joint_batch(found):
    model, inputs, targets = joint_worker.problem()
    n = joint_worker.ROWS // SIZE * SIZE
    layer = model[0]
    joint_worker.batch_norm.precondition_(layer)
    torch.nn.functional.mse_loss(model(inputs[:n]), targets[:n]).backward()
    for i, wanted in enumerate((layer.weight.grad, layer.bias.grad)):
        torch.testing.assert_close(found[0]["preconditioned"][i], wanted, rtol=1e-10, atol=1e-12)


def test_all_processes_know_in_the_same_step_that_one_is_to_stop(found):
    assert [each["decided"]["stops"] for each in found] == [[False, True, False]] * SIZE


def test_all_processes_count_the_seconds_of_the_first(found):
    assert [each["decided"]["seconds"] for each in found] == [found[0]["decided"]["seconds"]] * SIZE
    assert sum(found[0]["decided"]["seconds"]) == pytest.approx(2.0, abs=0.9)  # the first two steps and a beginning


def test_figures_are_summed_over_the_processes(found):
    model, inputs, targets = joint_worker.problem()
    loss = float((model(inputs) - targets).square().mean().detach())
    for each in found:
        assert each["decided"]["reports"][0] == pytest.approx([loss, SIZE], rel=1e-12)


def test_the_failure_of_one_process_is_told_by_the_others_in_one_sentence(found):
    messages = [each["decided"]["message"] for each in found]
    told = f"process {SIZE - 1} has failed: the disk of this process is gone"
    assert messages[:-1] == [told] * (SIZE - 1)
    assert messages[-1].startswith("the disk of this process is gone")


@pytest.mark.parametrize("reference", [False, True])
def test_an_extracted_surface_equals_that_of_one_process_bit_for_bit(found, reference):
    alone = joint_worker.extracted(ALONE, reference)
    assert len(alone[1]) > 1000
    for each in found:
        assert all(torch.equal(a, b) for a, b in zip(each[f"extracted{int(reference)}"], alone, strict=True))


def test_alone_nothing_is_exchanged():
    assert distributed.current() is ALONE
    with distributed.joined("cpu") as team:
        assert team is ALONE
    gradients = joint_worker.gradients(0)
    ALONE.sum_gradients(gradients)
    assert all(torch.equal(a, b) for a, b in zip(gradients, joint_worker.gradients(0), strict=True))
    assert ALONE.exchange([1.0, 2.0]) == [[1.0, 2.0]]
    assert list(ALONE.map(str, [1, 2])) == ["1", "2"]
    assert not torch.distributed.is_initialized()


def test_more_processes_than_rows_are_refused():
    Team(1, 3).require_share("N_rand", 3)
    with pytest.raises(InputError, match="option --N_rand: found 2, expected at least 1 for each of the 3 processes"):
        Team(1, 3).require_share("N_rand", 2)
