"""Command lines that train: absurd numbers, impossible paths and names, options that do not go together."""

import os
from pathlib import Path

from tests.corpus.inputs import NERF, QUICK, base, classifier, copied, shape
from tests.corpus.registry import Command, table

L = "x" * 300  # longer than a name may be
CMD = {
    "seed_-1": ("refuse", ["--seed", "-1"]),
    "seed_2e63": ("refuse", ["--seed", str(2**63)]),
    "seed_max": ("accept", ["--seed", str(2**63 - 1)]),
    "lrate_1e400": ("refuse", ["--lrate", "1e400"]),
    "lrate_0": ("refuse", ["--lrate", "0"]),
    "lrate_1e-320": ["--lrate", "1e-320"],
    "lrate_1e30": ["--lrate", "1e30", "--N_iters", "20"],
    "lrate_1e308": ["--lrate", "1e308", "--N_iters", "20"],
    "N_rand_1e9": ["--N_rand", "1000000000"],
    "N_rand_2e63": ["--N_rand", str(2**63)],
    "N_rand_0": ("refuse", ["--N_rand", "0"]),
    "N_samples_1e9": ["--N_samples", "1000000000"],
    "N_samples_1": ("refuse", ["--N_samples", "1"]),
    "N_importance_1e9": ["--N_importance", "1000000000"],
    "netwidth_1e9": ["--netwidth", "1000000000"],
    "netwidth_2e63": ["--netwidth", str(2**63)],
    "netdepth_1e6": ["--netdepth", "1000000"],
    "multires_2000": ["--multires", "2000"],
    "multires_1e9": ["--multires", "1000000000"],
    "multires_100": ["--multires", "100"],
    "multires_views_200": ["--use_viewdirs", "--multires_views", "200"],
    "N_iters_0": ["--N_iters", "0"],
    "N_iters_-1": ("refuse", ["--N_iters", "-1"]),
    "max_seconds_1e-9": ["--max_seconds", "1e-9"],
    "max_seconds_-0": ["--max_seconds", "-0.0"],
    "lrate_decay_1e18": ["--lrate_decay", str(10**18)],
    "lrate_decay_1e400": ["--lrate_decay", "1" + "0" * 400],
    "warmup_1e400": ["--lrate_warmup", "1" + "0" * 400],
    "N_iters_1e400": ["--N_iters", "1" + "0" * 400, "--max_seconds", "0.1"],
    "adam_eps_1e-300": ["--adam_eps", "1e-300"],
    "raw_noise_1e30": ["--raw_noise_std", "1e30"],
    "raw_noise_1e300": ["--raw_noise_std", "1e300"],
    "precrop_1e-9": ["--no_batching", "--precrop_iters", "1", "--precrop_frac", "1e-9"],
    "llffhold_1": ("refuse", ["--llffhold", "1"]),
    "llffhold_1e9": ["--llffhold", "1000000000"],
    "llffhold_2e63": ["--llffhold", str(2**63)],
    "i_print_0": ("accept", ["--i_print", "0"]),
    "chunk_1": ["--chunk", "1"],
    "netchunk_1": ["--netchunk", "1"],
    "hash_26": ["--encoding", "hash", "--hash_log2_entries", "26", "--hash_levels", "32", "--hash_features", "8"],
    "hash_finest_2e40": ["--encoding", "hash", "--hash_finest", str(2**40)],
    "hash_finest_1e30": ["--encoding", "hash", "--hash_finest", str(10**30)],
    "hash_coarsest_1e30": ["--encoding", "hash", "--hash_finest", str(10**30), "--hash_coarsest", str(10**30)],
    "device_foo": ("refuse", ["--device", "foo"]),
    "device_meta": ("refuse", ["--device", "meta"]),
    "device_cuda99": ("refuse", ["--device", "cuda:99"]),
    "device_cpu7": ["--device", "cpu:7"],
    "device_cpu-1": ["--device", "cpu:-1"],
    "backend_triton": ("refuse", ["--backend", "triton"]),
    "layers_regex": ["--equilibrate", "--equilibrate_layers", "(((((("],
    "layers_none": ("refuse", ["--equilibrate", "--equilibrate_layers", "nosuch"]),
    "layers_star": ["--equilibrate", "--equilibrate_layers", "*"],
    "datadir_long": ("refuse", ["--datadir", L]),
    "datadir_5000": ("refuse", ["--datadir", "/".join(["x" * 200] * 30)]),
    "datadir_empty": ("refuse", ["--datadir", ""]),
    "datadir_file": ("refuse", ["--datadir", "/etc/passwd"]),
    "datadir_tilde": ["--datadir", "~nobodyhere/x"],
    "datadir_proc": ("refuse", ["--datadir", "/proc/self"]),
    "datadir_badutf8": ("refuse", ["--datadir", "\udcff"]),
    "expname_long": ("refuse", ["--expname", L]),
    "basedir_long": ("refuse", ["--basedir", L]),
    "expname_badutf8": ["--expname", "a\udcffb"],
    "expname_newline": ["--expname", "a\nb"],
    "expname_dotdot": ["--expname", "../escaped"],
    "expname_abs": ["--expname", "{folder}/escaped"],
    "expname_dash": ["--expname=-x"],
    "expname_dash2": ["--expname=--N_rand"],
    "expname_space": ("accept", ["--expname", " a b "]),
    "expname_unicode": ("accept", ["--expname", "日本é"]),
    "expname_star": ["--expname", "a*[b]?"],
    "expname_quote": ["--expname", "a'b\"c"],
    "expname_hash": ("accept", ["--expname", "a#b"]),
    "expname_None": ["--expname", "None"],
    "expname_brackets": ["--expname", "[a,b]"],
    "basedir_file": ("refuse", ["--basedir", "/etc/passwd"]),
    "basedir_devnull": ("refuse", ["--basedir", "/dev/null"]),
    "basedir_proc": ("refuse", ["--basedir", "/proc"]),
    "basedir_empty": ["--basedir", ""],
    "basedir_unicode": ("accept", ["--basedir", "./ünï cødé/-dash/--x"]),
    "basedir_dash": ["--basedir=-x"],
    "basedir_tilde": ["--basedir", "~nobodyhere/x"],
    "config_long": ("refuse", ["--config", L]),
    "config_tilde": ("refuse", ["--config", "~nobodyhere/x"]),
    "config_missing": ("refuse", ["--config", "nosuch.txt"]),
    "config_no_value": ("refuse", ["--config"]),
    "config_twice": ["--config", "fern.txt", "--config", "demo.txt"],
    "config_dotdot": ("refuse", ["--config", "../../../../etc/passwd"]),
    "ft_missing": ("refuse", ["--ft_path", "nosuch.pt"]),
    "ft_folder": ("refuse", ["--ft_path", "/tmp"]),
    "ft_devnull": ("refuse", ["--ft_path", "/dev/null"]),
    "ft_devzero": ("refuse", ["--ft_path", "/dev/zero"]),
    "ft_long": ("refuse", ["--ft_path", L]),
    "ft_png": ("refuse", ["--ft_path", "{base}/llff/images/image000.png"]),
    "positional": ("refuse", ["stray"]),
    "dashdash": ["--"],
    "single_dash": ("refuse", ["-N_rand", "3"]),
    "unknown": ("refuse", ["--N_rnd", "3"]),
    "bool_word": ("refuse", ["--white_bkgd", "maybe"]),
    "render_only_none": ("refuse", ["--render_only"]),
    "render_only_noreload": ("refuse", ["--render_only", "--no_reload"]),
    "dataset_LINEMOD": ("refuse", ["--dataset_type", "LINEMOD"]),
    "skip_1": ("refuse", ["--skip", "0.9"]),
    "eval_rays_1e12": ["--eval_rays", str(10**12), "--i_eval", "1"],
    "eval_rays_2e63": ["--eval_rays", str(2**63), "--i_eval", "1"],
    "perturb_nan": ("refuse", ["--perturb", "nan"]),
    "white_wide_int": ["--N_rand", "٣٢"],
    "i_weights_2e63": ["--i_weights", str(2**63)],
}
# Options that size memory, with values that no machine has memory for, or that are no numbers.
SIZES = {
    **{
        f"{name}_{text}": [f"--{name}={value}"]
        for name in ("N_rand", "netwidth", "chunk", "i_eval")
        for text, value in (
            ("1e9", "1e9"),
            ("-1", "-1"),
            ("nan", "nan"),
            ("inf", "inf"),
            ("2e64", str(2**64)),
            ("digits", "9" * 5000),
            ("empty", ""),
            ("text", "many"),
        )
    },
}
MORE_CMD = {
    "expname_inner_dotdot": ("refuse", ["--expname", "a/../../b"]),
    "expname_dot": ("refuse", ["--expname", "."]),
    "expname_dotdot_only": ("refuse", ["--expname", ".."]),
    "expname_slash": ("refuse", ["--expname", "/"]),
    "expname_tilde": ("refuse", ["--expname", "~/x"]),
    "expname_tilde_user": ("refuse", ["--expname", "~root/x"]),
    "expname_sub": ("accept", ["--expname", "a/b/c"]),
    "expname_dots_in_name": ("accept", ["--expname", "a..b"]),
    "expname_255": ("accept", ["--expname", "x" * 255]),
    "expname_256": ("refuse", ["--expname", "x" * 256]),
    "expname_bytes": ("refuse", ["--expname", "é" * 128]),
    "expname_deep": ("refuse", ["--expname", "a/" * 3000]),
    "expname_escape": ["--expname", "\x1b[2J\x07"],
    "expname_rtl": ["--expname", "\u202etxt"],
    "expname_trailing_slash": ("accept", ["--expname", "a/"]),
    "datadir_dotdot": ("refuse", ["--datadir", ".."]),
    "datadir_fifo": ("refuse", ["--datadir", "{folder}/fifo"]),
    "datadir_devzero": ("refuse", ["--datadir", "/dev/zero"]),
    "basedir_fifo": ("refuse", ["--basedir", "{folder}/fifo"]),
    "basedir_nul_like": ("refuse", ["--basedir", "a\udc00b"]),
    "ft_fifo": ("refuse", ["--ft_path", "{folder}/fifo"]),
    "config_fifo": ("refuse", ["--config", "{folder}/fifo"]),
    "config_devzero": ("refuse", ["--config", "/dev/zero"]),
    "config_empty": ("refuse", ["--config", ""]),
    "config_folder": ("refuse", ["--config", "{folder}"]),
    "netdepth_0": ("refuse", ["--netdepth", "0"]),
    "netdepth_2000": ("refuse", ["--netdepth", "2000"]),
    "netwidth_1": ("refuse", ["--netwidth", "1"]),
    "netwidth_65536": ("refuse", ["--netwidth", "65536", "--netdepth", "100"]),
    "N_samples_1e5": ("refuse", ["--N_samples", "100000"]),
    "N_importance_-1": ("refuse", ["--N_importance", "-1"]),
    "hash_60": ("refuse", ["--encoding", "hash", "--hash_log2_entries", "60"]),
    "hash_finest_below": ("refuse", ["--encoding", "hash", "--hash_finest", "4"]),
    "hash_levels_33": ("refuse", ["--encoding", "hash", "--hash_levels", "33"]),
    "beta2_1": ("refuse", ["--adam_beta2", "1"]),
    "beta2_-1": ("refuse", ["--adam_beta2=-1"]),
    "seed_1e3": ("refuse", ["--seed", "1e3"]),
    "seed_hex": ("refuse", ["--seed", "0x10"]),
    "seed_2e64": ("refuse", ["--seed", str(2**64)]),
    "seed_underscore": ["--seed", "1_000"],
    "max_seconds_nan": ("refuse", ["--max_seconds", "nan"]),
    "max_seconds_-1": ("refuse", ["--max_seconds=-1"]),
    "lrate_-1": ("refuse", ["--lrate=-1"]),
    "precrop_frac_0": ("refuse", ["--precrop_frac", "0"]),
    "precrop_frac_2": ("refuse", ["--precrop_frac", "2"]),
    "equilibrate_p_3": ("refuse", ["--equilibrate", "--equilibrate_p", "3"]),
    "mutually_exclusive": ("refuse", ["--equilibrate", "--weight_norm"]),
    "empty_word": ("refuse", [""]),
    "unicode_dash": ("refuse", ["–N_rand", "3"]),
    "equals_empty": ("refuse", ["--N_rand="]),
    "abbreviated": ("refuse", ["--N_ran", "3"]),
}
WRITES_ELSEWHERE = ("basedir_unicode", "basedir_dash", "basedir_tilde", "basedir_nul_like")


