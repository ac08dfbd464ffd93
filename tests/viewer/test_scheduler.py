"""Order of rendering for several browsers, with renderings that only count."""

import itertools
import threading

import pytest

from enerf.viewer.scheduler import LAST, Scheduler, sizes


class Desk:
    """A scheduler whose rung r of a view takes 1 + 3 r chunks; what it does is recorded."""

    def __init__(self, rungs: int = 3) -> None:
        self.delivered: list[tuple] = []
        self.chunks: list[tuple] = []
        self.scheduler = Scheduler(self._draw, lambda view: rungs, self._deliver)

    def _draw(self, view, rung):
        for i in range(1 + 3 * rung):
            self.chunks.append((view, rung, i))
            yield 2048
        return f"{view}{rung}"

    def _deliver(self, key, picture, rung, is_last):
        self.delivered.append((key, picture, is_last))

    def turns(self, n: int) -> None:
        for _ in range(n):
            self.scheduler.turn()

    def finish(self) -> None:
        while self.scheduler.turn():
            pass


def test_a_still_browser_gets_every_rung_once_and_the_last_is_exact():
    desk = Desk()
    desk.scheduler.look("a", "v")
    desk.finish()
    assert desk.delivered == [("a", "v0", False), ("a", "v1", False), ("a", "v2", True)]
    assert not desk.scheduler.turn()


def test_higher_rungs_are_given_up_once_the_browser_has_moved():
    desk = Desk()
    desk.scheduler.look("a", "v")
    desk.turns(4)  # the lowest rung, and a part of the next
    desk.scheduler.look("a", "w")
    desk.finish()
    assert [picture for _, picture, _ in desk.delivered] == ["v0", "w0", "w1", "w2"]
    assert ("v", 1, 3) not in desk.chunks


def test_the_lowest_rung_is_never_given_up():
    desk = Desk()
    for step in range(20):  # a move after every chunk, which is sooner than a rung is done
        desk.scheduler.look("a", step)
        desk.turns(1)
    assert len(desk.delivered) == 10
    assert {picture[-1] for _, picture, _ in desk.delivered} == {"0"}


def test_the_lowest_rungs_of_all_browsers_come_first():
    desk = Desk()
    for key in "abc":
        desk.scheduler.look(key, key)
    desk.turns(8)
    assert [picture for _, picture, _ in desk.delivered] == ["a0", "b0", "c0"]


def test_a_browser_that_moves_all_the_time_does_not_starve_another():
    desk = Desk()
    desk.scheduler.look("still", "s")
    moves = 0
    while ("still", "s2", True) not in desk.delivered:
        desk.scheduler.look("moving", moves)
        desk.turns(2)
        moves += 1
        assert moves < 60
    assert sum(key == "moving" for key, _, _ in desk.delivered) > 10


def test_a_browser_that_has_left_gets_nothing():
    desk = Desk()
    desk.scheduler.look("a", "v")
    desk.turns(1)
    desk.scheduler.leave("a")
    desk.finish()
    assert desk.delivered == []
    assert not desk.scheduler.is_watched


def test_a_refresh_renders_the_last_rung_again_of_those_that_have_it():
    desk = Desk()
    desk.scheduler.look("a", "v")
    desk.finish()
    desk.scheduler.look("b", "w")
    assert desk.scheduler.refresh() == 1
    desk.finish()
    assert [picture for key, picture, _ in desk.delivered if key == "a"] == ["v0", "v1", "v2", "v2"]


def test_a_rendering_for_no_browser_comes_last_and_returns_its_result():
    desk = Desk()
    results = []
    thread = threading.Thread(target=lambda: results.append(desk.scheduler.perform(desk._draw("video", 0))))
    desk.scheduler.look("a", "v")
    thread.start()
    while not desk.scheduler._tasks:
        pass
    while thread.is_alive():
        desk.scheduler.turn()
    assert results == ["video0"]
    desk.finish()
    assert desk.delivered[-1] == ("a", "v2", True)
    assert LAST > 100


def test_renderings_that_are_given_up_raise_where_they_are_awaited():
    desk = Desk()
    raised = []

    def work():
        try:
            desk.scheduler.perform(desk._draw("video", 5))
        except KeyError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not desk.scheduler._tasks:
        pass
    desk.scheduler.turn()
    desk.scheduler.give_up_tasks(KeyError("stopped"))
    thread.join(10)
    assert len(raised) == 1
    assert not desk.scheduler.turn()


def test_a_view_that_cannot_be_rendered_is_reported_and_the_next_one_is_tried(caplog):
    desk = Desk(1)

    def draw(view, rung):
        yield 1
        if view == "bad":
            raise RuntimeError("no memory")
        return view

    desk.scheduler._draw = draw
    desk.scheduler.look("a", "bad")
    desk.finish()
    desk.scheduler.look("a", "good")
    desk.finish()
    assert desk.delivered == [("a", "good", True)]
    assert "a view cannot be rendered: no memory" in caplog.text


def test_a_picture_that_cannot_be_sent_is_reported_and_the_next_one_is_tried(caplog):
    desk = Desk(1)
    deliver = desk.scheduler._deliver

    def fail_once(*given):
        desk.scheduler._deliver = deliver
        raise TypeError("no browser")

    desk.scheduler._deliver = fail_once
    desk.scheduler.look("a", "v")
    desk.finish()
    desk.scheduler.look("a", "w")
    desk.finish()
    assert desk.delivered == [("a", "w0", True)]
    assert "a picture cannot be shown: no browser" in caplog.text


def test_a_picture_of_the_view_before_is_never_the_last_one():
    desk = Desk(1)
    desk.scheduler._rungs = {"v": 3, "w": 1}.get
    desk.scheduler.look("a", "v")
    desk.turns(1)  # the lowest rung of the first view has begun, and is finished after the move
    desk.scheduler.look("a", "w")
    desk.finish()
    assert desk.delivered == [("a", "v0", False), ("a", "w0", True)]


def test_after_the_end_nothing_is_awaited():
    desk = Desk()
    desk.scheduler.end(KeyError("closed"))
    with pytest.raises(KeyError, match="closed"):
        desk.scheduler.perform(desk._draw("video", 0))


def test_the_speed_is_measured():
    desk = Desk()
    assert desk.scheduler.speed == 0
    desk.scheduler.look("a", "v")
    desk.finish()
    assert desk.scheduler.speed > 0


@pytest.mark.parametrize(("first", "size", "aspect"), [(1000, 504, 1.33), (1e6, 504, 1.33), (1, 64, 0.5)])
def test_sizes_double_up_to_the_exact_one(first, size, aspect):
    found = sizes(first, size, aspect)
    assert found[-1] == size
    assert all(b == 2 * a for a, b in itertools.pairwise(found))
    pixels = found[0] ** 2 / max(aspect, 1 / aspect)
    assert pixels <= 2 * first or len(found) == 1
