"""Tests of the training loop: when it ends, when hooks run, and that a non-finite step changes no weight."""

import logging
import math
import os
import signal
import threading
import time

import pytest
import torch
from torch import nn

from enerf.core.errors import InputError, NotFinite
from enerf.engine import optimizers, trainer
from enerf.engine.checkpoint import State
from enerf.engine.trainer import Hook, Progress
from enerf.tasks.nerf.step import StepReport

SEEN = StepReport(loss=0.1, mse=0.01, opacity=0.5, rgb_std=0.2, target_std=0.2)


def fresh() -> State:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(2.0)
    return State(model, optimizers.adam(model, 1e-3))


def constant(of: State) -> StepReport:
    for p in of.model.parameters():
        p.grad = torch.ones_like(p)
    return SEEN


def fit(of: State, step=constant, hooks=(), n_iters: int = 5, progress: Progress | None = None, **options) -> str:
    return trainer.train_loop(of, step, lambda i: 0.1, progress or Progress(), list(hooks), n_iters=n_iters, **options)


# ends


def test_it_ends_at_the_last_step():
    of = fresh()
    assert fit(of, n_iters=5) == "finished"
    assert of.step == 5
    assert fit(of, lambda of: pytest.fail("nothing is left to do"), n_iters=5) == "finished"
    assert fit(of, n_iters=7) == "finished"
    assert of.step == 7


def test_it_ends_when_the_seconds_of_training_are_spent_and_hooks_do_not_count():
    of = fresh()

    def slow(of: State) -> StepReport:
        time.sleep(0.01)
        return constant(of)

    hook = Hook(1, lambda of: time.sleep(0.02))
    assert fit(of, slow, [hook], n_iters=1000, max_seconds=0.06) == "time"
    assert 2 <= of.step <= 6
    assert 0.06 <= of.seconds < 0.2
    assert of.eval_seconds >= 0.02 * of.step
    steps = of.step
    assert fit(of, slow, n_iters=1000, max_seconds=0.06) == "time"
    assert of.step == steps


def test_every_step_has_its_own_learning_rate():
    of, seen = fresh(), []

    def step(of: State) -> StepReport:
        seen.append(of.optimizer.param_groups[0]["lr"])
        return constant(of)

    trainer.train_loop(of, step, lambda now: 1.0 / (now.step + 1), Progress(), [], n_iters=3)
    assert seen == [1.0, 0.5, 1 / 3]


# hooks


def test_hooks_run_when_they_are_due_and_at_the_end_each_once_and_in_order():
    ran: list[tuple[str, int]] = []

    def hook(name: str, every: int, at_end: bool = False) -> Hook:
        return Hook(every, lambda of: ran.append((name, of.step)), at_end)

    fit(fresh(), hooks=[hook("a", 2), hook("never", 0), hook("b", 3, True), hook("end", 0, True)], n_iters=6)
    assert ran == [("a", 2), ("b", 3), ("a", 4), ("a", 6), ("b", 6), ("end", 6)]
    ran.clear()
    fit(fresh(), hooks=[hook("a", 2), hook("b", 3, True)], n_iters=5)
    assert ran == [("a", 2), ("b", 3), ("a", 4), ("b", 5)]


def test_hooks_of_the_end_run_when_the_time_is_up():
    ran: list[int] = []
    assert fit(fresh(), hooks=[Hook(0, lambda of: ran.append(of.step), True)], max_seconds=1e-9) == "time"
    assert ran == [1]


# signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_stops_after_the_step_and_the_handlers_are_put_back(number, caplog):
    before = signal.getsignal(number)
    of, ended = fresh(), []
    kill = Hook(3, lambda of: os.kill(os.getpid(), number))
    after = Hook(1, lambda of: ended.append(of.step), at_end=True)
    with caplog.at_level(logging.WARNING, "enerf"):
        assert fit(of, hooks=[kill, after], n_iters=100) == "interrupted"
    assert of.step == 3
    assert ended == [1, 2, 3]
    assert signal.getsignal(number) is before
    assert caplog.messages == [f"stopping after this step ({number.name})"]


def test_a_signal_within_a_step_lets_the_step_finish():
    of = fresh()

    def step(of: State) -> StepReport:
        if of.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return constant(of)

    assert fit(of, step) == "interrupted"
    assert of.step == 2
    assert fit(of) == "finished"


def test_a_signal_in_the_last_step_does_not_undo_the_end():
    assert fit(fresh(), hooks=[Hook(5, lambda of: os.kill(os.getpid(), signal.SIGTERM))]) == "finished"


def test_a_second_interrupt_stops_at_once():
    def twice(of: State) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(fresh(), hooks=[Hook(2, twice)])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_closed_terminal_sends_several_signals_and_the_step_is_finished():
    def close(of: State) -> None:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)

    of = fresh()
    assert fit(of, hooks=[Hook(2, close)]) == "interrupted"
    assert of.step == 2


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert fit(fresh(), hooks=[Hook(2, lambda of: os.kill(os.getpid(), signal.SIGHUP))]) == "finished"
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_hook_that_cannot_write_is_a_warning_and_the_training_goes_on(caplog):
    def full(of: State) -> None:
        raise InputError("video.mp4: cannot be written")

    of = fresh()
    assert fit(of, hooks=[Hook(2, full)]) == "finished"
    assert caplog.messages == [f"step {n}: video.mp4: cannot be written; the training goes on" for n in (2, 4)]


def test_the_weights_are_not_consistent_while_they_are_updated():
    of, seen = fresh(), []
    update = of.optimizer.step
    of.optimizer.step = lambda: (seen.append(of.is_consistent), update())  # type: ignore[method-assign]
    fit(of, n_iters=2)
    assert seen == [False, False]
    assert of.is_consistent


