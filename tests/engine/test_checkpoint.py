"""Tests of checkpoints: exact round trips, atomic writing, and no execution of code in a file."""

import os
import pickle
import re
import stat
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from enerf.config.options import ConditioningOptions
from enerf.core.errors import InputError
from enerf.engine import checkpoint, optimizers
from enerf.engine.checkpoint import State
from enerf.tasks.nerf import build as nerf_build
from enerf.tasks.nerf import import_checkpoint
from enerf.tasks.nerf.config import ModelOptions
from tests.contents import same

MODEL = ModelOptions(netdepth=6, netwidth=8, netdepth_fine=2, netwidth_fine=6, multires=2, use_viewdirs=True)
PLAIN, ROW, NORM = ConditioningOptions(), ConditioningOptions(equilibrate="row"), ConditioningOptions(weight_norm=True)
KINDS = pytest.mark.parametrize("conditioning", [PLAIN, ROW, NORM], ids=["plain", "row", "weight_norm"])


start_from = partial(checkpoint.start_from, importers=[import_checkpoint.IMPORTER])


def fresh(conditioning: ConditioningOptions = PLAIN, model: ModelOptions = MODEL, seed: int = 0) -> State:
    fields = nerf_build.radiance_fields(model, conditioning, True, seed)
    return State(fields, optimizers.adam(fields, 1e-3))


