"""Tests of the parser: command lines, configuration files, and the messages for invalid ones."""

import argparse
import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.config import options, parser
from enerf.core.errors import InputError
from enerf.tasks.nerf import config as nerf_config
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.shape.config import ShapeConfig

TABLES = [f.type for f in dataclasses.fields(NerfConfig)]
FIELDS = {f.name: f for table in TABLES for f in dataclasses.fields(table)}
EVERY = sorted(parser.CONFIG_FOLDER.rglob("*.txt"))
SHAPES = [path for path in EVERY if path.stem.startswith("shape_")]
CLASSIFIERS = [path for path in EVERY if "\nmodel = " in path.read_text(encoding="utf-8")]
SHIPPED = [path for path in EVERY if path not in (*SHAPES, *CLASSIFIERS)]
SHAPE_FIELDS = {f.name: f for t in dataclasses.fields(ShapeConfig) for f in dataclasses.fields(t.type)}
# nerf-pytorch's options and their defaults, from its config_parser; two are None there and empty here.
PEER = {
    **{"expname": "", "basedir": "./logs/", "datadir": "./data/llff/fern", "ft_path": "", "dataset_type": "llff"},
    **{"netdepth": 8, "netwidth": 256, "netdepth_fine": 8, "netwidth_fine": 256, "N_rand": 4096, "lrate": 5e-4},
    **{"lrate_decay": 250, "chunk": 32768, "netchunk": 65536, "no_batching": False, "no_reload": False},
    **{"N_samples": 64, "N_importance": 0, "perturb": 1.0, "use_viewdirs": False, "i_embed": 0, "multires": 10},
    **{"multires_views": 4, "raw_noise_std": 0.0, "render_only": False, "render_test": False, "render_factor": 0},
    **{"precrop_iters": 0, "precrop_frac": 0.5, "testskip": 8, "white_bkgd": False, "half_res": False, "factor": 8},
    **{"no_ndc": False, "lindisp": False, "spherify": False, "llffhold": 8, "i_print": 100, "i_img": 500},
    **{"i_weights": 10000, "i_testset": 50000, "i_video": 50000},
}
PEER_FERN = """expname = fern_test
basedir = ./logs
datadir = ./data/nerf_llff_data/fern
dataset_type = llff

factor = 8
llffhold = 8

N_rand = 1024
N_samples = 64
N_importance = 64

use_viewdirs = True
raw_noise_std = 1e0

"""
PEER_LEGO = """expname = blender_paper_lego
basedir = ./logs
datadir = ./data/nerf_synthetic/lego
dataset_type = blender

no_batching = True

use_viewdirs = True
white_bkgd = True
lrate_decay = 500

N_samples = 64
N_importance = 128
N_rand = 1024

precrop_iters = 500
precrop_frac = 0.5

half_res = True
"""


FORMATS = "expected auto, llff, blender, transforms, polycam, record3d or colmap"


def parsed(*words: str) -> dict:
    return parser.to_dict(parser.parse(nerf_config.NerfConfig, list(words))[0])


def refused(*words: str) -> str:
    with pytest.raises(InputError) as caught:
        parser.parse(nerf_config.NerfConfig, list(words))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "mine.txt").write_text(text, encoding="utf-8")
        return str(tmp_path / "mine.txt")

    return write


# meaning


def test_every_option_of_nerf_pytorch_is_known_and_has_its_default():
    ours = parsed()
    other = {"basedir", "dataset_type", "factor"}  # automatic: llff and 8 for LLFF scenes
    assert {name: ours[name] for name in PEER if name not in other} == {k: v for k, v in PEER.items() if k not in other}
    assert (ours["dataset_type"], ours["factor"]) == ("auto", -1)
    assert Path(ours["basedir"]) == Path(PEER["basedir"])