def test_outside_the_main_thread_it_trains_without_handlers():
    ended: list[str] = []
    thread = threading.Thread(target=lambda: ended.append(fit(fresh())))
    thread.start()
    thread.join()
    assert ended == ["finished"]


# what is not finite


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_and_leaves_the_weights(loss):
    of, hooked = fresh(), []

    def step(of: State) -> StepReport:
        report = constant(of)
        return StepReport(loss, 0.0, 0.0, 0.0, 0.0) if of.step == 2 else report

    with pytest.raises(NotFinite, match=rf"^step 2: the loss is {loss}$"):
        fit(of, step, [Hook(1, lambda of: hooked.append(of.model.weight.detach().clone()))])
    assert of.step == 2
    assert torch.equal(of.model.weight, hooked[-1])
    assert int(of.optimizer.state[of.model.weight]["step"]) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_gradient_that_is_not_finite_names_its_parameter_and_leaves_the_weights(name, value):
    of = fresh()
    before = {key: p.clone() for key, p in of.model.state_dict().items()}

    def step(of: State) -> StepReport:
        report = constant(of)
        getattr(of.model, name).grad.view(-1)[-1] = value
        return report

    with pytest.raises(NotFinite, match=rf"^step 0: the gradient is not finite in {name}$"):
        fit(of, step)
    assert all(torch.equal(p, before[key]) for key, p in of.model.state_dict().items())
    assert of.step == 0


def test_gradients_too_large_to_be_squared_are_told():
    of = fresh()

    def step(of: State) -> StepReport:
        report = constant(of)
        of.model.weight.grad.fill_(1e30)
        return report

    with pytest.raises(NotFinite, match="the gradient is not finite in the total norm of the gradients"):
        fit(of, step)


def test_a_parameter_without_gradient_stays_whatever_gradient_it_had_before():
    of = fresh()

    def step(of: State) -> StepReport:
        trained = of.model.parameters() if of.step == 0 else [of.model.weight]
        sum(p.sum() for p in trained).backward()
        return SEEN

    trainer.one_step(of, step)
    bias, weight = of.model.bias.clone(), of.model.weight.clone()
    trainer.one_step(of, step)
    assert torch.equal(of.model.bias, bias)
    assert not torch.equal(of.model.weight, weight)


def test_gradients_do_not_pile_up_from_step_to_step():
    of, seen = fresh(), []

    def step(of: State) -> StepReport:
        (of.model(torch.ones(1, 2)).sum()).backward()
        seen.append(of.model.weight.grad.clone())
        return SEEN

    fit(of, step, n_iters=3)
    assert all(torch.equal(g, torch.ones(1, 2)) for g in seen)


# learning


def test_training_fits_a_small_problem():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 2, generator=generator)
    y = x @ torch.tensor([[2.0], [-1.0]]) + 0.5
    of, losses = fresh(), []

    def step(of: State) -> StepReport:
        loss = (of.model(x) - y).square().mean()
        loss.backward()
        losses.append(loss.item())
        return StepReport(loss.item(), loss.item(), 1.0, 1.0, 1.0)

    fit(of, step, n_iters=300)
    assert losses[-1] < 1e-4 * losses[0]


def test_a_watch_sees_what_every_step_saw():
    seen = []
    fit(fresh(), watch=lambda of, report: seen.append((of.step, report)), n_iters=3)
    assert seen == [(1, SEEN), (2, SEEN), (3, SEEN)]


# norm


@pytest.mark.parametrize("sizes", [[()], [(3,)], [(16,), (1, 5)], [(40, 41), (7,), ()], [(0,), (33,)]])
def test_the_norm_is_that_of_all_gradients_together(sizes):
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(size, generator=generator) for size in sizes]
    expected = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
    assert trainer._total_norm(gradients) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("place", [0, 16, 36])  # within the rows, and behind them
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_the_norm_is_not_finite_if_a_value_is_not(place, value):
    gradient = torch.ones(37)
    gradient[place] = value
    assert not math.isfinite(trainer._total_norm([torch.ones(3), gradient]))


# progress


def test_progress_averages_what_it_was_given_and_starts_anew():
    progress, of = Progress(), fresh()
    reports = [StepReport(0.1, 0.01, 0.2, 0.0, 0.0), StepReport(0.3, 0.03, 0.4, 0.0, 0.0)]
    fit(of, lambda of: (constant(of), reports[of.step])[1], n_iters=2, progress=progress, per_step=50)
    assert progress.count == 100
    assert progress.seconds == pytest.approx(of.seconds)
    taken = progress.take()
    assert taken["loss"] == pytest.approx(0.2)
    assert taken["opacity"] == pytest.approx(0.3)
    assert taken["psnr"] == pytest.approx(-10 * math.log10(0.02))
    assert taken["rays_per_second"] == pytest.approx(100 / of.seconds)
    assert progress == Progress()
    assert progress.take() == {"rays_per_second": 0.0}
    assert Progress("points").take() == {"points_per_second": 0.0}


def test_the_bar_tells_loss_psnr_speed_and_the_time_left(capsys):
    of = fresh()
    of.step, of.seconds = 90, 180.0
    assert trainer._seconds_left(of, 100, 0) == 20.0
    assert trainer._seconds_left(of, 100, 185.0) == 5.0
    assert trainer._seconds_left(of, 100, 100.0) == 0.0
    assert trainer._describe(SEEN, 1234.5, "rays", 65.0) == "loss 0.1, psnr 20, opacity 0.5, 1,234 rays/s, ETA 01:05"
    fit(of, n_iters=100)
    assert "train 100% 100/100 [" in capsys.readouterr().err
