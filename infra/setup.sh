#!/bin/sh
# Makes .venv with the pinned packages and fetches the jars. POSIX sh, for Linux and macOS; PYTHON=... names the Python.
#
# The last thing that it writes is a stamp over the lock files and the installed packages, so a second call ends at
# once, and a set-up that was interrupted, or of which something was deleted, is completed by the next call.
# UV_TORCH_BACKEND does not work here: another build of torch has other hashes than the lock.
set -eu
cd "$(dirname "$0")/.."

venv_python=.venv/bin/python
stamp=.venv/setup-stamp
at_least_3_11='import sys; sys.exit(sys.version_info < (3, 11))'

fail() {
    echo "setup: $*" >&2
    exit 1
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c "$at_least_3_11" >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer found: install one (Debian, Ubuntu: apt install python3 python3-venv;" \
        "macOS: brew install python) or name it: make setup PYTHON=/path/to/python3"
}

state() {
    "$venv_python" -I infra/setup_state.py check \
        pyproject.toml requirements.lock requirements-build.lock requirements-uv.lock
}

if ! { [ -f "$stamp" ] && now=$(state 2>/dev/null) && [ "$now" = "$(cat "$stamp")" ]; }; then
    rm -f "$stamp"
    if ! "$venv_python" -c "$at_least_3_11" >/dev/null 2>&1; then
        python=$(find_python)
        echo "setup: making .venv with $("$python" --version)"
        rm -rf .venv
        "$python" -m venv .venv >/dev/null 2>&1 || true # judged by what it has made
    fi
    "$venv_python" -m pip --version >/dev/null 2>&1 || "$venv_python" -m ensurepip >/dev/null 2>&1 ||
        fail "this Python cannot make an environment with pip (Debian, Ubuntu: apt install python3-venv)"

    echo "setup: installing the pinned packages; the first time this takes a minute or more"
    "$venv_python" -I infra/setup_state.py mend
    "$venv_python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.lock
    "$venv_python" -m uv pip sync -q --python "$venv_python" --require-hashes \
        --build-constraint requirements-build.lock requirements.lock
    "$venv_python" -m uv pip install -q --python "$venv_python" --no-deps --no-build-isolation --editable .
    state >"$stamp.new" || fail "the environment is not whole: delete .venv and try again"
    mv "$stamp.new" "$stamp"
fi
exec "$venv_python" -m infra.commands setup