@pytest.mark.parametrize("text", [PEER_FERN, PEER_LEGO])
def test_nerf_pytorchs_files_mean_what_they_say(text, write):
    lines = [line.split(" = ") for line in text.splitlines() if line]
    told = {name: type(PEER[name])(value) for name, value in lines}  # each flag has the value True
    assert parsed("--config", write(text)) == {**parsed(), **told}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.relative_to(parser.CONFIG_FOLDER).as_posix())
def test_every_shipped_file_parses_to_what_it_says_and_names_its_scene(path):
    found, _ = parser.parse(nerf_config.NerfConfig, ["--config", path.relative_to(parser.CONFIG_FOLDER).as_posix()])
    assert found.scene == path.stem
    says(path, parser.to_dict(found), FIELDS)


@pytest.mark.parametrize("path", SHAPES, ids=lambda p: p.name)
def test_every_shipped_file_of_a_shape_parses_to_what_it_says(path):
    subject = {"shape_cloud": "--cloud", "shape_image": "--image", "shape_volume": "--volume"}.get(path.stem, "--mesh")
    found, _ = parser.parse(ShapeConfig, ["--config", path.name, subject, "file.ply"])
    says(path, {**parser.to_dict(found), "mesh": "./data/shapes/demo.ply"}, SHAPE_FIELDS)


