"""Configuration files: encodings, syntax, values, names that would leave the folder of results."""

from pathlib import Path

from tests.corpus.inputs import QUICK, copied, special_file
from tests.corpus.registry import Command, table

CONF = {
    "binary": ("refuse", bytes(range(256)) * 10),
    "bom": ("accept", b"\xef\xbb\xbfN_rand = 32\n"),
    "crlf": ("accept", b"N_rand = 32\r\nlrate = 1e-3\r\n"),
    "cr_only": b"N_rand = 32\rlrate = 1e-3\r",
    "utf16": ("refuse", "N_rand = 32\n".encode("utf-16")),
    "duplicate": b"N_rand = 32\nN_rand = 64\n",
    "include_self": b"config = x.txt\n",
    "include_other": b"config = fern.txt\n",
    "help": ("refuse", b"help = true\n"),
    "help_h": ("refuse", b"h = true\n"),
    "equals_in_value": b"expname = a=b=c\n",
    "hash_in_value": b"expname = a#b\n",
    "hash_space": b"expname = a # b\n",
    "unicode": ("accept", "expname = héllo-日本\n".encode()),
    "rtl": "expname = \u202eabc\n".encode(),
    "nul": ("any", b"expname = a\0b\n"),
    "list": b"N_rand = [32, 64]\n",
    "list_str": ("refuse", b"expname = [a, b]\n"),
    "quote_open": b"expname = 'abc\n",
    "section": b"[section]\nN_rand = 32\n",
    "yaml": b"---\nN_rand: 32\n...\n",
    "colon": b"N_rand : 32\n",
    "no_value": ("refuse", b"N_rand\n"),
    "empty_value": ("refuse", b"N_rand =\n"),
    "only_equals": ("refuse", b"= 32\n"),
    "dash_name": ("any", b"--N_rand = 32\n"),
    "unknown": ("refuse", b"N_rnd = 32\n"),
    "line_1MB": ("refuse", b"expname = " + b"a" * (1 << 20) + b"\n"),
    "million_lines": b"# c\n" * 300000,
    "semicolon": b"; comment\nN_rand = 32\n",
    "ff_vt": b"expname = a\x0bb\x0cc\n",
    "u2028": "expname = a\u2028b\n".encode(),
    "value_dashes": b"expname = --N_rand\n",
    "value_dash": b"expname = -x\n",
    "bool_true_words": b"no_reload = true\n",
    "bool_maybe": ("refuse", b"no_reload = maybe\n"),
    "bool_false": ("accept", b"white_bkgd = False\n"),
    "nan": ("refuse", b"lrate = nan\n"),
    "inf": ("refuse", b"lrate = inf\n"),
    "underscore": b"N_rand = 3_2\n",
    "unicode_digits": "N_rand = ３２\n".encode(),
    "hex": ("refuse", b"N_rand = 0x20\n"),
    "float_int": ("refuse", b"N_rand = 32.0\n"),
    "dotdot_expname": b"expname = ../../escape\n",
    "abs_expname": ("any", b"expname = /nonexistent/escape\n"),
    "newline_escape": b"expname = 'a\\nb'\n",
    "env_var": b"expname = $HOME\n",
    "format_percent": b"expname = %s%n%(x)s\n",
    "slash_end": b"expname = a/b/c/\n",
    "dots": b"expname = ..\n",
}
MORE_CONF = {
    "bom_utf16": ("refuse", b"\xff\xfeN\0_\0r\0"),
    "bom_only": b"\xef\xbb\xbf",
    "mac_roman": ("refuse", b"expname = caf\x8e\n"),
    "spaces_around": ("accept", b"   N_rand   =   32   \n"),
    "tabs": ("accept", b"N_rand\t=\t32\n"),
    "inline_comment": ("accept", b"N_rand = 32 # rays\n"),
    "thousand_separator": ("refuse", b"N_rand = 32,000\n"),
    "exponent": ("refuse", b"N_rand = 1e9\n"),
    "huge": ("refuse", b"N_rand = 1000000000\n"),
    "negative": ("refuse", b"N_rand = -32\n"),
    "minus_inf": ("refuse", b"raw_noise_std = -inf\n"),
    "digits_5000": ("refuse", b"N_rand = " + b"9" * 5000 + b"\n"),
    "case": ("refuse", b"n_rand = 32\n"),
    "tilde_expname": ("refuse", b"expname = ~/x\n"),
    "inner_dotdot": ("refuse", b"expname = a/../../../b\n"),
    "dot": ("refuse", b"expname = .\n"),
    "long_part": ("refuse", b"expname = a/" + b"b" * 256 + b"\n"),
    "deep_name": b"expname = " + b"a/" * 200 + b"b\n",
    "surrogate_bytes": ("refuse", b"expname = a\xed\xa0\x80b\n"),
    "basedir_empty": ("refuse", b"basedir =\n"),
    "windows_path": b"expname = C:\\logs\\fern\n",
    "json": ("refuse", b'{"N_rand": 32}\n'),
    "html": ("refuse", b"<html></html>\n"),
    "nested_config": ("refuse", b"config = nosuch.txt\nconfig = neither.txt\n"),
}


@table("config", CONF | MORE_CONF)
def _(folder: Path, raw: bytes) -> Command:
    scene = copied("llff", folder)
    (folder / "x.txt").write_bytes(raw)
    words = ["--config", folder / "x.txt", "--datadir", scene, "--factor", "1", "--basedir", folder / "out", *QUICK]
    given = [name for name in ("N_rand", "basedir") if name.encode() in raw]
    for name in given:  # an option of the command line would hide the file's
        at = words.index(f"--{name}")
        del words[at : at + 2]
    return Command("train_nerf.py", tuple(words), writes="" if "basedir" in given else "out")


@table("config_file", {kind: kind for kind in ("fifo", "folder", "devzero", "loop", "dangling", "missing")}, "refuse")
def _(folder: Path, kind: str) -> Command:
    special_file(folder / "x.txt", kind)
    scene = copied("llff", folder)
    words = ("--config", folder / "x.txt", "--datadir", scene, "--factor", "1", "--basedir", folder / "out", *QUICK)
    return Command("train_nerf.py", words)


@table("config_empty", {"": ""}, "accept")
def _(folder: Path, _kind: str) -> Command:
    (folder / "x.txt").write_bytes(b"")
    scene = copied("llff", folder)
    words = ("--config", folder / "x.txt", "--datadir", scene, "--factor", "1", "--basedir", folder / "out", *QUICK)
    return Command("train_nerf.py", words)
