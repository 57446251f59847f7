#!/usr/bin/env bash
set -euo pipefail
# From a fresh clone to a running experiment; see usage() below. What fails says so in one line.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$root/venv"
python="$venv/bin/python"
driver=/proc/driver/nvidia/version
fundus_only='# only for ./setup.sh data fundus'  # in requirements.txt, before what kaggle needs

main() {
    local command="${1:-all}"
    [ $# -eq 0 ] || shift
    case "$command" in
        all) environment fundus; both ;;
        data)
            [ $# -gt 0 ] || fail "data needs a name, as ./setup.sh data Task04_Hippocampus"
            case " $* " in *" fundus "*) environment fundus ;; *) environment ;; esac
            data "$@"
            ;;
        demo) environment; demo ;;
        test) environment test; checks "$@" ;;
        help | -h | --help) usage ;;
        *) fail "unknown command $command; ./setup.sh help lists them" ;;
    esac
}

usage() {
    cat <<TEXT
./setup.sh                  environment in venv/, then in data/ the pancreas scans (MSD Task07, 11 GB) and the
                            fundus photographs (APTOS 2019, 10 GB; needs a Kaggle account)
./setup.sh data NAME...     environment, then single data sets: fundus, or any of the ten MSD tasks, as
                            Task04_Hippocampus
./setup.sh demo             environment, then both experiments on generated images, five minutes on two CPU cores
./setup.sh test [ARGS]      environment, then lint, types and tests; ARGS go to pytest

PYTHON=python3.12 ./setup.sh ...    takes this interpreter; venv/ is made anew if it has another
TORCH_INDEX=URL ./setup.sh ...      takes torch from this wheel index, now and in later calls; TORCH_INDEX= (empty)
                                    goes back to the default one
TEXT
}

fail() {
    echo "setup.sh: $1" >&2
    exit 2
}

# environment [fundus] [test]: venv/ with the packages of requirements.txt, and those that only the
# data set fundus or the tests need. venv/.installed-PART holds the requirements that a part was
# last installed with: while they stay the same, pip is not run. venv/.torch-index holds the index
# that torch is from (empty: pip's default).
environment() {
    local part index
    index="${TORCH_INDEX-$(cat "$venv/.torch-index" 2>/dev/null || true)}"
    make_venv
    installed basis || basis
    for part in "$@"; do
        installed "$part" || extra "$part"
    done
}

make_venv() {  # venv/ of a supported Python, that of PYTHON= if given
    local have interpreter wanted said
    have="$(identity "$python" pip)"
    if [ -n "$have" ] && [ -z "${PYTHON:-}" ]; then return; fi
    interpreter="$(find_python)"
    wanted="$(identity "$interpreter")"
    if [ "$have" = "$wanted" ]; then return; fi
    if [ -L "$venv" ] && [ -e "$venv/bin" ]; then
        fail "venv is a link to an environment of another Python, which is left alone; remove the link"
    fi
    echo "making venv/ ${have:+anew, for it has Python $have, }with $interpreter"
    if ! said="$("$interpreter" -m venv --clear "$venv" 2>&1)"; then
        wanted="${wanted%% *}"  # 3.12.1
        case "$said" in
            *ensurepip* | *"named venv"*) said="on Debian or Ubuntu, apt install python${wanted%.*}-venv" ;;
        esac
        fail "could not make venv/ with $interpreter: ${said##*$'\n'}"
    fi
    echo "$index" >"$venv/.torch-index"
}

identity() {  # identity PYTHON [MODULE]: version and home; nothing if it is unsupported or lacks MODULE
    "$1" -c "import os, sys, ${2:-sys}
assert (3, 11) <= sys.version_info[:2] <= (3, 13)
print(sys.version.split()[0], 'of', os.path.realpath(sys.base_prefix))" 2>/dev/null || true
}

find_python() {  # prints PYTHON=, or the first interpreter of a supported version
    local name
    local -a names=(python3.11 python3.12 python3.13 python3)
    [ -z "${PYTHON:-}" ] || names=("$PYTHON")
    for name in "${names[@]}"; do
        if [ -n "$(identity "$name")" ]; then
            command -v "$name"
            return
        fi
    done
    fail "no Python 3.11 to 3.13 (tried: ${names[*]}); install one, or name it: \
PYTHON=/path/to/python3.12 ./setup.sh"
}

installed() {
    [ "$(requirements "$1")" = "$(cat "$venv/.installed-$1" 2>/dev/null)" ]
}

requirements() {  # requirements PART, for pip; a comment tells one torch index from another
    case "$1" in
        basis) echo "# torch index: $index"; sed "\|^$fundus_only|,\$d" "$root/requirements.txt" ;;
        fundus) sed -n "\|^$fundus_only|,\$p" "$root/requirements.txt" ;;
        test) cat "$root/code/tests/requirements.txt" ;;
    esac
}

