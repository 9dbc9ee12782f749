"""Training on several ranks, each a real process; and the scripts that start them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import load_file

from pixelrl.launch.recipes import quick_cog
from pixelrl.launch.torchrun import joined, own_device
from pixelrl.launch.training_data import load_training_data
from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed
from pixelrl.runtime.errors import PixelrlError
from pixelrl.training import checkpoint
from pixelrl.training.metrics_log import rows_of
from tests import ROOT, Pixelrl
from tests.dots import write_dots

SCRIPTS = ROOT / "launch/scripts"
SMALL = ("--batch-size=16", "--critic-hidden", "16", "8", "--actor-hidden", "16", "--final-lr=1", "--log-every=1")
ENDLESS = "--steps=1000000"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Return a training's options, without how many steps."""
    data = [f"--{part}={write_dots(tmp_path / f'{part}.hdf5', part, 4, size=32)}" for part in ("task", "prior")]
    return ["quick_cog_dr3", *data, *SMALL]


def environment(**more: object) -> dict[str, str]:
    """Return ours, with this Python first on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in more.items()}}


def wait_until(done: Callable[[], bool]) -> None:
    """Wait for what other processes do."""
    patience = time.monotonic() + 60
    while not done():
        assert time.monotonic() < patience
        time.sleep(0.02)


def rows(run: Path) -> int:
    return len((run / "metrics.csv").read_text().splitlines()) - 1 if (run / "metrics.csv").exists() else 0


def step(run: Path) -> int:
    return int(checkpoint.read(run / "last.safetensors")[1]["step"])


def test_run_survives_signals_lost_ranks_and_other_numbers_of_ranks(
    words: list[str], tmp_path: Path, pixelrl: Pixelrl
) -> None:
    """Two ranks until SIGTERM, one rank, two ranks until one is killed, one rank: as if it had never stopped."""
    run = tmp_path / "run"
    command = [*words, f"--out={run}"]

    script = subprocess.Popen(
        [SCRIPTS / "one_node.sh", *command, ENDLESS], env=environment(RANKS=2), stdout=subprocess.PIPE, text=True
    )
    wait_until(lambda: rows(run) >= 3)
    script.terminate()
    said = script.communicate(timeout=60)[0]
    first = step(run)
    assert script.returncode != 0 and first >= 3
    assert " ".join(said.split()).count(f"stopped and kept at step {first}; --resume goes on from there") == 1

    assert pixelrl("train", *command, f"--steps={first + 2}", "--resume")[0] == 0

    with ranks([*command, ENDLESS, "--resume"]) as (one, other):
        wait_until(lambda: rows(run) >= first + 4)
        other.kill()
        error = one.communicate(timeout=60)[1]
    kept = step(run)
    assert one.returncode == 1 and kept >= first + 4
    assert "pixelrl: another rank is gone, as rank 0 of 2 noticed: " in error
    assert f"the last good checkpoint is {run}/last.safetensors, step {kept}" in error and "Traceback" not in error

    assert pixelrl("train", *command, f"--steps={kept + 2}", "--resume")[0] == 0
    assert pixelrl("train", *words, f"--out={tmp_path / 'whole'}", f"--steps={kept + 2}")[0] == 0
    assert [int(row["step"]) for row in rows_of(run / "metrics.csv")] == [*range(1, kept + 3)]
    whole, parts = (load_file(folder / "last.safetensors") for folder in (tmp_path / "whole", run))
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        np.testing.assert_allclose(parts[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


@contextmanager
def ranks(command: list[str]) -> Iterator["list[subprocess.Popen[str]]"]:
    """Start two ranks as torchrun does, but without it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "pixelrl.launch.cli", "train", *command],
            env=environment(RANK=rank, LOCAL_RANK=rank, **shared),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_process_is_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with joined("cpu") as found:
        assert found == (SINGLE_PROCESS, "cpu")


def test_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_device("cpu", 1, 8) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [own_device(name, 1, 2) for name in ("auto", "cuda")] == ["cuda:1", "cuda:1"]
    with pytest.raises(PixelrlError, match="3 ranks and 2 GPUs on this machine"):
        own_device("auto", 1, 3)
    with pytest.raises(PixelrlError, match="--device cuda:1: each of the ranks takes a GPU of its own"):
        own_device("cuda:1", 1, 2)


def test_batch_that_cannot_be_shared_equally_is_refused() -> None:
    with pytest.raises(PixelrlError, match="--batch-size 128 cannot be shared equally by 3 ranks; give a multiple"):
        load_training_data(
            torch.device("cpu"), quick_cog(), [], distributed=Distributed(world_size=3), console=Console()
        )


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which SLURM's commands only note what they are asked."""
    for name, body in {
        "scontrol": 'case $1 in show) printf "node3\nnode4\n" ;; *) echo "$@" >>asked ;; esac',
        "srun": 'printf "%s\n" "$@" >words; [[ $STAY ]] || exit 7; trap "exit 143" TERM; touch there; sleep 60 & wait',
    }.items():
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/usr/bin/env bash\n{body}\n")
        script.chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[3-4]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "17", "STAY": ""}
    return {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **slurm}


def test_slurm_starts_ranks_on_all_nodes_and_tells_when_they_fail(slurm: dict[str, str], tmp_path: Path) -> None:
    batch = [SCRIPTS / "slurm.sbatch", "cog_dr3", "--out", "a run"]
    assert subprocess.run(batch, env=slurm, cwd=tmp_path).returncode == 7
    words = (tmp_path / "words").read_text().splitlines()
    assert words[words.index("train") :] == ["train", "cog_dr3", "--out", "a run", "--resume"]
    assert words[words.index("--rdzv-endpoint") + 1] == "node3:29500"
    assert words[words.index("--nnodes") + 1] == "2"
    assert not (tmp_path / "asked").exists(), "a failure is not tried again"


def test_slurm_queues_a_job_again_whose_time_is_up(slurm: dict[str, str], tmp_path: Path) -> None:
    batch = subprocess.Popen([SCRIPTS / "slurm.sbatch", "cog"], env=slurm | {"STAY": "yes"}, cwd=tmp_path)
    wait_until((tmp_path / "there").exists)
    batch.send_signal(signal.SIGUSR1)
    assert batch.wait(20) == 143
    assert (tmp_path / "asked").read_text() == "requeue 17\n"


@pytest.mark.parametrize("script", sorted(SCRIPTS.iterdir()), ids=lambda path: path.name)
def test_scripts_are_sound_and_may_be_run(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


def test_several_nodes_script_names_the_variables_it_needs() -> None:
    found = subprocess.run([SCRIPTS / "several_nodes.sh", "cog"], env=environment(), capture_output=True, text=True)
    assert found.returncode != 0 and "NODES: how many machines" in found.stderr


@pytest.mark.parametrize(("name", "current"), [("cuda:1", [torch.device("cuda:1")]), ("cuda", []), ("cpu", [])])
def test_gpu_that_is_named_becomes_the_current_one(
    monkeypatch: pytest.MonkeyPatch, name: str, current: list[torch.device]
) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    with joined(name) as (_, device):
        assert device == name and chosen == current
