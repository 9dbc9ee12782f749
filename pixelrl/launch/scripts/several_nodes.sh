#!/usr/bin/env bash
# Train with one rank a GPU of several machines. Start the same line on each of them:
#
#   NODES=2 HEAD=first-machine:29500 several_nodes.sh cog_dr3 --task my.hdf5 --prior 'old/*.hdf5' --out runs/first
#
# HEAD is one of the machines, with a free port. All must see the data, and --out, under the same path.
# RANKS=4: so many ranks a machine, on the CPU too. JOB=name: needed if one HEAD serves several jobs.
set -euo pipefail

exec python -m torch.distributed.run --nnodes "${NODES:?how many machines}" --nproc-per-node "${RANKS:-gpu}" \
    --rdzv-backend c10d --rdzv-endpoint "${HEAD:?one of them, as host:port}" --rdzv-id "${JOB:-pixelrl}" \
    -m pixelrl.launch.cli train "$@"
