#!/usr/bin/env bash
# What needs a CUDA GPU, part by part, an estimated two minutes each (no GPU has run it yet).
#   benchmarks/gpu.sh OUT TASK.hdf5 PRIOR.hdf5 [tests|cog|impala|quick|train|seeds|profile ...]   default: all parts
# PYTHON names the interpreter; QUICK=1 tries it in small. Logs and ledgers are written to OUT.
set -uo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")") || exit
[ $# -ge 3 ] || { sed -n '2,4p' "$here/gpu.sh"; exit 2; }
mkdir -p "$1" || exit
out=$(realpath "$1") || exit
task=$(realpath -e "$2") || exit
prior=$(realpath -e "$3") || exit
work=$(mktemp -d) || exit
cd "$here/.." || exit
shift 3
[ $# -gt 0 ] || set -- tests cog impala quick train seeds profile
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
steps=2000 quick=() failed=0
[ -z "${QUICK:-}" ] || { steps=20; quick=(--quick); }

train() {
    "$python" -m pixelrl.launch.cli train quick_cog_dr3 --task "$task" --prior "$prior" --steps "$steps" --device auto "$@"
}
timed() { # name, command: its seconds, how it ended, and its last line
    local start=$SECONDS name=$1
    shift
    "$@" >"$out/$name.txt" 2>&1
    local code=$?
    failed=$((failed || code))
    echo "$name: exit $code, $((SECONDS - start)) s; $(tail -n 1 "$out/$name.txt" | cut -c1-150)"
}

for part in "$@"; do
    case $part in
    tests)
        files=(tests/datasets/buffer tests/learning tests/training)
        timed tests "$python" -m pytest "${files[@]}" -m cuda --numprocesses 4 -p no:cacheprovider --durations 5
        ;;
    cog | impala | quick)
        timed "bench_$part" "$python" -m benchmarks.learner "$part" "${quick[@]}" --rounds 5 --turn-seconds 0.5 \
            --skip tiled --out "$out/bench_learner_$part.json"
        ;;
    train)
        for execution in eager graph compile; do
            timed "train_$execution" train --execution "$execution" --out "$work/$execution"
        done
        ;;
    seeds) timed seeds train --seeds 0 1 2 3 --out "$work/seeds" ;;
    profile) timed profile train --profile --out "$out/profile" ;;
    *)
        echo "$0: there is no part '$part', but: tests cog impala quick train seeds profile" >&2
        exit 2
        ;;
    esac
done
exit $failed
