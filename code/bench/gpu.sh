#!/usr/bin/env bash
set -uo pipefail
# Everything this project wants to know of a graphics card, in about twelve minutes.
#
#   code/bench/gpu.sh --out FOLDER [--python PATH] [--minutes 12] [--data3d MSD_FOLDER] [--data2d FOLDER]
#                     [--device cuda|cpu] [--smoke]
#
# Parts, each with a share of the time that is left, its own log, and one line in FOLDER/summary.md as it ends:
#
#   imports   every package, one line each                              imports.log
#   machine   card, driver, versions, cores, commit                     machine.txt
#   tests     pytest -m gpu                                             tests.log
#   steps     seconds and memory of a step of every task, both trees,   steps.jsonl steps.md
#             both layouts and precisions; hours of both default grids  grids.md
#   demo      exp.py --demo and graph.py --demo of both trees           demo3d/ demo2d/
#   study     baseline and rotation on real data at full resolution, in
#             the time that is left, if --data3d or --data2d is given   study3d/ study2d/
#
# A part that fails or runs out of time leaves the others. No network, nothing is installed, nothing is written
# outside FOLDER. What is large lies in FOLDER/work.* and is removed at the end; text and curves stay, a few MB.
# --device cpu --smoke takes tiny sizes and shows in three minutes that every part runs.
# Exit status: 0, 1 if a part failed, 2 if it cannot be started or there is no card.

SECONDS=0
code="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="" out="" minutes=12 data3d="" data2d="" device=cuda smoke=() failed=0 child=""
kill_after=8    # seconds a part has to end after being asked to
least=5         # seconds below which a part is not begun
modules="torch torchvision numpy scipy sklearn nibabel isal matplotlib filelock tqdm pytest"

main() {
    arguments "$@"
    surroundings
    local demo=45 common=(--device "$device" "${smoke[@]}") marked tree
    [ -z "$data3d$data2d" ] || demo=25  # percent
    [ ! -e "$out/steps.jsonl" ] || mv "$out/steps.jsonl" "$out/steps.jsonl.old-$(date +%s)"
    printf '| part | status | seconds | key numbers |\n|---|---|---|---|\n' | tee "$out/summary.md"

    part imports 20 "$python" -c "$import_each" $modules
    part machine 20 "$python" "$code/bench/gpu/machine.py" --out "$out" "${common[@]}"
    [ "$status" != 3 ] || fail "$key (--device cpu --smoke tries this script itself)"
    part tests 30 "$python" -m pytest -c "$code/pyproject.toml" --rootdir "$code" -p no:cacheprovider \
        -o addopts="-q --strict-markers --import-mode=importlib" --basetemp "$work/tests" -vv -m gpu \
        $(grep -l 'mark\.gpu' "$code"/tests/test_*.py)
    part steps 45 "$python" "$code/bench/gpu/card_steps.py" --out "$out" --work "$work/steps" "${common[@]}" --seconds BUDGET
    for tree in 3d 2d; do
        part demo$tree $demo "$python" "$code/bench/gpu/parts.py" demo $tree --out "$out/demo$tree" \
            --work "$work/demo$tree" "${common[@]}" --seconds BUDGET
    done
    [ -z "$data3d" ] || part study3d "$([ -z "$data2d" ] && echo 100 || echo 55)" "$python" "$code/bench/gpu/parts.py" \
        study 3d --data "$data3d" --out "$out/study3d" --work "$work/study3d" "${common[@]}" --seconds BUDGET
    [ -z "$data2d" ] || part study2d 100 "$python" "$code/bench/gpu/parts.py" \
        study 2d --data "$data2d" --out "$out/study2d" --work "$work/study2d" "${common[@]}" --seconds BUDGET
    echo "$SECONDS s; the table is $out/summary.md"
    exit $failed
}

