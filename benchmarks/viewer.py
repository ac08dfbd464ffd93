"""Speed of the viewer: first picture, pictures a second while moving, exact pictures; cost of --viewer for a training.

The browser is a websocket that sends cameras, 30 a second while it moves; pictures are counted as they are sent. The
training takes steps with and without the viewer's hook, in turns, while nobody looks.

    python scripts/train_nerf.py --config fast/fern.txt --max_seconds 60
    python benchmarks/viewer.py logs/fast_fern
"""

import argparse
import statistics
import threading
import time
from pathlib import Path

import msgspec
from websockets.sync.client import connect

from enerf.engine import trainer
from enerf.tasks.nerf import opened, setup, train
from enerf.viewer import live, nerf_runs, poses
from enerf.viewer.options import LiveOptions
from enerf.viewer.sources import Drawn
from enerf.viewer.viser_server import VERSION, Server
from enerf.viewer.window import Viewer

RATE = 30  # cameras a second


def camera_message(start: poses.Start, shift: float) -> bytes:
    """A camera at the start, moved to the side by a share of its distance from what it looks at."""
    position = start.position + shift * (start.look_at - start.position)[[2, 0, 1]]
    pose = poses.poses._facing(position - start.look_at, start.up)
    content = {"type": "ViewerCameraMessage", "wxyz": poses.poses.quaternion(pose @ poses.TURNED).tolist()}
    content |= {"position": position.tolist(), "look_at": start.look_at.tolist(), "up_direction": start.up.tolist()}
    content |= {"fov": start.fov, "near": 0.01, "far": 1000.0, "image_height": 600, "image_width": 800}
    return msgspec.msgpack.encode(content)


def watch(run: Path, seconds: float) -> list[str]:
    """Figures of a finished run."""
    source = nerf_runs.source_of(opened.open_views(run, "cpu").run, run.name)
    viewer, sent, is_over = Viewer(Server(), source, run), [], threading.Event()
    deliver = viewer.scheduler._deliver

    def record(key: object, drawn: Drawn, rung: int, is_last: bool) -> None:
        deliver(key, drawn, rung, is_last)
        sent.append((time.monotonic(), rung, is_last, drawn.image.shape[:2]))

    def serve() -> None:
        while not is_over.is_set():
            if not viewer.scheduler.turn():
                viewer.scheduler.wait(0.05)

    viewer.scheduler._deliver = record
    thread = threading.Thread(target=serve)
    thread.start()
    address = f"127.0.0.1:{viewer.server.access.port}"
    start = poses.start(source.scene)
    try:
        with connect(
            f"ws://{address}/", origin=f"http://{address}", subprotocols=[f"viser-v{VERSION}"], proxy=None
        ) as page:
            threading.Thread(target=lambda: list(page), daemon=True).start()
            began = time.monotonic()
            page.send(camera_message(start, 0.0))
            while not sent or not sent[-1][2]:
                time.sleep(0.01)
            lines = [
                f"first picture after {sent[0][0] - began:.2f} s, {sent[0][3][1]}×{sent[0][3][0]}",
                f"exact picture after {sent[-1][0] - began:.2f} s, {sent[-1][3][1]}×{sent[-1][3][0]}",
            ]
            sent.clear()
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                page.send(camera_message(start, 0.2 * (time.monotonic() - began) / seconds))
                time.sleep(1 / RATE)
            size = sent[-1][3]
            lines.append(f"moving: {len(sent) / seconds:.1f} pictures/s of {size[1]}×{size[0]}")
    finally:
        is_over.set()
        thread.join()
        viewer.close()
    return lines


def steps(run: Path, rounds: int) -> str:
    """Median time of a step without and with a viewer at which nobody looks."""
    prepared = setup.prepare(opened.open_views(run, "cpu").run.config, opening=True)
    step, viewer = train.step_function(prepared), live.LiveViewer(LiveOptions(viewer=True))
    hook = viewer.watch(prepared)
    times: dict[bool, list[float]] = {False: [], True: []}
    try:
        for i in range(2 * rounds):
            began = time.perf_counter()
            trainer.one_step(prepared.state, step)
            if i % 2:
                hook.call(prepared.state)
            times[bool(i % 2)].append(time.perf_counter() - began)
    finally:
        viewer.close()
    plain, watched = (1000 * statistics.median(times[side]) for side in (False, True))
    return (
        f"a step takes {plain:.1f} ms, with an unwatched viewer {watched:.1f} ms: {100 * (watched / plain - 1):+.1f} %"
    )


def main() -> None:
    """Print the figures."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("run", type=Path, help="folder of a NeRF run")
    reader.add_argument("--seconds", type=float, default=10.0, help="of moving; default: 10")
    reader.add_argument("--rounds", type=int, default=60, help="steps with and without a viewer; default: 60")
    options = reader.parse_args()
    print("\n".join([*watch(options.run, options.seconds), steps(options.run, options.rounds)]))


if __name__ == "__main__":
    main()
