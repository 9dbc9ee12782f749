"""Serve an exported policy in one process, and drive a MuJoCo arm from another, behind a guard.

    python examples/serve_and_drive_mujoco.py demo/export
    python examples/serve_and_drive_mujoco.py demo/export --fault kill      # the server dies in the middle
    python examples/serve_and_drive_mujoco.py demo/export --fault pause     # it hangs for a second
    python examples/serve_and_drive_mujoco.py demo/export --fault late      # or: lossy, silent, cut, of the network

On a robot the second half is all there is: sensors in, `guard(policy, sensors)`, action out.
"""

import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from tyro.conf import Positional

from pixelrl.runtime.actions import from_units
from pixelrl.serving.client import Guard, Limits, RemotePolicy
from pixelrl.simulation.envs.make import make_env, with_cameras

POSITION = "robot0_eef_pos"
"""Where the hand is [m], the first three numbers of the action's own space."""


@dataclass(frozen=True, kw_only=True)
class Drive:
    """Drive an arm in MuJoCo by a served policy."""

    artefact: Positional[Path]
    """directory of an exported policy whose action is a step of the hand"""
    episodes: int = 3
    """how many"""
    seed: int = 0
    """of the first episode"""
    fault: Literal["none", "kill", "pause", "late", "lossy", "silent", "cut"] = "none"
    """what happens in the last episode: to the server (kill, pause), or on the way to it: late, messages come after
    0.6 s; lossy, a third of them wait for a packet to be sent again; silent, nothing arrives any more; cut, once"""
    at: int = 6
    """step at which it happens"""
    deviations: float = 4.0
    """half the width of the workspace, in standard deviations of the recorded positions"""

    def __call__(self) -> list[dict[str, Any]]:
        """Print a line an episode, and return what they say."""
        results = []
        with server(self.artefact) as (process, port), Link(port) as link, closing(RemotePolicy(link.url)) as policy:
            contract = policy.contract
            pictures = {k: tuple(v["shape"][1:3]) for k, v in contract["inputs"].items() if v["dtype"] == "uint8"}
            with closing(make_env(with_cameras(contract["env_args"], pictures, {}))) as env:
                for episode in range(self.episodes):
                    last = episode == self.episodes - 1
                    fault = (lambda: harm(process, link, self.fault)) if last else lambda: None
                    results.append(self.drive(env, policy, self.seed + episode, fault))
                    print(json.dumps({"episode": episode, "fault": self.fault if last else "none", **results[-1]}))
        return results

    def drive(self, env: Any, policy: RemotePolicy, seed: int, fault: Any) -> dict[str, Any]:
        """Play one episode, and measure how the arm moved."""
        place = policy.contract["inputs"][POSITION]
        dims = policy.contract["outputs"]["action"]["dims"]
        others = [np.inf] * (len(dims) - 3)
        mean, spread = np.array(place["mean"]), self.deviations * np.array(place["std"])
        low, high = [*(mean - spread), *np.negative(others)], [*(mean + spread), *others]
        box = {"box_low": tuple(low), "box_high": tuple(high)}
        limits = Limits.of_contract(policy.contract, **box, ramp=0.0, stop_after=5, period=0.0)  # as fast as it can
        guard, (sensors, _) = Guard(limits), env.reset(seed=seed)
        policy.reset()
        modes, beyond, speed, moved, bad, over, steps = Counter[str](), 0.0, 0.0, 0, 0, False, 0
        last = {"is_success": False, "success": False}
        while not over:
            if steps == self.at:
                fault()
            where = [*sensors[POSITION], *[0.0] * len(others)]
            action, report = guard(policy, sensors, measured=where)
            modes[report.mode] += 1
            bad = bad + 1 if steps >= self.at and report.mode != "act" and bad == steps - self.at else bad
            moved = moved + 1 if report.mode != "act" and np.abs(action[:3]).max() > 1e-6 else moved
            units = from_units(action, np.array(limits.low), np.array(limits.high))
            sensors, _, ended, stopped, last = env.step(np.asarray(units, np.float32))
            over, steps = bool(ended or stopped), steps + 1
            outside = np.maximum(low[:3] - sensors[POSITION], sensors[POSITION] - high[:3])
            beyond, speed = max(beyond, float(outside.max())), max(speed, joint_speed(env))
        return {
            "success": bool(last["success"]),
            "steps": steps,
            "modes": dict(modes),
            "stopped": guard.state.stopped,
            "ticks_until_rest": moved,
            "bad_ticks_after_fault": bad,
            "metres_beyond_box": round(beyond, 4),
            "largest_joint_speed": round(speed, 3),
        }


def joint_speed(env: Any) -> float:
    """Return the fastest joint of the first arm [rad/s]."""
    robosuite = env.unwrapped.robosuite
    indexes = robosuite.robots[0]._ref_joint_vel_indexes
    return float(np.abs(robosuite.sim.data.qvel[indexes]).max())


def harm(process: "subprocess.Popen[str]", link: "Link", fault: str) -> None:
    """Do something to the server or to the network."""
    if fault == "kill":
        process.kill()
        process.wait()
    elif fault == "pause":
        process.send_signal(signal.SIGSTOP)
        threading.Timer(1.0, process.send_signal, (signal.SIGCONT,)).start()
    elif fault == "late":
        link.delay = 0.6
    elif fault == "lossy":
        link.loss = 0.3
    elif fault == "silent":
        link.open.clear()
    elif fault == "cut":
        link.cut()


class Link:
    """A TCP connection to a server that delays, stalls and cuts; `with` ends it.

    Bytes are never lost: to TCP a lost packet is one that comes late, with all behind it.

    Attributes:
        url: where clients connect.
        delay: of every piece that passes, each way [s].
        loss: chance that a piece waits for `RESEND` seconds more.
        open: cleared: nothing passes, and nobody is told.
    """

    RESEND = 0.3

    def __init__(self, port: int) -> None:
        self.delay, self.loss, self.open = 0.0, 0.0, threading.Event()
        self.open.set()
        self._server, self._random, self._ends = port, random.Random(0), list[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Link":
        """Return the link."""
        return self

    def __exit__(self, *error: object) -> None:
        """End it."""
        self._listener.close()
        self.open.set()
        self.cut()

    def cut(self) -> None:
        """Reset every connection; new ones may be made."""
        ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the end of the listener, or no server
            while True:
                client, _ = self._listener.accept()
                self._ends.append(client)
                server = socket.create_connection(("127.0.0.1", self._server))
                self._ends.append(server)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(2**20):
                time.sleep(self.delay + (self.RESEND if self._random.random() < self.loss else 0))
                self.open.wait()
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def server(artefact: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Run `pixelrl serve` on a free port, and yield both."""
    command = [sys.executable, "-m", "pixelrl.launch.cli", "serve", str(artefact), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        first = process.stderr.readline()
        if not first.startswith("{"):
            sys.exit(first + process.stderr.read())
        threading.Thread(target=process.stderr.read, daemon=True).start()  # or its log would fill the pipe
        yield process, json.loads(first)["port"]
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    os.environ.setdefault("MUJOCO_GL", "egl")
    tyro.cli(Drive)()