def _cmd(name: str) -> None:
    @table("cmd", {name: ALL[name]})
    def _(folder: Path, more: list[str]) -> Command:
        scene = copied("llff", folder)
        os.mkfifo(folder / "fifo")
        words = ("--datadir", scene, "--factor", "1", "--basedir", folder / "out", "--expname", "x", *QUICK, *more)
        return Command("train_nerf.py", words, writes="" if name in WRITES_ELSEWHERE else "out")


ALL = CMD | {name: ("refuse", words) for name, words in SIZES.items()} | MORE_CMD
for _name in ALL:
    _cmd(_name)

SHAPECMD = {
    "near_bad": ("refuse", ["--near", "abc"]),
    "near_nan": ("refuse", ["--near", "nan:1"]),
    "near_1e400": ("refuse", ["--near", "1e400:1"]),
    "near_neg": ("refuse", ["--near=-1:1"]),
    "margin_1": ["--margin", "1"],
    "margin_2": ["--margin", "2"],
    "margin_-1": ["--margin=-1"],
    "margin_0.999999": ["--margin", "0.999999"],
    "N_points_1e9": ["--N_points", "1000000000", "--pool", "1000000000"],
    "pool_1e9": ["--pool", "1000000000"],
    "pool_lt": ("refuse", ["--pool", "1"]),
    "res_1e6": ["--resolution", "1000000"],
    "uniform_0": ["--uniform", "0", "--near", "", "--surface", "1"],
    "shares_0": ("refuse", ["--uniform", "0", "--near", ""]),
    "start_radius_1e30": ["--start_radius", "1e30", "--activation", "sine"],
    "omega_1e30": ["--activation", "sine", "--omega_0", "1e30"],
    "sigma_1e-30": ["--activation", "gaussian", "--gaussian_sigma", "1e-30"],
    "beta_1e30": ["--activation", "softplus", "--softplus_beta", "1e30"],
    "fourier_1e9": ["--encoding", "fourier", "--fourier_features", "1000000000"],
    "two_sources": ("refuse", ["--cloud", "x.ply"]),
    "mesh_long": ("refuse", ["--mesh", "x" * 300]),
    "mesh_tilde": ("refuse", ["--mesh", "~nobodyhere/x.obj"]),
    "mesh_fifo": ("refuse", ["--mesh", "{folder}/fifo.ply"]),
    "image_fifo": ("refuse", ["--mesh", "", "--image", "{folder}/fifo.ply"]),
    "image_devzero": ("refuse", ["--mesh", "", "--image", "/dev/zero"]),
    "cloud_fifo": ("refuse", ["--mesh", "", "--cloud", "{folder}/fifo.ply"]),
    "mesh_folder_empty": ("refuse", ["--mesh", "{folder}/empty"]),
    "image_folder": ("refuse", ["--mesh", "", "--image", "{folder}/empty"]),
    "image_tilde": ("refuse", ["--mesh", "", "--image", "~nobodyhere/x.png"]),
    "holdout_1": ("refuse", ["--mesh", "", "--image", "{base}/llff/images/image000.png", "--holdout", "1"]),
    "holdout_tiny": ("refuse", ["--mesh", "", "--image", "{base}/llff/images/image000.png", "--holdout", "1e-9"]),
}
MORE_SHAPECMD = {
    "mesh_fifo_obj": ("refuse", ["--mesh", "{folder}/fifo.obj"]),
    "mesh_devzero": ("refuse", ["--mesh", "/dev/zero"]),
    "cloud_devzero": ("refuse", ["--mesh", "", "--cloud", "/dev/zero"]),
    "cloud_folder": ("refuse", ["--mesh", "", "--cloud", "{folder}/empty"]),
    "image_missing": ("refuse", ["--mesh", "", "--image", "nosuch.png"]),
    "image_text": ("refuse", ["--mesh", "", "--image", "/proc/self/status"]),
    "image_png": ("accept", ["--mesh", "", "--image", "{base}/llff/images/image000.png", "--encoding", "positional"]),
    "image_hash_60": ("refuse", ["--hash_log2_entries", "60"]),
    "N_points_2e63": ("refuse", ["--N_points", str(2**63)]),
    "N_points_0": ("refuse", ["--N_points", "0"]),
    "pool_1e8": ["--pool", "1000"],
    "pool_uses_0": ("refuse", ["--pool_uses", "0"]),
    "res_2e63": ("refuse", ["--resolution", str(2**63)]),
    "res_-1": ("refuse", ["--resolution=-1"]),
    "netwidth_1e7": ("refuse", ["--netwidth", "10000000"]),
    "netdepth_1e6": ("refuse", ["--netdepth", "1000000"]),
    "multires_1e9": ("refuse", ["--encoding", "positional", "--multires", "1000000000"]),
    "fourier_60000": ["--encoding", "fourier", "--fourier_features", "60000"],
    "near_inf": ("refuse", ["--near", "inf:1"]),
    "near_long": ("refuse", ["--near", "0.1:1," * 5000]),
    "uniform_nan": ("refuse", ["--uniform", "nan"]),
    "uniform_1e300": ["--uniform", "1e300"],
    "surface_-1": ("refuse", ["--surface=-1"]),
    "holdout_nan": ("refuse", ["--holdout", "nan"]),
    "eikonal_occupancy": ("refuse", ["--eikonal", "1"]),
    "gradient_step_1e300": ["--representation", "sdf", "--eikonal", "1", "--gradient_step", "1e300"],
    "expname_dotdot": ("refuse", ["--expname", "../x"]),
    "expname_abs": ("refuse", ["--expname", "{folder}/escaped"]),
}