extra() {
    echo "installing what only $1 needs into venv/"
    want "$1"
    install -r "$venv/.wanted-$1"
    mv "$venv/.wanted-$1" "$venv/.installed-$1"
}

basis() {  # both torch packages and the rest; an import that fails is mended from the default index
    local why size="about 6 GB with torch's CUDA build"
    local -a force=()
    if [ -z "${TORCH_INDEX+given}$index" ] && [ ! -e "$driver" ] && ! command -v nvidia-smi >/dev/null
    then
        echo "no NVIDIA driver found, and torch's CUDA build is about 6 GB: for CPU wheels, where they exist, stop \
here and give TORCH_INDEX=URL ./setup.sh ..., URL being that of the CPU wheel index that pytorch.org's \
'Get started' page shows"
    fi
    [ -z "$index" ] || size="torch from $index"
    echo "installing requirements.txt into venv/: $size, some minutes"
    if [ -n "${TORCH_INDEX+given}" ] &&
        [ "$(cat "$venv/.torch-index" 2>/dev/null || echo unknown)" != "$index" ]; then
        force=(--force-reinstall)  # pip takes any build of the same version for the wanted one
    fi
    torch_and_rest "${force[@]}"
    if ! why="$(import_torch)"; then
        echo "setup.sh: import torch, torchvision fails${index:+ with the builds of $index} (${why##*$'\n'}); \
installing both from the default index" >&2
        index=""
        torch_and_rest --force-reinstall
        why="$(import_torch)" || fail "import torch, torchvision fails with the default builds too \
(${why##*$'\n'}); remove venv/ and give the same command again"
    fi
    mv "$venv/.wanted-basis" "$venv/.installed-basis"
}

torch_and_rest() {  # torch_and_rest [OPTION]: torch first, for --index-url must not hide the others
    local -a pins
    mapfile -t pins < <(grep -oE '^torch(vision)?==[^ ]+' "$root/requirements.txt")
    want basis
    install "$@" --no-deps ${index:+--index-url "$index"} "${pins[@]}"
    echo "$index" >"$venv/.torch-index"
    install ${index:+--extra-index-url "$index"} -r "$venv/.wanted-basis"
}

want() {  # want PART: its requirements into .wanted-PART, and no longer installed
    { requirements "$1" >"$venv/.wanted-$1" && rm -f "$venv/.installed-$1"; } 2>/dev/null ||
        fail "cannot write into $venv"
}

install() {  # install WHAT...: pip, and one line instead of pip's if it fails
    local why log="$venv/pip.log"
    if ! "$python" -m pip install --disable-pip-version-check --quiet "$@" >"$log" 2>&1; then
        why="$(grep -i '^error: .*[^:]$' "$log" | tail -n 1 || true)"
        fail "pip could not install: ${why:-$(tail -n 1 "$log")} (all of it: $log). Check network, proxy \
and disk space${index:+, and the torch index $index (TORCH_INDEX= takes the default one)}, then give the same \
command again"
    fi
}

import_torch() {  # prints why it fails, torchvision::nms of another build for one
    "$python" -c 'import torch, torchvision' 2>&1
}

data() {  # data NAME... : fundus from Kaggle, all others from the Decathlon
    local name
    for name in "$@"; do
        if [ "$name" = fundus ]; then
            "$python" "$root/code/common/data/aptos.py" --to "$root/data/fundus" || return
        else
            "$python" "$root/code/common/data/download.py" --to "$root/data" \
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

demo() {  # both experiments, then what they say, so that it stands together at the end
    local tree
    echo "the demo, 3d and then 2d, takes up to five minutes on two idle CPU cores"
    for tree in 3d 2d; do
        echo "code/$tree/exp.py --demo"
        "$python" "$root/code/$tree/exp.py" --demo
    done
    for tree in 3d 2d; do
        "$python" "$root/code/$tree/graph.py" --demo
    done
    echo "Generated images and minutes of training: a gain is not expected here."
    echo "Open first, with all figures and tables:"
    echo "    $root/results/demo/ctphantom.html"
    echo "    $root/results/demo/fundusphantom.html"
}

checks() {  # all three run, whatever fails; types beside the tests, some of which only wait
    local failed="" typed tested=0 log="$venv/mypy.log"
    cd "$root/code"
    "$python" -m ruff check . || failed=" ruff"
    types >"$log" 2>&1 & typed=$!
    "$python" -m pytest "$@" || tested=1
    wait "$typed" || failed="$failed mypy"
    cat "$log"
    [ "$tested" = 0 ] || failed="$failed pytest"
    if [ -n "$failed" ]; then
        echo "setup.sh: failed:$failed" >&2
        exit 1
    fi
}

types() {
    local tree status=0
    MYPYPATH=. "$python" -m mypy --explicit-package-bases common bench || status=1
    for tree in 3d 2d; do
        (cd "$tree" && MYPYPATH=.. "$python" -m mypy --config-file ../pyproject.toml \
            --cache-dir ../.mypy_cache ./*.py) || status=1
    done
    return "$status"
}

main "$@"
