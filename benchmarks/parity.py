"""Same weights and rays in, same pixels out: this project against nerf-pytorch, part by part and as a whole.

    python benchmarks/parity.py --peer PATH_TO_NERF_PYTORCH

Prints the largest absolute difference of each part and exits with 1 if a whole pixel differs by more than 1e-5.
"""

import argparse
import sys
from pathlib import Path

import peer
import torch

from enerf.core.types import Camera, FieldOutput, Rays
from enerf.datasets.scenes import rays
from enerf.fields import nerf
from enerf.fields.nerf import NeRF
from enerf.rendering import render, sampling, volume
from enerf.rendering.render import SamplingConfig

TOLERANCE = 1e-5
CAMERA = Camera(24, 18, 20.0, 20.0, 12.0, 9.0)
N_COARSE, N_FINE = 64, 64


def networks(theirs, dtype: torch.dtype):
    """Our coarse and fine fields and the peer's networks, with the peer's weights."""
    pairs = []
    for _ in range(2):
        net = theirs.NeRF(input_ch=63, input_ch_views=27, output_ch=5, use_viewdirs=True).to(dtype)
        net.alpha_linear.weight.data *= 10  # surfaces instead of fog, so that the importance samples matter
        net.alpha_linear.bias.data += 0.5
        ours = NeRF(8, 256, 10, 4, True).to(dtype)
        ours.load_state_dict(nerf.from_nerf_pytorch(net.state_dict()))
        pairs.append((ours, net))
    return pairs


def differences(theirs, dtype: torch.dtype) -> dict[str, float]:
    """The largest absolute difference of each part, in one number format."""
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    (coarse, their_coarse), (fine, their_fine) = networks(theirs, dtype)
    c2w = torch.tensor([[1.0, 0.02, 0.0, 0.1], [-0.02, 1.0, 0.0, -0.2], [0.0, 0.0, 1.0, 0.3]], dtype=dtype)
    k = [[CAMERA.fx, 0, CAMERA.cx], [0, CAMERA.fy, CAMERA.cy], [0, 0, 1]]
    found: dict[str, float] = {}

    def compare(name: str, ours: torch.Tensor, other: torch.Tensor) -> None:
        found[name] = float((ours - other.reshape(ours.shape)).abs().max())

    # our pixel grid is passed to both: the peer builds its own in float32
    scene_rays = rays.of_image(CAMERA, c2w, 0.0, 1.0, pixel_centers=0.0)
    their_o, their_d = theirs.get_rays(CAMERA.height, CAMERA.width, k, c2w)
    compare("ray origins", scene_rays.origins, their_o)
    compare("ray directions", scene_rays.directions, their_d)
    ndc = rays.to_ndc(scene_rays, CAMERA)
    ndc_o, ndc_d = theirs.ndc_rays(CAMERA.height, CAMERA.width, CAMERA.fx, 1.0, their_o, their_d)
    compare("NDC origins", ndc.origins, ndc_o.reshape(-1, 3))
    compare("NDC directions", ndc.directions, ndc_d.reshape(-1, 3))
    embed, _ = theirs.get_embedder(10, 0)
    embed_dirs, _ = theirs.get_embedder(4, 0)
    compare("encoding", nerf.encoded(ndc.origins, 10), embed(ndc.origins))

    t_vals = sampling.stratified(ndc.near, ndc.far, N_COARSE)
    points = ndc.at(t_vals)
    query = lambda p, v, net: theirs.run_network(p, v, net, embed, embed_dirs)  # noqa: E731
    raw = query(points, ndc.viewdirs, their_coarse)
    ours = coarse(points, ndc.viewdirs)
    compare("network density", ours.density, torch.relu(raw[..., 3]))
    compare("network color", ours.rgb, torch.sigmoid(raw[..., :3]))
    rgb, _, acc, weights, depth = theirs.raw2outputs(raw, t_vals, ndc.directions)
    same = FieldOutput(torch.relu(raw[..., 3]), torch.sigmoid(raw[..., :3]))
    rendering = volume.composite(same, t_vals, ndc.directions)
    compare("composited color", rendering.rgb, rgb)
    compare("weights", rendering.weights, weights)
    compare("opacity", rendering.opacity, acc)
    compare("depth", rendering.depth, depth)
    bins = sampling.midpoints(t_vals)
    theirs_fine = theirs.sample_pdf(bins, weights[..., 1:-1], N_FINE, det=True)
    compare("importance samples", sampling.importance(t_vals, weights, N_FINE), theirs_fine)

    batch = torch.cat([ndc.origins, ndc.directions, ndc.near[:, None], ndc.far[:, None], ndc.viewdirs], -1)
    whole = theirs.render_rays(batch, their_coarse, query, N_COARSE, N_importance=N_FINE, network_fine=their_fine)
    first, final = render.render_rays(coarse, fine, Rays(*vars(ndc).values()), SamplingConfig(N_COARSE, N_FINE))
    compare("coarse pixels", first.rgb, whole["rgb0"])
    compare("pixels", final.rgb, whole["rgb_map"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="a checkout of yenchenlin/nerf-pytorch")
    theirs = peer.load(parser.parse_args().peer)
    with torch.no_grad():
        columns = {
            "float64": differences(theirs, torch.float64),
            "float32": differences(theirs, torch.float32),
        }
    print(f"{'largest difference':20}" + "".join(f"{name:>12}" for name in columns))
    for part in columns["float64"]:
        print(f"{part:20}" + "".join(f"{column[part]:12.1e}" for column in columns.values()))
    worst = max(column[part] for column in columns.values() for part in ("coarse pixels", "pixels"))
    print(f"worst pixel difference {worst:.1e}, tolerance {TOLERANCE:.0e}")
    sys.exit(0 if worst <= TOLERANCE else 1)


if __name__ == "__main__":
    main()