@table("shapecmd", SHAPECMD | MORE_SHAPECMD)
def _(folder: Path, more: list[str]) -> Command:
    for name in ("fifo.ply", "fifo.obj"):
        os.mkfifo(folder / name)
    (folder / "empty").mkdir()
    return shape(folder, "--mesh", base("mesh", "m.obj"), *more)


CLASSCMD = {
    "batch_1": ("refuse", ["--N_batch", "1"]),
    "batch_big": ("refuse", ["--N_batch", "1000"]),
    "width_1e-9": ["--width", "1e-9"],
    "width_16": ["--width", "16"],
    "depth_1e6": ["--depth", "1000000"],
    "depth_1": ["--depth", "1"],
    "patch_0vit": ["--model", "vit_s", "--depth", "1", "--width", "0.1"],
    "patch_7": ["--model", "vit_s", "--depth", "1", "--width", "0.1", "--patch", "9"],
    "patch_1e9": ["--model", "vit_s", "--depth", "1", "--patch", "1000000000"],
    "image_size_idx": ("refuse", ["--image_size", "8"]),
    "epochs_0": ("refuse", ["--epochs", "0", "--N_iters", "0"]),
    "epochs_1e-9": ["--epochs", "1e-9", "--N_iters", "0"],
    "mixup_1e300": ["--mixup", "1e300"],
    "mixup_1e-300": ["--mixup", "1e-300"],
    "smoothing_1": ("refuse", ["--label_smoothing", "1"]),
    "lrate_1e30": ["--lrate", "1e30", "--N_iters", "10"],
    "wd_1e30": ["--weight_decay", "1e30", "--N_iters", "10"],
    "train_images_1": ("refuse", ["--train_images", "1"]),
    "train_images_big": ["--train_images", "1000000"],
    "layers_bad": ("refuse", ["--normalisation", "bn+e", "--layers", "nosuch"]),
    "layers_brackets": ["--normalisation", "bn+e", "--layers", "[["],
    "images_long": ("refuse", ["--images", L]),
    "images_tilde": ("refuse", ["--images", "~nobodyhere/x"]),
    "images_empty": ("refuse", ["--images", ""]),
    "crop_nosize": ("refuse", ["--augment", "crop"]),
    "bnp": ["--normalisation", "none+bnp"],
    "resnet50": ["--model", "resnet18", "--depth", "0", "--width", "0.05"],
}
MORE_CLASSCMD = {
    "batch_2e63": ("refuse", ["--N_batch", str(2**63)]),
    "batch_1e9": ("refuse", ["--N_batch", "1000000000"]),
    "batch_0": ("refuse", ["--N_batch", "0"]),
    "depth_-1": ("refuse", ["--depth=-1"]),
    "depth_1000": ("refuse", ["--depth", "1000"]),
    "width_16_vit": ("refuse", ["--model", "vit_b", "--width", "16", "--depth", "400", "--N_batch", "20"]),
    "width_nan": ("refuse", ["--width", "nan"]),
    "width_inf": ("refuse", ["--width", "inf"]),
    "epochs_nan": ("refuse", ["--epochs", "nan"]),
    "epochs_1e9": ("refuse", ["--epochs", "1e9"]),
    "image_size_1e9": ("refuse", ["--image_size", "1000000000"]),
    "images_fifo": ("refuse", ["--images", "{folder}/fifo"]),
    "images_devzero": ("refuse", ["--images", "/dev/zero"]),
    "images_devnull": ("refuse", ["--images", "/dev/null"]),
    "images_self": ("refuse", ["--images", "."]),
    "images_dotdot": ("refuse", ["--images", ".."]),
    "images_badutf8": ("refuse", ["--images", "a\udcffb"]),
    "expname_dotdot": ("refuse", ["--expname", "../x"]),
    "train_images_2e64": ("refuse", ["--train_images", str(2**64)]),
    "momentum_nan": ("refuse", ["--momentum", "nan"]),
    "l1_inf": ("refuse", ["--l1", "inf"]),
}


