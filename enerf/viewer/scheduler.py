"""Order of rendering for several browsers, chunk by chunk.

Each browser has a **generation**, a number that grows with everything it does; a picture of an old generation is of no
use. A view is rendered in several **rungs**, from a small picture to the exact one. Rules:

- the lowest rung of all browsers comes first, so that one that moves all the time does not starve the others;
- the lowest rung is never given up, so that a moving camera sees pictures at all; higher rungs are given up at the next
  chunk once the browser has moved;
- every fourth chunk goes to the rendering that has waited longest, so that nothing waits forever;
- what is needed by no browser, frames of a video, comes last.
"""

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger("enerf")

LAST = 1 << 30  # rung of renderings for no browser
FAIR = 4  # one of so many chunks goes to the one that has waited longest
SMOOTHING = 0.2  # of the measured speed

# view, rung -> rendering
Draw = Callable[[Any, int], Generator[int, None, Any]]
# browser, picture, rung, whether it is the last rung
Deliver = Callable[[Hashable, Any, int, bool], None]


@dataclass
class _Job:
    """A rendering that has begun."""

    rung: int
    generation: int
    work: Generator[int, None, Any]


@dataclass
class _Browser:
    """What a browser wants to see, and what is rendered for it."""

    view: Any = None
    rungs: int = 0
    generation: int = 0
    next_rung: int = 0
    job: _Job | None = None
    advanced: float = 0.0  # when its rendering last went on


@dataclass
class _Task:
    """A rendering for no browser, and its result."""

    job: _Job
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None
    advanced: float = 0.0
    is_given_up: bool = False


