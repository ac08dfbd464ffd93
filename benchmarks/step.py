"""Training steps per second on this machine: this project against nerf-pytorch, the same work, interleaved in one run.

    python benchmarks/step.py --peer PATH_TO_NERF_PYTORCH [--pairs 5] [--equilibrate]

Work: a step of nerf-pytorch's fern.txt (1024 rays, 64 coarse and 64 + 64 fine samples, two 8×256 networks, Adam) on
random rays and colours. Each side runs in a process of its own, because both change process-wide settings; only one
computes at a time. The last line is ``ratio=X noise=LOW..HIGH``: our rays/s over
theirs, median and range over the pairs.
"""

import argparse
import multiprocessing as mp
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path


def random_batch(n: int):
    """Rays in NDC-like coordinates, and colours."""
    import torch

    generator = torch.Generator().manual_seed(0)
    origins = torch.rand(n, 3, generator=generator) - 0.5
    directions = torch.rand(n, 3, generator=generator) - 0.5
    return origins, directions, torch.rand(n, 3, generator=generator)


def their_worker(connection: Connection, path: Path, n_rays: int) -> None:
    """Steps of the peer's own loop body, on demand."""
    import peer
    import torch

    theirs = peer.load(path)
    kwargs, _, _, _, optimizer = theirs.create_nerf(peer.arguments(theirs, path))
    kwargs |= {"near": 0.0, "far": 1.0, "ndc": False}  # the rays are in NDC already
    origins, directions, target = random_batch(n_rays)

    def step() -> None:
        rgb, _, _, extras = theirs.render(1, 1, None, rays=(origins, directions), retraw=True, **kwargs)
        optimizer.zero_grad()
        loss = theirs.img2mse(rgb, target) + theirs.img2mse(extras["rgb0"], target)
        loss.backward()
        optimizer.step()

    serve(connection, step, f"torch {torch.__version__}, {torch.get_num_threads()} threads, stock")


def our_worker(connection: Connection, n_rays: int, equilibrate: str) -> None:
    """Steps of this project's loop body, on demand."""
    import torch

    from enerf import config, machine
    from enerf.fields import build
    from enerf.rendering.render import Passes
    from enerf.scenes import batches
    from enerf.training import loop, state, steps
    from enerf.types import Rays

    device = machine.resolve_device("cpu")
    words = machine.prepare(device)
    options, _ = config.parse(["--config", "fern.txt", "--equilibrate", equilibrate])
    fields = build.radiance_fields(options.model, options.conditioning, True, 0)
    training = state.State(fields, state.adam(fields, options.train.lrate))
    origins, directions, target = random_batch(n_rays)
    viewdirs = directions / directions.norm(dim=-1, keepdim=True)
    rays = Rays(origins, directions, viewdirs, torch.zeros(n_rays), torch.ones(n_rays))
    at_once = machine.points_at_once(device, options.render.netchunk) // 128

    def gradient(now: state.State) -> steps.StepReport:
        generator = batches.generator_for(0, now.step)
        return steps.accumulate_gradient(
            fields,
            rays,
            target,
            Passes(64, 64),
            generator,
            noise_std=options.render.raw_noise_std,
            rays_at_once=at_once,
        )

    serve(connection, lambda: loop.one_step(training, gradient), words)


def serve(connection: Connection, step, words: str) -> None:
    """Answer each request with the seconds that many steps took, or with a word about this side."""
    step()  # allocations and lazy set-up are not what is measured
    connection.send(words)
    while (n := connection.recv()) > 0:
        began = time.perf_counter()
        for _ in range(n):
            step()
        connection.send((time.perf_counter() - began) / n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="a checkout of yenchenlin/nerf-pytorch")
    parser.add_argument("--pairs", type=int, default=5, help="how often the two sides take turns")
    parser.add_argument("--rays", type=int, default=1024, help="rays a step")
    parser.add_argument("--equilibrate", nargs="?", const="row", default="none", help="our side trains E-NeRF")
    args = parser.parse_args()
    context = mp.get_context("spawn")
    sides = {}
    for name, worker, more in (
        ("enerf", our_worker, (args.rays, args.equilibrate)),
        ("nerf-pytorch", their_worker, (args.peer.resolve(), args.rays)),
    ):
        here, there = context.Pipe()
        context.Process(target=worker, args=(there, *more), daemon=True).start()
        there.close()  # so that a worker's end is noticed here
        print(f"{name}: {here.recv()}", flush=True)
        sides[name] = here
    ratios, speeds = [], {name: [] for name in sides}
    for pair in range(args.pairs):
        for name, connection in sides.items():
            connection.send(1)
            speeds[name].append(args.rays / connection.recv())
        ratios.append(speeds["enerf"][-1] / speeds["nerf-pytorch"][-1])
        print(f"pair {pair}: " + ", ".join(f"{n} {s[-1]:.0f} rays/s" for n, s in speeds.items()), flush=True)
    for connection in sides.values():
        connection.send(0)
    print(", ".join(f"{name}: median {statistics.median(s):.0f} rays/s" for name, s in speeds.items()))
    print(f"ratio={statistics.median(ratios):.2f} noise={min(ratios):.2f}..{max(ratios):.2f}")


if __name__ == "__main__":
    main()