@table("classcmd", CLASSCMD | MORE_CLASSCMD)
def _(folder: Path, more: list[str]) -> Command:
    os.mkfifo(folder / "fifo")
    return classifier(folder, base("idx"), *more)


COMPARE = {
    "methods_bad": ("refuse", ["--methods", "nosuch"]),
    "methods_twice": ("refuse", ["--methods", "plain,plain"]),
    "methods_empty": ("refuse", ["--methods", ""]),
    "seeds_neg": ("refuse", ["--seeds", "-1"]),
    "seeds_text": ("refuse", ["--seeds", "a"]),
    "seeds_2e63": ["--seeds", str(2**63)],
    "seeds_2e64": ["--seeds", str(2**64)],
    "lrates_nan": ("refuse", ["--lrates", "nan"]),
    "lrates_1e400": ("refuse", ["--lrates", "1e400"]),
    "lrates_0": ("refuse", ["--lrates", "0"]),
    "lrates_close": ("refuse", ["--lrates", "5e-4,5.0000001e-4", "--methods", "plain"]),
    "lrates_1e30": ["--lrates", "1e30", "--methods", "plain", "--N_iters", "10"],
    "seed_dup_zero": ["--seeds", "0,00"],
    "seeds_big_digits": ["--seeds", "9" * 5000],
}
MORE_COMPARE = {
    "seeds_-0": ["--seeds=-0"],
    "seeds_empty": ("refuse", ["--seeds", ""]),
    "seeds_float": ("refuse", ["--seeds", "1.5"]),
    "seeds_1e3": ("refuse", ["--seeds", "1e3"]),
    "lrates_-1": ("refuse", ["--lrates=-1"]),
    "lrates_empty_between": ("refuse", ["--lrates", "1e-3,,1e-4"]),
    "expname_dotdot": ("refuse", ["--expname", "../x", "--methods", "plain"]),
    "N_rand_1e9": ("refuse", ["--N_rand", "1000000000", "--methods", "plain"]),
}


@table("compare", COMPARE | MORE_COMPARE)
def _(folder: Path, more: list[str]) -> Command:
    scene = copied("llff", folder)
    where = ("--datadir", scene, "--factor", "1", "--basedir", folder / "out", "--expname", "x")
    return Command("compare_nerf.py", (*where, *NERF, "--N_iters", "2", "--i_eval", "1", *more))