class Scheduler:
    """Renderings of several browsers; ``turn`` advances one of them by a chunk.

    ``look``, ``leave`` and ``perform`` may be called from any thread, ``turn`` from one at a time.

    Attributes
    ----------
    speed
        Rays per second, measured; 0 before the first chunk.
    """

    def __init__(self, draw: Draw, rungs: Callable[[Any], int], deliver: Deliver) -> None:
        """Scheduler.

        Parameters
        ----------
        draw
            View and rung -> generator of one rendering, which yields numbers of rays and returns a picture.
        rungs
            View -> number of its rungs.
        deliver
            Called with each finished picture, in the thread of ``turn``.
        """
        self._draw, self._rungs, self._deliver = draw, rungs, deliver
        self._browsers: dict[Hashable, _Browser] = {}
        self._tasks: list[_Task] = []
        self._changed = threading.Condition()
        self._turns = itertools.count()
        self._ended: BaseException | None = None
        self.speed = 0.0

    @property
    def is_watched(self) -> bool:
        """Whether there is something to render for; cheap enough for every step of a training."""
        return bool(self._browsers or self._tasks)

    def look(self, key: Hashable, view: Any) -> None:
        """Let a browser see another view: a new generation."""
        with self._changed:
            browser = self._browsers.setdefault(key, _Browser())
            browser.view, browser.rungs = view, max(1, self._rungs(view))
            browser.generation, browser.next_rung = browser.generation + 1, 0
            self._changed.notify_all()

    def leave(self, key: Hashable) -> None:
        """Forget a browser."""
        with self._changed:
            self._browsers.pop(key, None)

    def refresh(self) -> int:
        """Render the last rung again for browsers that have it: the field has changed. Returns their number."""
        with self._changed:
            idle = [each for each in self._browsers.values() if each.job is None and each.next_rung >= each.rungs]
            for browser in idle:
                browser.next_rung = browser.rungs - 1
            self._changed.notify_all()
        return len(idle)

    def perform(self, work: Generator[int, None, Any]) -> Any:
        """Result of a rendering for no browser, advanced by another thread's ``turn``; errors are raised here."""
        task = _Task(_Job(LAST, 0, work))
        with self._changed:
            if self._ended is not None:
                raise self._ended
            self._tasks.append(task)
            self._changed.notify_all()
        task.done.wait()
        if task.error is not None:
            raise task.error
        return task.result

    def give_up_tasks(self, error: BaseException) -> None:
        """End all renderings for no browser, with an error."""
        with self._changed:
            tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.error = error
            task.done.set()

    def end(self, error: BaseException) -> None:
        """End all renderings for no browser with an error, and later ones as soon as they are asked for."""
        with self._changed:
            self._ended = error
        self.give_up_tasks(error)

    def wait(self, seconds: float) -> None:
        """Wait until something is to be rendered, at most some seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._chosen(peek=True) is not None, seconds)

    def turn(self) -> bool:
        """Advance one rendering by a chunk; returns whether there was one.

        Errors are logged, or raised by ``perform``: a picture that cannot be made or sent does not end a training.
        """
        with self._changed:
            chosen = self._chosen()
            if chosen is None:
                return False
            key, owner = chosen
            job = owner.job if isinstance(owner, _Task) else self._job_of(owner)
            owner.advanced = time.monotonic()
        began = time.perf_counter()
        try:
            self._measure(next(job.work), time.perf_counter() - began)
        except StopIteration as ended:
            self._finish(key, owner, job, ended.value)
        except Exception as error:
            self._fail(owner, job, error)
        return True

    def _chosen(self, peek: bool = False) -> tuple[Hashable, "_Browser | _Task"] | None:
        """The browser or task whose rendering goes on; needs the lock."""
        found: list[tuple[int, float, Hashable, _Browser | _Task]] = []
        for key, browser in self._browsers.items():
            job = browser.job
            if job is not None and job.rung > 0 and job.generation != browser.generation:
                job = browser.job = None
            rung = browser.next_rung if job is None else job.rung
            if job is not None or rung < browser.rungs:
                found.append((rung, browser.advanced, key, browser))
        found += [(LAST, task.advanced, None, task) for task in self._tasks]
        if not found:
            return None
        is_fair = not peek and next(self._turns) % FAIR == FAIR - 1
        _, _, key, owner = min(found, key=lambda each: each[1] if is_fair else each[:2])
        return key, owner

    def _job_of(self, browser: _Browser) -> _Job:
        """The rendering of a browser, begun if there is none; needs the lock."""
        if browser.job is None:
            rung = browser.next_rung
            browser.job = _Job(rung, browser.generation, self._draw(browser.view, rung))
        return browser.job

    def _measure(self, rays: int, seconds: float) -> None:
        """Update the speed by a chunk that was not a small rest."""
        if rays >= 512 and seconds > 0:
            now = rays / seconds
            self.speed = now if not self.speed else (1 - SMOOTHING) * self.speed + SMOOTHING * now

    def _finish(self, key: Hashable, owner: "_Browser | _Task", job: _Job, picture: Any) -> None:
        """Deliver a finished rendering and go on to the next rung."""
        if isinstance(owner, _Task):
            self._end(owner, picture, None)
            return
        with self._changed:
            owner.job = None
            is_last = False  # a picture of an old generation is followed by others
            if job.generation == owner.generation:
                owner.next_rung = job.rung + 1
                is_last = owner.next_rung >= owner.rungs
            is_here = self._browsers.get(key) is owner
        if is_here:
            try:
                self._deliver(key, picture, job.rung, is_last)
            except Exception as error:
                log.warning("a picture cannot be shown: %s", error)

    def _fail(self, owner: "_Browser | _Task", job: _Job, error: Exception) -> None:
        """End a rendering that cannot be made; a browser keeps its last picture."""
        if isinstance(owner, _Task):
            self._end(owner, None, error)
            return
        log.warning("a view cannot be rendered: %s", error)
        with self._changed:
            owner.job = None
            if job.generation == owner.generation:
                owner.next_rung = owner.rungs

    def _end(self, task: _Task, result: Any, error: BaseException | None) -> None:
        with self._changed:
            if task in self._tasks:
                self._tasks.remove(task)
        task.result, task.error = result, error
        task.done.set()


def sizes(rays_first: float | int, size: float | int, aspect: float | int) -> Sequence[float]:
    """Longest sides of the pictures of a view: the first of about ``rays_first`` pixels, then doubled up to ``size``.

    >>> [round(each) for each in sizes(3_000, 504, 4 / 3)]
    [63, 126, 252, 504]
    """
    pixels = size * size / max(aspect, 1 / aspect)
    halvings = max(0, round(0.5 * math.log2(pixels / max(rays_first, 1.0))))
    return [size / 2**i for i in range(halvings, -1, -1)]
