#!/usr/bin/env bash
set -euo pipefail
# From a fresh clone to a running experiment; see usage() below.
# PYTHON=python3.12 chooses the interpreter, TORCH_INDEX=URL another wheel index for torch.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$root/venv/bin/python"

usage() {
    cat <<TEXT
./setup.sh                  environment in venv/, then in data/ the pancreas scans (MSD Task07, 11 GB) and the
                            fundus photographs (APTOS 2019, 10 GB; needs a Kaggle account)
./setup.sh data NAME...     environment, then single data sets: fundus, or any of the ten MSD tasks, as
                            Task04_Hippocampus
./setup.sh demo             environment, then both experiments on generated images, minutes on a CPU
./setup.sh test [ARGS]      environment, then lint, types and tests; ARGS go to pytest
TEXT
}

fail() {
    echo "setup.sh: $1" >&2
    exit 2
}

find_python() {  # prints an interpreter of a supported version
    local name
    for name in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
            2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    fail "no Python 3.11 to 3.13 (tried: ${PYTHON:-python3.11 python3.12 python3.13 python3}); \
install one, or name it: PYTHON=/path/to/python3.12 ./setup.sh"
}

install() {  # install WHAT... : pip, and one line instead of pip's if it fails
    local log="$root/venv/pip.log"
    if ! "$python" -m pip install --disable-pip-version-check --quiet "$@" >"$log" 2>&1; then
        grep -i '^error' "$log" >&2 || tail -n 3 "$log" >&2
        fail "pip could not install (whole output: $log). Check network, proxy and disk space, \
then give the same command again; nothing half-made is used."
    fi
}

environment() {  # venv/ with requirements.txt, and those of the tests for "environment test"
    local wanted stamp name="$root/venv/.complete"
    wanted="$(cat "$root/requirements.txt") ${TORCH_INDEX:-}"
    if [ "${1:-}" = test ]; then
        wanted="$wanted $(cat "$root/code/tests/requirements.txt")"
        name="$name-test"
    fi
    stamp="$("$python" -c 'import sys; print(sys.version)' 2>/dev/null || true) $wanted"
    if [ -f "$name" ] && [ "$(cat "$name")" = "$stamp" ]; then
        return
    fi
    if ! "$python" -c 'import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
        2>/dev/null; then
        local interpreter
        interpreter="$(find_python)"
        echo "making venv/ with $interpreter"
        "$interpreter" -m venv --clear "$root/venv" || fail "could not make $root/venv"
    fi
    rm -f "$name"
    echo "installing requirements.txt into venv/: about 6 GB with the CUDA build, some minutes"
    if [ -n "${TORCH_INDEX:-}" ]; then
        # Two commands, for --index-url must not hide the other packages.
        local torch_only
        torch_only="$(grep -E '^torch(vision)?==' "$root/requirements.txt")"
        # shellcheck disable=SC2086  # one word a requirement
        install --index-url "$TORCH_INDEX" $torch_only
    fi
    install -r "$root/requirements.txt"
    [ "${1:-}" != test ] || install -r "$root/code/tests/requirements.txt"
    echo "$("$python" -c 'import sys; print(sys.version)') $wanted" >"$name"
}

data() {  # data NAME... : fundus from Kaggle, all others from the Decathlon
    local name
    for name in "$@"; do
        if [ "$name" = fundus ]; then
            "$python" "$root/code/common/competition.py" --to "$root/data/fundus" || return
        else
            "$python" "$root/code/common/download.py" --to "$root/data" \
                --archives "$root/code/3d/msd_archives.json" "$name" || return
        fi
    done
}

both() {  # the data of both trees; one alone is enough to go on with
    local name got="" missing=""
    for name in Task07_Pancreas fundus; do
        if data "$name"; then got="$got $name"; else missing="$missing $name"; fi
    done
    [ -n "$got" ] || fail "neither data set could be fetched, see above"
    [ -z "$missing" ] || echo "set up:$got. Missing, see above:$missing; ./setup.sh data$missing tries again"
}

demo() {
    local tree
    for tree in 3d 2d; do
        echo "demo of code/$tree (3d first, then 2d)"
        "$python" "$root/code/$tree/exp.py" --demo
        "$python" "$root/code/$tree/graph.py" --demo
    done
    echo "the figures and tables are in $root/results/demo"
}

checks() {
    local tree
    cd "$root/code"
    "$python" -m ruff check .
    MYPYPATH=. "$python" -m mypy --explicit-package-bases common
    for tree in 3d 2d; do
        (cd "$tree" && MYPYPATH=.. "$python" -m mypy --config-file ../pyproject.toml ./*.py)
    done
    "$python" -m pytest "$@"
}

case "${1:-all}" in
    all) environment && both ;;
    data)
        shift
        [ $# -gt 0 ] || fail "data needs a name, as ./setup.sh data Task04_Hippocampus"
        environment && data "$@"
        ;;
    demo) environment && demo ;;
    test)
        shift
        environment test && checks "$@"
        ;;
    help | -h | --help) usage ;;
    *)
        usage >&2
        fail "unknown command $1"
        ;;
esac
