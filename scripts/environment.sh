# Sourced by demo.sh and test.sh: makes .venv beside pyproject.toml and installs the requested extras, if missing.
#
#   prepare_environment EXTRAS     EXTRAS: "[app]" (also ""), or "[test]", which includes it
#
# Afterwards the command is .venv/bin/enerf, and .venv/bin/python runs the scripts.
# Needs Python 3.11 to 3.13 with venv; no sudo. Tested versions are pinned in scripts/constraints.txt. torch is
# installed by version: the CPU build's where there is no NVIDIA driver, otherwise whatever suits the driver.

say() { printf '%s\n' "$*" >&2; }

find_python() {
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3 python3.13 python; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            printf '%s' "$candidate"
            return 0
        fi
    done
    say "error: no Python 3.11 to 3.13 was found; install one, or name it: PYTHON=/path/to/python bash $0"
    return 1
}

make_venv() {
    local python
    python=$(find_python) || return 1
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        say "error: $python has no venv module; on Debian and Ubuntu: apt install python3-venv"
        return 1
    fi
    say "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
}

prepare_environment() {
    local extras="${1:-[app]}" torch="torch==2.13.0" wanted installed
    nvidia-smi >/dev/null 2>&1 && torch="torch>=2.6"
    wanted="$(cat pyproject.toml scripts/constraints.txt | cksum) $PWD"
    installed=$(cat .venv/.installed 2>/dev/null || true)
    # an environment with the extra test is sufficient for the demo too; a moved or copied one is not usable
    if .venv/bin/python -c 'import enerf, sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null; then
        case "$installed" in
            "$wanted $torch $extras" | "$wanted $torch [test]") return 0 ;;
        esac
    fi
    .venv/bin/python -c 'import pip' 2>/dev/null || make_venv || return 1
    say "installing into .venv: $torch and the requirements of pyproject.toml (once, some minutes)"
    if ! .venv/bin/python -m pip install -q --disable-pip-version-check -c scripts/constraints.txt "$torch" -e ".$extras"; then
        say "error: pip could not install the packages (see above); check the network and the disk, and run this again"
        return 1
    fi
    printf '%s' "$wanted $torch $extras" >.venv/.installed
}
