#!/usr/bin/env bash
# All that wants a CUDA GPU, in one go: tests, ledger, ways of taking steps, seeds side by side, a profile. Some eight
# minutes on one GPU (an estimate: no GPU has run it yet). PYTHON names the interpreter; QUICK=1 tries it in small.
#   benchmarks/gpu.sh OUT TASK.hdf5 PRIOR.hdf5
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# = 3 ] || { sed -n '2,4p' "$0"; exit 2; }
out=$(mkdir -p "$1" && cd "$1" && pwd) || exit
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
steps=2000 quick=()
[ -z "${QUICK:-}" ] || { steps=20; quick=(--quick); }

pixelrl() { "$python" -m pixelrl.launch.cli "$@"; }
train() { pixelrl train quick_cog_dr3 --task "$task" --prior "$prior" --steps "$steps" --device auto "$@"; }
timed() { # name, command: its seconds, and how it ended
    local start=$SECONDS name=$1 && shift
    "$@" >"$out/$name.txt" 2>&1
    echo "$name: exit $?, $((SECONDS - start)) s; $(tail -n 1 "$out/$name.txt" | cut -c1-150)"
}

task=$(realpath "$2") prior=$(realpath "$3") work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
files=(tests/test_{capture,learner,mixture,plan,precision}.py)
timed pytest "$python" -m pytest "${files[@]}" -m cuda --numprocesses 4 -p no:cacheprovider --durations 5
for case in cog impala quick; do
    timed "bench_$case" pixelrl bench learner "$case" "${quick[@]}" --rounds 5 --turn-seconds 0.5 \
        --skip tiled --out "$out/bench_learner_$case.json"
done
for capture in none tape graph compile; do
    timed "train_$capture" train --capture "$capture" --out "$work/$capture"
done
timed seeds train --seeds 0 1 2 3 --out "$work/seeds"
timed profile train --profile --out "$work/profile"