arguments() {
    while [ $# -gt 0 ]; do
        case "$1" in
            --smoke) smoke=(--smoke) && shift && continue ;;
            -h | --help) sed -n '3,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
            --python | --out | --minutes | --data3d | --data2d | --device) ;;
            *) fail "unknown argument $1 (--help)" ;;
        esac
        [ $# -gt 1 ] || fail "$1 needs a value (--help)"
        printf -v "${1#--}" %s "$2"  # the variable of the flag's name
        shift 2
    done
    [ -n "$out" ] || fail "--out FOLDER is needed (--help)"
    [ -n "$python" ] || python="$code/../venv/bin/python"
    [ -x "$python" ] || command -v "$python" >/dev/null || python=python3
    "$python" -c "" 2>/dev/null || fail "$python cannot be run (--python)"
    limit=$("$python" -c 'import sys; print(int(60 * float(sys.argv[1])))' "$minutes" 2>/dev/null) ||
        fail "--minutes $minutes: not a number"
    [ "$limit" -gt 0 ] || fail "--minutes $minutes: must be above 0"
    [[ "$device" =~ ^(cpu|cuda|cuda:[0-9]+)$ ]] || fail "--device $device: expected cuda, cuda:N or cpu"
}

surroundings() {  # a scratch folder, and every cache in it
    out="$(mkdir -p "$out" && cd "$out" && pwd)" || fail "--out cannot be written"
    work="$(mktemp -d "$out/work.XXXXXX")" || fail "$out cannot be written"
    trap 'rm -rf "$work"' EXIT
    trap 'kill $child 2>/dev/null; wait; exit 130' INT TERM
    export TMPDIR="$work/tmp" MPLCONFIGDIR="$work/matplotlib" MPLBACKEND=Agg
    export XDG_CACHE_HOME="$work/cache" CUDA_CACHE_PATH="$work/cuda" TORCHINDUCTOR_CACHE_DIR="$work/inductor"
    export TRITON_CACHE_DIR="$work/triton" PYTORCH_KERNEL_CACHE_PATH="$work/kernels" TORCH_HOME="$work/torch"
    export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 GIT_OPTIONAL_LOCKS=0
    mkdir -p "$TMPDIR" "$work/matplotlib" "$work/kernels"
}

part() {  # part NAME SHARE COMMAND... : run it for SHARE percent of the seconds left at most; then write its line
    local name=$1 budget=$(((limit - SECONDS - kill_after) * $2 / 100)) began=$SECONDS words taken
    shift 2
    status=0 key="no time left"
    if [ "$budget" -lt $least ]; then
        line "$name" "left out" 0 "$key"
        return
    fi
    timeout -k $kill_after $budget "${@/#BUDGET/$((budget - 2))}" >"$out/$name.log" 2>&1 </dev/null &
    child=$!
    wait $child
    status=$? taken=$((SECONDS - began))
    key="$(tr '\r' '\n' <"$out/$name.log" | grep -v '^[[:space:]]*$' | tail -n 1 | tr '|' '/')"
    words="failed ($status)"
    if [ $status = 0 ]; then
        words=ok
    elif [ $status = 124 ] || { [ $status = 137 ] && [ $taken -ge $budget ]; }; then
        words="out of time"
    else
        failed=1
    fi
    line "$name" "$words" $taken "${key:0:400}"
}

line() {
    printf '| %s | %s | %s | %s |\n' "$@" | tee -a "$out/summary.md"
}

fail() {
    echo "gpu.sh: $1" >&2
    exit 2
}

import_each='
import importlib, sys
missing = []
for name in sys.argv[1:]:
    try:
        print(name, getattr(importlib.import_module(name), "__version__", ""))
    except Exception as error:
        missing.append(name)
        print(name, "CANNOT BE IMPORTED:", " ".join(str(error).split())[:200])
print("cannot be imported: " + " ".join(missing) if missing else "all can be imported")
sys.exit(bool(missing))
'

main "$@"