def says(path: Path, values: dict, fields: dict) -> None:
    """Check that options have the values of a configuration file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, text = line.split(" = ")
            assert values[name] == fields[name].type(eval(text) if fields[name].type is not str else text)


def test_options_of_shapes_go_to_a_file_and_back(write):
    asked, _ = parser.parse(ShapeConfig, ["--mesh", "a b.ply", "--near", "0.1:1", "--equilibrate", "--N_points", "9"])
    assert parser.parse(ShapeConfig, ["--config", write(parser.to_text(asked))])[0] == asked
    assert parser.from_dict(ShapeConfig, parser.to_dict(asked)) == asked
    assert parser.replace(asked, N_points=7).samples.N_points == 7


def test_a_norm_of_largest_entries_can_be_asked_for_and_read_back(write):
    asked, _ = parser.parse(nerf_config.NerfConfig, ["--equilibrate", "--equilibrate_p", "inf"])
    assert asked.conditioning.equilibrate_p == float("inf")
    assert parser.parse(nerf_config.NerfConfig, ["--config", write(parser.to_text(asked))])[0] == asked
    with pytest.raises(InputError, match="option --lrate: found 'inf', expected a finite number"):
        parser.parse(nerf_config.NerfConfig, ["--lrate", "inf"])


def test_a_nerfs_options_are_unknown_to_shapes():
    with pytest.raises(InputError, match="unknown option 'N_samples'"):
        parser.parse(ShapeConfig, ["--mesh", "a.ply", "--N_samples", "3"])


def test_the_published_protocol_is_in_paper():
    assert len(SHIPPED) == 36
    for path in (parser.CONFIG_FOLDER / "paper").glob("*.txt"):
        values = parsed("--config", str(path))
        told = [values[name] for name in ("factor", "llffhold", "N_rand", "N_samples", "N_importance", "N_iters")]
        assert told == [4, 8, 4096, 64, 128, 200_000]
        assert (values["raw_noise_std"], values["use_viewdirs"], values["lrate_decay"]) == (1.0, True, 250)


def test_the_command_line_wins_over_the_file_in_any_order_and_form(write):
    file = write("N_rand = 5\nlrate = 0.1\nuse_viewdirs = True\nequilibrate = row\n")
    for words in (
        ["--config", file, "--N_rand", "7", "--use_viewdirs", "False", "--equilibrate", "none"],
        ["--N_rand=7", "--equilibrate=none", "--use_viewdirs=False", f"--config={file}"],
    ):
        values = parsed(*words)
        assert (values["N_rand"], values["use_viewdirs"], values["equilibrate"]) == (7, False, "none")
        assert values["lrate"] == 0.1


@pytest.mark.parametrize("name", ["fern", "fern.txt", "cpu/fern", "cpu/fern.txt", "paper/fern.txt"])
def test_files_are_found_in_configs_with_or_without_their_ending(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert parser.find_config(name) == parser.CONFIG_FOLDER / f"{name.removesuffix('.txt')}.txt"


def test_a_path_comes_before_a_name_in_configs(monkeypatch, tmp_path):
    (tmp_path / "fern.txt").write_text("N_rand = 3\n")
    monkeypatch.chdir(tmp_path)
    assert parsed("--config", "fern.txt")["N_rand"] == 3
    assert parsed("--config", str(tmp_path / "fern"))["N_rand"] == 3


@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_a_byte_order_mark_is_no_part_of_a_name(mark, write):
    assert parsed("--config", write(f"{mark}N_rand = 9\r\n"))["N_rand"] == 9


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--equilibrate"], {"equilibrate": "row"}),
        (
            ["--equilibrate", "jacobi", "--equilibrate_layers"],
            {"equilibrate": "jacobi", "equilibrate_layers": "hidden"},
        ),
        (["--equilibrate", "--weight_norm", "False"], {"equilibrate": "row", "weight_norm": False}),
        (
            ["--init", "he", "--equilibrate_layers", "trunk.0,feature"],
            {"init": "he", "equilibrate_layers": "trunk.0,feature"},
        ),
        (["--i_embed", "-1"], {"i_embed": -1}),
        (["--pixel_centers", "0"], {"pixel_centers": 0.0}),
        (["--use_viewdirs", "--half_res", "yes", "--no_ndc", "0"], {"use_viewdirs": True, "half_res": True}),
        (["--ft_path", "None", "--expname", " a b "], {"ft_path": "", "expname": "a b"}),
        (["--N_rand", "3", "--N_rand", "4"], {"N_rand": 4}),
    ],
)
def test_words_of_a_command_line(words, values):
    assert parsed(*words) == {**parsed(), **values}


@pytest.mark.parametrize(("line", "method"), [("", "none"), ("equilibrate", "row"), ("equilibrate = True", "row")])
def test_a_bare_option_in_a_file(line, method, write):
    assert parsed("--config", write(line))["equilibrate"] == method
    assert parsed("--config", write(line), "--equilibrate", "column")["equilibrate"] == "column"


@pytest.mark.parametrize("kind", [NerfConfig, ShapeConfig])
@pytest.mark.parametrize(
    ("option", "value"), [("equilibrate_gradient", "detached"), ("equilibrate_scale", "kept"), ("equilibrate_p", "1.0")]
)
def test_options_of_the_map_need_the_map(kind: type, option: str, value: str):
    needed = ["--mesh", "a.ply"] if kind is ShapeConfig else []
    for others in ([], ["--init", "he"], ["--weight_norm"]):
        method = "with the method weight_norm" if "--weight_norm" in others else "without a map of the weights"
        with pytest.raises(InputError, match=f"option --{option}: found {value} {method}, expected"):
            parser.parse(kind, [*needed, f"--{option}", value, *others])
    config, _ = parser.parse(kind, [*needed, f"--{option}", value, "--equilibrate"])
    assert str(getattr(config.conditioning, option)) == value


def test_extra_tables_are_filled_from_the_same_line():
    @dataclasses.dataclass(frozen=True)
    class More:
        """More."""

        width: float = options.option(2.0, "a width", affects="neutral")

    found, (more,) = parser.parse(nerf_config.NerfConfig, ["--N_rand", "3", "--width", "5"], extra=[More])
    assert (found.train.N_rand, more) == (3, More(5.0))
    assert "width" in refused("--width", "5")


# back to text


def test_the_written_file_reads_back_to_the_same_options(write):
    every = {f.name: f.metadata.get("choices", (None, None))[1] for f in FIELDS.values() if f.type is str}
    changed = {f.name: f.default + 1 for f in FIELDS.values() if f.type is int and "choices" not in f.metadata}
    changed |= {f.name: f.default / 3 for f in FIELDS.values() if f.type is float and "choices" not in f.metadata}
    changed |= {f.name: True for f in FIELDS.values() if f.type is bool}
    changed |= {name: value for name, value in every.items() if value} | {"ft_path": "a.pt", "pixel_centers": 0.0}
    asked = parser.replace(parser.from_dict(nerf_config.NerfConfig, {}), **{**changed, "weight_norm": False})
    assert parser.parse(nerf_config.NerfConfig, ["--config", write(parser.to_text(asked))])[0] == asked


@settings(max_examples=8, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12))
def test_whatever_a_text_option_holds_is_written_so_that_it_reads_back_or_refused(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("written") / "config.txt"
    try:
        asked = parser.parse(nerf_config.NerfConfig, [f"--datadir={text}"])[0]
        file.write_text(parser.to_text(asked), encoding="utf-8", newline="\n")
    except InputError:
        return
    assert parser.parse(nerf_config.NerfConfig, ["--config", str(file)])[0] == asked


@pytest.mark.parametrize("text", ["data/a # b", "a;b", "'quoted", "with space", 'a "b" c', "x=y", "# a", "", "None "])
def test_odd_paths_are_written_in_quotes_where_needed(text, write):
    asked, _ = parser.parse(nerf_config.NerfConfig, [f"--datadir={text}"])
    assert parser.parse(nerf_config.NerfConfig, ["--config", write(parser.to_text(asked))])[0] == asked


def test_a_line_break_cannot_be_written():
    with pytest.raises(InputError, match="option --expname: found 'a\\\\nb', expected a text"):
        parser.to_text(parser.replace(parser.from_dict(nerf_config.NerfConfig, {}), expname="a\nb"))


def test_flat_mappings_go_there_and_back():
    asked, _ = parser.parse(nerf_config.NerfConfig, ["--N_rand", "3", "--equilibrate", "--lrate", "0.25"])
    assert parser.from_dict(nerf_config.NerfConfig, parser.to_dict(asked)) == asked
    assert parser.from_dict(nerf_config.NerfConfig, {"lrate": 1, "of_another_program": 3}).train.lrate == 1.0
    assert isinstance(parser.replace(asked, max_seconds=5).train.max_seconds, float)


def test_replacing_what_is_no_option_is_an_error():
    with pytest.raises(TypeError, match="no option is named 'N_rnad'"):
        parser.replace(parser.from_dict(nerf_config.NerfConfig, {}), N_rnad=3)


def test_names_of_scene_and_folder():
    values = {"datadir": "data/fern/", "basedir": "out"}
    assert parser.from_dict(nerf_config.NerfConfig, values).folder == Path("out/fern")
    assert parser.from_dict(nerf_config.NerfConfig, {**values, "expname": "a/b"}).folder == Path("out/a/b")


# mistakes


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--N_rnad", "3"], "unknown option 'N_rnad'; nearest known: N_rand, no_reload"),
        (["--zzz", "3"], "unknown option 'zzz'; see --help"),
        (["--N_ra", "3"], "unknown option 'N_ra'; nearest known: N_rand, N_iters, N_importance"),
        (["fern.txt"], "found 'fern.txt' where an option was expected (options start with --)"),
        (["--N_rand", "x"], "option --N_rand: found 'x', expected a whole number"),
        (["--N_rand", "1e3"], "option --N_rand: found '1e3', expected a whole number"),
        (["--N_rand"], "option --N_rand: expected one argument"),
        (["--N_rand", "0"], "option --N_rand: found '0', expected at least 1"),
        (["--lrate", "fast"], "option --lrate: found 'fast', expected a number"),
        (["--lrate", "0"], "option --lrate: found '0', expected more than 0"),
        (["--lrate", "inf"], "option --lrate: found 'inf', expected a finite number"),
        (["--max_seconds", "nan"], "option --max_seconds: found 'nan', expected a finite number"),
        (["--precrop_frac", "1.5"], "option --precrop_frac: found '1.5', expected at most 1"),
        (["--seed", str(2**63)], f"option --seed: found '{2**63}', expected at most {2**63 - 1}"),
        (["--i_embed", "1"], "option --i_embed: found '1', expected one of 0, -1"),
        (["--use_viewdirs", "maybe"], "option --use_viewdirs: found 'maybe', expected True or False"),
        (
            ["--dataset_type", "LINEMOD"],
            f"option --dataset_type: LINEMOD scenes are not supported, {FORMATS}",
        ),
        (
            ["--dataset_type", "foo"],
            "option --dataset_type: found 'foo', expected auto, llff, blender, transforms, polycam, record3d or colmap",
        ),
        (["--shape", "greek"], "option --shape: it chooses among deepvoxels scenes, which are not supported"),
    ],
)
def test_mistakes_are_one_sentence(words, sentence):
    assert refused(*words) == sentence


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("N_rnad = 3", "unknown option 'N_rnad'; nearest known: N_rand, no_reload"),
        ("N_rand = x", "option --N_rand: found 'x', expected a whole number"),
        ("shape = greek", "option --shape: it chooses among deepvoxels scenes, which are not supported"),
        (
            "dataset_type = deepvoxels",
            f"option --dataset_type: deepvoxels scenes are not supported, {FORMATS}",
        ),
        ("init = best", "option --init: found 'best', expected one of default, glorot, he, unit_row"),
    ],
)
def test_mistakes_in_a_file_name_the_file(line, sentence, write):
    file = write(line)
    assert refused("--config", file, "--N_samples", "4") == f"{file}: {sentence}"
    assert refused(f"--config={file}") == f"{file}: {sentence}"


def test_a_mistake_on_the_command_line_does_not_blame_the_file(write):
    assert refused("--config", write("N_rand = 5"), "--N_rand", "x").startswith("option --N_rand: found 'x'")
    assert refused("--config", write("N_rand = 5"), "--N_rnad", "3").startswith("unknown option 'N_rnad'")


def test_options_that_cannot_mean_anything_together_are_refused():
    assert "--precrop_iters needs --no_batching" in refused("--precrop_iters", "5")
    assert "--sampler proposal needs --N_importance: found 0" in refused("--sampler", "proposal")
    assert "--hash_finest: found 4, expected at least --hash_coarsest, 16" in refused("--hash_finest", "4")
    assert "--weight_norm and --equilibrate" in refused("--weight_norm", "--equilibrate")
    assert "--render_only and --no_reload" in refused("--render_only", "--no_reload")
    assert parsed("--render_only", "--no_reload", "--ft_path", "a.pt")["render_only"]


def test_a_missing_file_is_told_with_near_names(tmp_path):
    sentence = "option --config: no file 'fren.txt', neither as a path nor in configs/; near names in configs/: "
    assert refused("--config", "fren.txt").startswith(sentence)
    assert "fern.txt" in refused("--config=fren.txt")
    for name in ("", "zzzzzzzzzzzzz"):
        assert refused("--config", name) == f"option --config: no file {name!r}, neither as a path nor in configs/"
    assert refused("--config", str(tmp_path)) == f"{tmp_path}: found a folder, expected a file"


@pytest.mark.parametrize("form", ["--config", "--config="])
def test_a_file_that_is_no_text_is_told(form, tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xff\xfe\x00")
    words = [form, str(file)] if form == "--config" else [form + str(file)]
    assert refused(*words).startswith(f"{file}: found bytes that are not UTF-8")


def test_a_line_that_says_nothing_names_the_file(write):
    assert write("N_rand = 3\n= 4\n") in refused("--config", write("N_rand = 3\n= 4\n"))


# help


def test_help_is_grouped_and_tells_every_option_with_its_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        parser.parse(nerf_config.NerfConfig, ["--help"], description="What it does.")
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "What it does." in printed
    groups = [printed.index(f"\n{options.title(table)}:\n") for table in TABLES]
    assert groups == sorted(groups)
    words = " ".join(printed.split())
    for item in FIELDS.values():
        default = "empty" if item.default == "" else item.default
        assert f"--{item.name} " in words
        assert f"{item.metadata['help']} (default: {default})" in words


# bounds


def read(item: dataclasses.Field, text: str) -> object:
    """Value that an option reads from a text, or the message of the error."""
    try:
        return parser._reader(item)(text)
    except (argparse.ArgumentTypeError, InputError) as error:
        return str(error)


def test_every_whole_number_has_an_upper_bound_and_no_message_repeats_thousands_of_digits():
    numbers = [item for item in (FIELDS | SHAPE_FIELDS).values() if item.type is int]
    assert len(numbers) > 30
    for item in numbers:
        for text in (str(2**63), "9" * 5000, "1e9", "nan", ""):
            found = read(item, text)
            assert isinstance(found, str)
            assert found.startswith("found ")
            assert len(found) < 150
    assert refused("--N_rand", "1e9") == "option --N_rand: found '1e9', expected a whole number"


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "-1", ""])
def test_numbers_that_are_none_are_refused_by_every_option(text):
    for item in (FIELDS | SHAPE_FIELDS).values():
        if item.type is float and not item.metadata.get("choices"):
            assert str(read(item, text)).startswith(f"found {text!r}, expected ")


def test_every_path_option_expands_home_and_refuses_impossible_names(monkeypatch):
    monkeypatch.setenv("HOME", "/nest")
    paths = {name: item for name, item in (FIELDS | SHAPE_FIELDS).items() if item.metadata["is_path"]}
    assert paths.keys() == {"datadir", "basedir", "ft_path", "mesh", "cloud", "image", "volume"}
    for name, item in paths.items():
        assert read(item, "~/a b") == "/nest/a b"
        assert str(read(item, "a\udcff")).startswith(f"option --{name}: found ")
        assert "255 bytes" in str(read(item, "x" * 256))
    assert parsed("--datadir", "~/a")["datadir"] == "/nest/a"


@pytest.mark.parametrize("name", ["../../x", "/nest/x", "~/x", ".", "..", "a/../../b", "x" * 256, "a\udcff"])
def test_results_stay_in_the_folder_of_results(name, write):
    assert refused("--expname", name).startswith("option --expname: found ")
    if "\udcff" not in name:
        file = write(f"expname = {name}\n")
        assert refused("--config", file).startswith(f"{file}: option --expname: found ")


def test_a_scene_named_by_dots_gives_results_the_name_of_its_folder(tmp_path, monkeypatch):
    (tmp_path / "horns" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "horns" / "images")
    assert parser.parse(NerfConfig, ["--datadir", ".."])[0].folder == Path("logs/horns")
    assert parser.parse(ShapeConfig, ["--mesh", "../.."])[0].folder == Path("logs") / tmp_path.name


def test_a_folder_of_results_is_needed():
    assert refused("--basedir", "").startswith("option --basedir: found nothing")


@pytest.mark.parametrize("kind", ["fifo", "devzero"])
def test_a_pipe_or_a_device_as_configuration_is_refused_at_once(kind, tmp_path):
    path = tmp_path / "a.txt"
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    what = "a named pipe" if kind == "fifo" else "a character device"
    assert refused("--config", str(path)) == f"{path}: found {what}, expected a file"


def test_a_configuration_with_carriage_returns_alone_is_read(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"N_rand = 9\rlrate = 0.5\r")
    assert parsed("--config", str(tmp_path / "a.txt"))["lrate"] == 0.5


def test_a_configuration_that_names_another_is_refused(write):
    assert "a file cannot include another" in refused("--config", write("N_rand = 9\n  config = fern.txt\n"))
