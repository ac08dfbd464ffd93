"""The viewer of a run in training: it renders between two steps, in the thread and process of the training.

While no browser is open, a step costs one question more. The training itself is the same with or without a viewer, to
the last bit: rendering draws no random numbers and works on a copy of the weights.
"""

import logging
import time

from enerf.engine.checkpoint import State
from enerf.engine.trainer import Hook
from enerf.tasks.nerf import views
from enerf.tasks.nerf.setup import Run
from enerf.tasks.nerf.views import Renderer
from enerf.viewer import nerf_runs
from enerf.viewer.options import LiveOptions
from enerf.viewer.viser_server import Server
from enerf.viewer.window import Viewer

log = logging.getLogger("enerf")

SHARE = 0.5  # of the time, for rendering while somebody looks
LEAST_SECONDS = 0.1  # of rendering between two steps: a picture while moving
FRESH_SECONDS = 0.3  # age from which on a copy of the weights is made anew
REFRESH_SECONDS = 2.0  # between two exact pictures of a camera that does not move


class LiveViewer:
    """A viewer that a training starts and ends."""

    def __init__(self, chosen: LiveOptions) -> None:
        """Open the server; raises as ``Server``."""
        self._server = Server(chosen.viewer_host, chosen.viewer_port)
        log.info("viewer: %s", self._server.address)
        self._viewer: Viewer | None = None
        self._run: Run | None = None
        self._copy: Renderer | None = None
        self._copied = (-1, 0.0)  # step and time of the copy
        self._refreshed, self._said = 0.0, 0.0
        self._after_step = time.monotonic()

    def watch(self, run: Run) -> Hook:
        """Show a run; the hook renders after each step for those who look."""
        self._run = run
        source = nerf_runs.source_of(run, run.config.folder.resolve().name, self._renderer)
        self._viewer = Viewer(self._server, source, run.config.folder)
        return Hook(1, self._between_steps)

    def close(self) -> None:
        """End the server."""
        if self._viewer is not None:
            self._viewer.close()
        else:
            self._server.stop()

    def _between_steps(self, training: State) -> None:
        """Render for about as long as the step took."""
        viewer = self._viewer
        if viewer is None or not viewer.scheduler.is_watched:
            self._after_step = time.monotonic()
            return
        now = time.monotonic()
        ends = now + max(LEAST_SECONDS, (now - self._after_step) * SHARE / (1 - SHARE))
        while time.monotonic() < ends and viewer.scheduler.turn():
            pass
        if now - self._refreshed > REFRESH_SECONDS and viewer.scheduler.refresh():
            self._refreshed = now
        if now - self._said > 1.0:
            self._said = now
            viewer.message(f"step {training.step}, {training.seconds:.0f} s of training")
        self._after_step = time.monotonic()

    def _renderer(self) -> Renderer:
        """A renderer of the present weights, or of those of a moment ago."""
        assert self._run is not None
        step, made = self._copied
        now = time.monotonic()
        if self._copy is None or (step != self._run.state.step and now - made > FRESH_SECONDS):
            self._copy, self._copied = views.renderer_of(self._run), (self._run.state.step, now)
        return self._copy