def step(of: State, seed: int) -> None:
    """One update with a gradient drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    for p in of.model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)
    of.optimizer.step()
    of.step += 1


def trained(conditioning: ConditioningOptions = PLAIN, steps: int = 3) -> State:
    of = fresh(conditioning)
    for i in range(steps):
        step(of, i)
    of.seconds, of.eval_seconds, of.collapsed, of.blank_for = 1.25, 0.1, True, 501
    of.curve = [[1, 10.5], [3, float("nan")]]
    return of


def refusal(call, *args) -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


# save, read, restore


@KINDS
def test_a_state_comes_back_bit_for_bit_and_goes_on_the_same(conditioning, tmp_path):
    ours = trained(conditioning)
    path = checkpoint.save(ours, tmp_path, {"netwidth": 8})
    again = fresh(conditioning, seed=5)
    content = checkpoint.read(path)
    checkpoint.restore(again, content, path)
    assert content["config"] == {"netwidth": 8}
    for _ in range(2):
        assert same(ours.model.state_dict(), again.model.state_dict())
        assert same(ours.optimizer.state_dict(), again.optimizer.state_dict())
        for name in ("step", "seconds", "eval_seconds", "collapsed", "blank_for", "curve"):
            assert same(getattr(ours, name), getattr(again, name))
        step(ours, 9)
        step(again, 9)


def test_a_restored_curve_is_not_shared_with_the_content(tmp_path):
    path = checkpoint.save(trained(), tmp_path, {})
    content, again = checkpoint.read(path), fresh()
    checkpoint.restore(again, content, path)
    again.curve[0][1] = 0.0
    assert content["curve"][0] == [1, 10.5]


def test_a_checkpoint_holds_tensors_and_plain_python_only(tmp_path):
    def plain(x) -> bool:
        if isinstance(x, dict):
            return all(map(plain, x.keys())) and all(map(plain, x.values()))
        if isinstance(x, list | tuple):
            return all(map(plain, x))
        return type(x) in (int, float, bool, str, type(None), torch.Tensor)

    content = torch.load(checkpoint.save(trained(ROW), tmp_path, {"a": "b"}), weights_only=True)
    assert plain(content)
    assert content["step"] == 3


def test_checkpoints_are_listed_by_step_and_strangers_do_not_count(tmp_path):
    assert checkpoint.checkpoints(tmp_path) == []
    of = fresh()
    for of.step in (1_000_000, 5, 20_000):
        checkpoint.save(of, tmp_path, {})
    folder = tmp_path / "checkpoints"
    for stranger in ("best.pt", "000005 (copy).pt", "12a.pt", ".000006.pt.saving", "000007.tar"):
        (folder / stranger).write_bytes(b"")
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["000005.pt", "020000.pt", "1000000.pt"]


def test_a_checkpoint_is_as_readable_as_any_file(tmp_path):
    (tmp_path / "plain").write_text("")
    path = checkpoint.save(fresh(), tmp_path, {})
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("a write failed\nat 0x0")])
def test_a_failed_write_leaves_the_earlier_checkpoint_and_nothing_else(error, tmp_path, monkeypatch):
    of = trained()
    path = checkpoint.save(of, tmp_path, {})
    before = path.read_bytes()

    def half(content, file) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", half)
    for now in (3, 4):
        of.step = now
        told = refusal(checkpoint.save, of, tmp_path, {})
        reason = "No space left on device" if isinstance(error, OSError) else "a write failed"
        expected = f"{tmp_path}/checkpoints/{now:06d}.pt: the checkpoint cannot be written ({reason})"
        assert told == f"{expected}; earlier ones are unchanged"
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["000003.pt"]
    assert path.read_bytes() == before


def test_an_interrupted_write_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupted(content, file) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(fresh(), tmp_path, {})
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    told = refusal(checkpoint.save, fresh(), tmp_path / "file", {})
    assert told.startswith(f"{tmp_path}/file/checkpoints/000000.pt: the checkpoint cannot be written (")


# damaged and foreign files


def test_a_missing_checkpoint_is_told(tmp_path):
    assert refusal(checkpoint.read, tmp_path / "a.pt") == f"{tmp_path}/a.pt: no such checkpoint"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_told(share, tmp_path):
    path = checkpoint.save(trained(), tmp_path, {})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    for reader in (checkpoint.read, lambda p: start_from(fresh(), p)):
        assert refusal(reader, path).startswith(f"{path}: cannot be read as a checkpoint (")


@pytest.mark.parametrize("seed", [0, 1, 2, 7, 19])  # of no byte, and of some hundred
def test_random_bytes_are_told(seed, tmp_path):
    generator = torch.Generator().manual_seed(seed)
    noise = bytes(torch.randint(256, (1 + 40 * seed,), generator=generator).tolist())
    path = tmp_path / "a.pt"
    for start in (b"", b"\x80\x02", b"PK\x03\x04"):
        path.write_bytes(start + noise)
        assert refusal(checkpoint.read, path).startswith(f"{path}: cannot be read as a checkpoint (")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: Path(path).write_bytes(pickle.dumps(content))])
def test_code_in_a_pickle_is_not_executed(save, tmp_path):
    path = tmp_path / "a.pt"
    save({"format": 1, "model": {"weight": Bomb(tmp_path / "boom")}}, path)
    for reader in (checkpoint.read, lambda p: start_from(fresh(), p)):
        told = refusal(reader, path)
        assert told.startswith(f"{path}: cannot be read as a checkpoint (")
        assert "nothing in it was executed" in told
    assert not (tmp_path / "boom").exists()
    pickle.loads(pickle.dumps(Bomb(tmp_path / "boom")))  # the bomb does work
    assert (tmp_path / "boom").exists()


@pytest.mark.parametrize("part", [*checkpoint.PARTS, "format"])
def test_a_checkpoint_without_one_of_its_parts_is_told(part, tmp_path):
    path = checkpoint.save(trained(), tmp_path, {})
    content = torch.load(path, weights_only=True)
    for wrong in ({k: v for k, v in content.items() if k != part}, {**content, part: "text"}):
        torch.save(wrong, path)
        assert refusal(checkpoint.read, path).startswith(f"{path}: found a file without the parts of a checkpoint")


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, torch.zeros(3)])
def test_another_programs_file_is_told(content, tmp_path):
    path = tmp_path / "a.pt"
    torch.save(content, path)
    assert refusal(checkpoint.read, path).startswith(f"{path}: found a file without the parts of a checkpoint")


def test_weights_that_are_no_tensors_are_told(tmp_path):
    path = checkpoint.save(trained(), tmp_path, {})
    torch.save({**torch.load(path, weights_only=True), "model": {"weight": 3}}, path)
    assert refusal(checkpoint.read, path).startswith(f"{path}: found a file without the parts of a checkpoint")


# another model


@pytest.mark.parametrize(("there", "here"), [(ROW, PLAIN), (PLAIN, ROW), (NORM, ROW), (ROW, NORM), (NORM, PLAIN)])
def test_conditioned_weights_do_not_go_into_another_model_and_the_sentence_says_why(there, here, tmp_path):
    path = checkpoint.save(trained(there), tmp_path, {})
    into = fresh(here)
    before = {name: value.clone() for name, value in into.model.state_dict().items()}
    for reader in (
        lambda: checkpoint.restore(into, checkpoint.read(path), path),
        lambda: start_from(into, path),
    ):
        told = refusal(reader)
        assert told.startswith(f"{path}: its weights are of another model, the file ")
        assert "--equilibrate, --weight_norm" in told
    assert same(before, dict(into.model.state_dict()))
    assert into.step == 0


def test_a_model_of_another_width_is_told_with_both_shapes(tmp_path):
    path = checkpoint.save(trained(), tmp_path, {})
    other = fresh(
        model=ModelOptions(netdepth=6, netwidth=9, netdepth_fine=2, netwidth_fine=6, multires=2, use_viewdirs=True)
    )
    told = refusal(checkpoint.restore, other, checkpoint.read(path), path)
    assert told == f"{path}: weight coarse.trunk.0.weight has shape (8, 15), expected (9, 15)"


def test_a_model_of_another_depth_is_told_by_the_first_name(tmp_path):
    path = checkpoint.save(trained(), tmp_path, {})
    shallow = ModelOptions(netdepth=6, netwidth=8, netdepth_fine=1, netwidth_fine=6, multires=2, use_viewdirs=True)
    told = refusal(checkpoint.restore, fresh(model=shallow), checkpoint.read(path), path)
    assert told == f"{path}: its weights are of another model, the file has fine.trunk.1.bias"


def test_an_optimiser_of_another_model_is_told(tmp_path):
    path = checkpoint.save(trained(), tmp_path, {})
    content = checkpoint.read(path)
    content["optimiser"]["param_groups"][0]["params"].pop()
    told = refusal(checkpoint.restore, fresh(), content, path)
    assert told.startswith(f"{path}: the optimizer's state does not fit this model (")


# starting from another run


@KINDS
def test_starting_from_a_checkpoint_takes_weights_optimiser_and_step_and_no_clocks(conditioning, tmp_path):
    ours, other = trained(conditioning), fresh(conditioning, seed=4)
    start_from(other, checkpoint.save(ours, tmp_path, {}))
    assert same(ours.model.state_dict(), other.model.state_dict())
    assert same(ours.optimizer.state_dict(), other.optimizer.state_dict())
    assert (other.step, other.seconds, other.curve) == (ours.step, 0.0, [])


@KINDS
def test_starting_from_the_weights_only_takes_nothing_else(conditioning, tmp_path):
    ours, other = trained(conditioning), fresh(conditioning, seed=4)
    start_from(other, checkpoint.save(ours, tmp_path, {}), weights_only=True)
    assert same(ours.model.state_dict(), other.model.state_dict())
    assert (other.step, other.optimizer.state_dict()["state"]) == (0, {})


class PeerNeRF(nn.Module):
    """nerf-pytorch's network by its names."""

    def __init__(self, depth: int, width: int, n_in: int, n_views: int, use_viewdirs: bool) -> None:
        super().__init__()
        self.use_viewdirs = use_viewdirs
        widths = [n_in, *(width + n_in * (i == 4) for i in range(depth - 1))]
        self.pts_linears = nn.ModuleList(nn.Linear(w, width) for w in widths)
        self.views_linears = nn.ModuleList([nn.Linear(n_views + width, width // 2)])
        if use_viewdirs:
            self.feature_linear = nn.Linear(width, width)
            self.alpha_linear = nn.Linear(width, 1)
            self.rgb_linear = nn.Linear(width // 2, 3)
        else:
            self.output_linear = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        h = x
        for i, layer in enumerate(self.pts_linears):
            h = layer(h).relu()
            if i == 4:
                h = torch.cat([x, h], -1)
        if not self.use_viewdirs:
            return self.output_linear(h)
        hidden = self.views_linears[0](torch.cat([self.feature_linear(h), views], -1)).relu()
        return torch.cat([self.rgb_linear(hidden), self.alpha_linear(h)], -1)


def peer_step(coarse: nn.Module, fine: nn.Module, optimizer: torch.optim.Optimizer, *, of_peer: bool) -> None:
    """One step on a loss that both programs' networks can compute."""
    generator = torch.Generator().manual_seed(3)
    points, views = torch.randn(4, 5, 3, generator=generator), torch.randn(4, 3, generator=generator)
    loss = torch.zeros(())
    for net in (coarse, fine):
        if of_peer:
            raw = net(points, views[:, None].expand(4, 5, 3))
            rgb, density = raw[..., :3].sigmoid(), raw[..., 3].relu()
        else:
            seen = net(points, views)
            rgb, density = seen.rgb, seen.density
        loss = loss + (rgb - 0.3).square().sum() + (density - 0.2).square().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def outputs(net: nn.Module, *, of_peer: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    points, views = torch.randn(4, 5, 3, generator=generator), torch.randn(4, 3, generator=generator)
    with torch.no_grad():
        if of_peer:
            raw = net(points, views[:, None].expand(4, 5, 3))
            return torch.cat([raw[..., :3].sigmoid(), raw[..., 3:4].relu()], -1)
        seen = net(points, views)
        return torch.cat([seen.rgb, seen.density[..., None]], -1)


@pytest.mark.parametrize("use_viewdirs", [True, False])
def test_nerf_pytorchs_tar_gives_its_outputs_and_goes_on_as_it_would_have(use_viewdirs, tmp_path):
    torch.manual_seed(0)
    peers = [PeerNeRF(6, 8, 3, 3, use_viewdirs), PeerNeRF(2, 6, 3, 3, use_viewdirs)]
    adam = torch.optim.Adam([p for peer in peers for p in peer.parameters()], lr=0.01)
    for _ in range(3):
        peer_step(*peers, adam, of_peer=True)
    content = {
        "global_step": 200_000,
        "network_fn_state_dict": peers[0].state_dict(),
        "network_fine_state_dict": peers[1].state_dict(),
        "optimizer_state_dict": adam.state_dict(),
    }
    path = tmp_path / "200000.tar"
    torch.save(content, path)
    sizes = {"netdepth": 6, "netwidth": 8, "netdepth_fine": 2, "netwidth_fine": 6, "i_embed": -1}
    ours = fresh(model=ModelOptions(**sizes, use_viewdirs=use_viewdirs))
    start_from(ours, path)
    assert ours.step == 200_000
    optimizers.set_learning_rate(ours.optimizer, 0.01)
    for steps_on in range(3):
        for field, peer in zip((ours.model.coarse, ours.model.fine), peers, strict=True):
            assert torch.allclose(outputs(field, of_peer=False), outputs(peer, of_peer=True), atol=2e-6), steps_on
        before = outputs(peers[0], of_peer=True)
        peer_step(*peers, adam, of_peer=True)
        peer_step(ours.model.coarse, ours.model.fine, ours.optimizer, of_peer=False)
        assert (outputs(peers[0], of_peer=True) - before).abs().max() > 1e-4  # the step did something


def test_a_tar_with_strange_weights_or_for_a_conditioned_model_is_told(tmp_path):
    path = tmp_path / "a.tar"
    torch.save({"network_fn_state_dict": {"conv.weight": torch.zeros(1)}}, path)
    assert refusal(start_from, fresh(), path) == f"{path}: weight 'conv.weight' is not one of nerf-pytorch's"
    torch.save({"network_fn_state_dict": PeerNeRF(6, 8, 15, 27, True).state_dict()}, path)
    assert "its weights are of another model, the file lacks" in refusal(start_from, fresh(ROW), path)
    nets = {"network_fn_state_dict": PeerNeRF(6, 8, 15, 27, True).state_dict()}
    nets["network_fine_state_dict"] = PeerNeRF(2, 6, 15, 27, True).state_dict()
    torch.save(nets, path)
    assert f"{path}: its optimizer state is not that of nerf-pytorch" in refusal(start_from, fresh(), path)


# learning rate and optimizer


def test_every_group_gets_the_learning_rate():
    a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    optimizer = torch.optim.Adam([{"params": a.parameters()}, {"params": b.parameters(), "lr": 3.0}])
    optimizers.set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_the_optimiser_is_adam_by_the_book():
    model = nn.Linear(2, 1, dtype=torch.float64)
    optimizer = optimizers.adam(model, 0.1)
    weight, m, v = model.weight.detach().clone(), 0.0, 0.0
    for t in (1, 2, 3):
        g = torch.tensor([[0.5, -2.0]], dtype=torch.float64) * t
        model.weight.grad, model.bias.grad = g.clone(), torch.zeros(1, dtype=torch.float64)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        weight -= 0.1 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    assert torch.allclose(model.weight, weight, rtol=1e-12)


# groups

HASH = ModelOptions(
    netdepth=2, netwidth=8, netdepth_fine=2, netwidth_fine=6, encoding="hash", hash_levels=2, hash_features=2,
    hash_log2_entries=6, hash_coarsest=2, hash_finest=4,
)  # fmt: skip


def grouped(seed: int = 0, grid_scale: float = 20.0) -> State:
    fields = nerf_build.radiance_fields(HASH, ROW, True, seed, proposal=True)
    return State(fields, optimizers.adam(fields, 1e-3, grid_scale=grid_scale, eps=1e-15))


def test_grids_form_a_group_of_their_own_with_their_own_learning_rate():
    of = grouped()
    others, grids = of.optimizer.param_groups
    names = {id(p): name for name, p in of.model.named_parameters()}
    assert sorted(names[id(p)] for p in grids["params"]) == [f"{f}.hashed.encoding.table" for f in ("coarse", "fine")]
    assert {id(p) for p in others["params"]} | {id(p) for p in grids["params"]} == set(names)
    assert len(others["params"]) + len(grids["params"]) == len(names)
    assert [group["eps"] for group in of.optimizer.param_groups] == [1e-15, 1e-15]
    optimizers.set_learning_rate(of.optimizer, 0.5)
    assert (others["lr"], grids["lr"]) == (0.5, 10.0)


def test_without_grids_there_is_one_group_in_the_models_order_whatever_their_scale():
    of = fresh()
    (group,) = optimizers.adam(of.model, 1e-3, grid_scale=20).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in of.model.parameters()]


def test_with_grids_it_is_still_adam_by_the_book():
    ours, theirs = grouped(), grouped()
    for i in range(3):
        optimizers.set_learning_rate(ours.optimizer, 1e-3)
        step(ours, i)
    names = dict(theirs.model.named_parameters())
    grids = [p for name, p in names.items() if name.endswith("table")]
    others = [p for name, p in names.items() if not name.endswith("table")]
    groups = [{"params": others}, {"params": grids, "lr": 20e-3}]
    theirs.optimizer = torch.optim.Adam(groups, lr=1e-3, eps=1e-15, foreach=False, fused=False)
    for i in range(3):
        step(theirs, i)
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_state_of_grids_comes_back_and_goes_on_the_same(tmp_path):
    ours, again = grouped(), grouped(seed=5)
    for i in range(3):
        step(ours, i)
    path = checkpoint.save(ours, tmp_path, {})
    checkpoint.restore(again, checkpoint.read(path), path)
    for of in (ours, again):
        optimizers.set_learning_rate(of.optimizer, 3e-3)
        step(of, 9)
    assert same(ours.model.state_dict(), again.model.state_dict())
    assert same(ours.optimizer.state_dict(), again.optimizer.state_dict())


def test_an_optimiser_that_was_saved_before_there_were_scales_goes_on(tmp_path):
    ours, again = trained(), fresh(seed=5)
    path = checkpoint.save(ours, tmp_path, {})
    content = checkpoint.read(path)
    for group in content["optimiser"]["param_groups"]:
        assert group.pop("scale") == 1.0
    checkpoint.restore(again, content, path)
    for of in (ours, again):
        optimizers.set_learning_rate(of.optimizer, 3e-3)
        assert [group["lr"] for group in of.optimizer.param_groups] == [3e-3]
        step(of, 9)
    assert same(ours.model.state_dict(), again.model.state_dict())


def test_a_learning_rate_of_grids_and_an_epsilon_that_were_changed_count_when_a_run_goes_on(tmp_path):
    path = checkpoint.save(grouped(grid_scale=20.0), tmp_path, {})
    again = grouped(grid_scale=5.0)
    for group in again.optimizer.param_groups:
        group["eps"] = 1e-8
    checkpoint.restore(again, checkpoint.read(path), path)
    optimizers.set_learning_rate(again.optimizer, 1.0)
    assert [group["lr"] for group in again.optimizer.param_groups] == [1.0, 5.0]
    assert [group["eps"] for group in again.optimizer.param_groups] == [1e-8, 1e-8]


def test_a_state_of_grids_does_not_load_where_there_are_none(tmp_path):
    path = checkpoint.save(grouped(), tmp_path, {})
    content, of = checkpoint.read(path), fresh()
    content["model"] = of.model.state_dict()
    assert "the optimizer's state does not fit this model" in refusal(checkpoint.restore, of, content, path)


# damaged ones


def test_of_single_flipped_bits_none_gives_another_content(tmp_path):
    path = checkpoint.save(trained(), tmp_path, {"a": 1})
    data, expected = path.read_bytes(), checkpoint.read(path)
    generator, refused = torch.Generator().manual_seed(0), 0
    for position in torch.randint(8 * len(data), (120,), generator=generator).tolist():
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        try:
            assert same(checkpoint.read(path), expected)  # a bit of padding or of a file attribute
        except InputError:
            refused += 1
    assert refused > 60


def test_a_damaged_newest_one_is_named_and_the_one_before_is_taken(tmp_path, caplog):
    of = trained()
    paths = []
    for of.step in (3, 4, 5):
        paths.append(checkpoint.save(of, tmp_path, {"kind": "nerf"}, recent=of.step == 4))
    paths[2].write_bytes(paths[2].read_bytes()[:-40])
    content, path = checkpoint.newest(tmp_path, ["nerf"])
    assert (content["step"], path) == (4, paths[1])
    assert [line.startswith(f"{paths[2]}: cannot be read") for line in caplog.messages] == [True]
    assert caplog.messages[0].endswith("; taking the one before")
    for path in paths[:2]:
        path.write_bytes(b"")
    told = refusal(checkpoint.newest, tmp_path, ["nerf"])
    assert told.startswith(f"{paths[2]}: cannot be read")
    assert told.endswith("; none of the 2 before it can be read either")
    assert checkpoint.newest_readable(tmp_path / "none") is None


def test_one_that_its_run_deletes_while_it_is_read_is_replaced_by_a_newer_one(tmp_path, monkeypatch, caplog):
    of, read = trained(), checkpoint.read

    def read_slowly(path):
        if path == old:
            old.unlink()
            of.step = 5
            checkpoint.save(of, tmp_path, {"kind": "nerf"}, recent=True)
        return read(path)

    of.step = 3
    old = checkpoint.save(of, tmp_path, {"kind": "nerf"}, recent=True)
    monkeypatch.setattr(checkpoint, "read", read_slowly)
    assert checkpoint.newest(tmp_path, ["nerf"])[0]["step"] == 5
    assert not caplog.messages
    monkeypatch.setattr(checkpoint, "read", read)
    (old.parent / "000009.pt").symlink_to(tmp_path / "nowhere")
    assert checkpoint.newest(tmp_path, ["nerf"])[0]["step"] == 5
    assert "000009.pt: no such checkpoint; taking the one before" in caplog.text


def test_a_part_marked_as_a_folder_is_damage(tmp_path):
    path = checkpoint.save(trained(), tmp_path, {})
    data, entry = bytearray(path.read_bytes()), b"PK\x01\x02"
    for at in [match.start() for match in re.finditer(re.escape(entry), bytes(data))]:
        damaged = data.copy()
        damaged[at + 38] ^= 0x10  # attributes; torch does not read such a part, and returns what is in the memory
        path.write_bytes(damaged)
        assert "it is damaged: a part is marked as a folder" in refusal(checkpoint.read, path)


def test_a_folder_that_cannot_be_listed_does_not_count_as_empty(tmp_path, monkeypatch):
    checkpoint.save(fresh(), tmp_path, {})

    def fail(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "listdir", fail)
    assert "cannot be listed (Input/output error)" in refusal(checkpoint.newest_readable, tmp_path)


def test_a_checkpoint_in_the_place_of_its_run_is_told(tmp_path):
    path = checkpoint.save(fresh(), tmp_path, {})
    assert refusal(checkpoint.checkpoints, path) == (
        f"{path} is a file, expected the folder of a run, which has its checkpoints"
    )


def test_a_device_in_the_place_of_a_checkpoint_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    (tmp_path / "b.pt").symlink_to("/dev/zero")
    for name in ("a.pt", "b.pt"):
        assert "expected a file" in refusal(checkpoint.read, tmp_path / name)
        assert "expected a file" in refusal(start_from, fresh(), tmp_path / name)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda w: w.to_sparse(), "is a sparse_coo tensor (8, 15) of float32"),
        (lambda w: w.to(torch.complex64), "is a tensor (8, 15) of complex64"),
        (lambda w: w.to("meta"), "is a tensor (8, 15) of float32 without values"),
        (lambda w: w.to(torch.int32), "is a tensor (8, 15) of int32"),
    ],
)
def test_weights_of_another_kind_of_tensor_are_told(change, found, tmp_path):
    path = checkpoint.save(trained(), tmp_path, {})
    content = checkpoint.read(path)
    content["model"]["coarse.trunk.0.weight"] = change(content["model"]["coarse.trunk.0.weight"])
    told = refusal(checkpoint.restore, fresh(), content, path)
    assert told == f"{path}: weight coarse.trunk.0.weight {found}, expected a tensor (8, 15) of float32"


def test_an_optimisers_state_that_does_not_fit_its_weights_is_told(tmp_path):
    path = checkpoint.save(trained(), tmp_path, {})
    for wrong in ("text", torch.zeros(3), torch.zeros(8, 15).to_sparse()):
        content = checkpoint.read(path)
        content["optimiser"]["state"][0]["exp_avg"] = wrong
        told = refusal(checkpoint.restore, fresh(), content, path)
        assert told.startswith(
            f"{path}: the optimizer's state does not fit this model: exp_avg of a weight of shape (8, 15)"
        )
    content = checkpoint.read(path)
    content["optimiser"]["param_groups"][0]["amsgrad"] = True  # decided by the options
    again = fresh()
    checkpoint.restore(again, content, path)
    step(again, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("blank_for", "x"),
        ("step", -1),
        ("seconds", float("nan")),
        ("curve", [1, 2]),
        ("curve", [None]),
        ("curve", [[]]),
    ],
)
def test_values_that_no_run_saves_are_refused(name, value, tmp_path):
    path = checkpoint.save(trained(), tmp_path, {})
    torch.save({**checkpoint.read(path), name: value}, path)
    assert "found impossible steps, seconds or curve" in refusal(checkpoint.read, path)
