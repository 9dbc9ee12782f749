#!/usr/bin/env bash
# Train with one rank a GPU of this machine; RANKS=4: with so many ranks, on the CPU too.
#
#   one_node.sh cog_dr3 --task my.hdf5 --prior 'old/*.hdf5' --out runs/first
#
# The arguments are those of `pixelrl train`; --batch-size counts the rows of all ranks together.
set -euo pipefail

exec python -m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node "${RANKS:-gpu}" \
    -m pixelrl.launch.cli train "$@"
