# Sourced by the scripts: `bootstrap FILE` makes the virtual environment with what scripts/FILE pins
# and the checkout on its path. Quick when there is nothing to do.
#
# COACH_VENV puts it elsewhere than .venv; PYTHON names the interpreter to make it with.
# shellcheck shell=bash

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
venv=${COACH_VENV:-$root/.venv}
[[ $venv == /* ]] || venv=$PWD/$venv
bin=$venv/bin

fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

has() { command -v "$1" >/dev/null; }

bootstrap() {
    local pinned=$root/scripts/$1 installed=$venv/.installed-$1
    if venv_is_ours && cmp -s "$pinned" "$installed"; then return; fi
    if venv_is_ours; then
        echo "Updating ${venv#"$root/"} ..." >&2
    else
        echo "Setting up ${venv#"$root/"} (first run: seconds with uv, a minute or so with pip) ..." >&2
        make_venv
    fi
    install_pinned "$pinned"
    cp "$pinned" "$installed"  # last: an interrupted run is taken up again
}

# A copied or moved checkout, or another PYTHON, gets a new one.
venv_is_ours() {
    [[ -x $bin/python && -f $venv/.made-for && $(made_for) == "$(<"$venv/.made-for")" ]]
}

made_for() {
    printf '%s\n' "$root" "$venv"
    "${PYTHON:-$bin/python}" -V 2>&1
}

make_venv() {
    if [[ -d $venv && ! -e $venv/pyvenv.cfg && -n $(ls -A "$venv") ]]; then
        fail "$venv is not a virtual environment: remove it, or set COACH_VENV to another place"
    fi
    local python
    python=$(find_python)
    if [[ ${PYTHON-} && ! $python ]]; then
        fail "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13: name one, or unset PYTHON"
    elif has uv; then
        uv venv --quiet --no-project --clear --python "${python:->=3.11,<3.14}" "$venv" ||
            fail "no Python 3.11, 3.12 or 3.13 found: install one, or set PYTHON to its path"
    elif [[ ! $python ]]; then
        fail "no Python 3.11, 3.12 or 3.13 found: install one, or set PYTHON to its path"
    else
        "$python" -m venv --clear --without-pip "$venv" ||
            fail "$python cannot make virtual environments: install its venv module (Debian: apt-get install python3-venv)"
    fi

    local site
    site=$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n' "$root" >"$site/coach.pth"
    printf '#!/usr/bin/env bash\nexec %q -m coach "$@"\n' "$bin/python" >"$bin/coach"
    chmod +x "$bin/coach"
    made_for >"$venv/.made-for"
}

# Prints nothing when there is none.
find_python() {
    if [[ ${PYTHON-} ]]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11; fi
    local candidate
    for candidate; do
        # The base interpreter: the candidate may itself be of the venv about to be cleared.
        "$candidate" -c '
import sys
if not (3, 11) <= sys.version_info < (3, 14):
    sys.exit(1)
print(sys._base_executable)' 2>/dev/null && return
    done
    return 0
}

install_pinned() {
    local how=(install --quiet --require-hashes --only-binary :all: --requirement "$1") python
    if has uv; then
        uv pip "${how[@]}" --python "$bin/python"
    elif "$bin/python" -m pip --version >/dev/null 2>&1 ||
        "$bin/python" -m ensurepip >/dev/null 2>&1; then
        "$bin/python" -m pip --disable-pip-version-check "${how[@]}"
    else
        # Debian's Python has no ensurepip without python3-venv, and its pip (PEP 668) installs into a venv only.
        python=$(find_python)
        [[ $python ]] && "$python" -m pip --version >/dev/null 2>&1 ||
            fail "no pip: install uv, or pip for ${python:-python3} (Debian: apt-get install python3-venv)"
        "$python" -m pip --disable-pip-version-check --python "$bin/python" "${how[@]}"
    fi
}
