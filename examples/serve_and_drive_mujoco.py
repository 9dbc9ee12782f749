"""Serve an exported policy in one process, and drive a MuJoCo arm from another, behind a guard.

    python examples/serve_and_drive_mujoco.py demo/export
    python examples/serve_and_drive_mujoco.py demo/export --fault kill      # the server dies in the middle
    python examples/serve_and_drive_mujoco.py demo/export --fault pause     # it hangs for a second

On a robot the second half is all there is: sensors in, `guard(policy, sensors)`, action out.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
    fault: Literal["none", "kill", "pause"] = "none"
    """what happens to the server in the last episode"""
    at: int = 6
    """step at which it happens"""
    deviations: float = 4.0
    """half the width of the workspace, in standard deviations of the recorded positions"""

    def __call__(self) -> list[dict[str, Any]]:
        """Print a line an episode, and return what they say."""
        results = []
        with server(self.artefact) as (process, url), closing(RemotePolicy(url)) as policy:
            contract = policy.contract
            pictures = {k: tuple(v["shape"][1:3]) for k, v in contract["inputs"].items() if v["dtype"] == "uint8"}
            with closing(make_env(with_cameras(contract["env_args"], pictures, {}))) as env:
                for episode in range(self.episodes):
                    last = episode == self.episodes - 1
                    fault = (lambda: None) if not last or self.fault == "none" else lambda: harm(process, self.fault)
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
        limits = Limits.of_contract(policy.contract, box_low=tuple(low), box_high=tuple(high), ramp=0.0, stop_after=5)
        guard, (sensors, _) = Guard(limits), env.reset(seed=seed)
        policy.reset()
        modes, beyond, speed, moved, over, steps = Counter[str](), 0.0, 0.0, 0, False, 0
        last = {"is_success": False, "success": False}
        while not over:
            if steps == self.at:
                fault()
            where = [*sensors[POSITION], *[0.0] * len(others)]
            action, report = guard(policy, sensors, measured=where)
            modes[report.mode] += 1
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
            "metres_beyond_box": round(beyond, 4),
            "largest_joint_speed": round(speed, 3),
        }


def joint_speed(env: Any) -> float:
    """Return the fastest joint of the first arm [rad/s]."""
    robosuite = env.unwrapped.robosuite
    indexes = robosuite.robots[0]._ref_joint_vel_indexes
    return float(np.abs(robosuite.sim.data.qvel[indexes]).max())


def harm(process: "subprocess.Popen[str]", fault: str) -> None:
    """Kill the server, or let it hang for a second."""
    if fault == "kill":
        process.kill()
        process.wait()
    else:
        process.send_signal(signal.SIGSTOP)
        threading.Timer(1.0, process.send_signal, (signal.SIGCONT,)).start()


@contextmanager
def server(artefact: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run `pixelrl serve` on a free port."""
    command = [sys.executable, "-m", "pixelrl.launch.cli", "serve", str(artefact), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        first = process.stderr.readline()
        if not first.startswith("{"):
            sys.exit(first + process.stderr.read())
        threading.Thread(target=process.stderr.read, daemon=True).start()  # or its log would fill the pipe
        yield process, f"ws://127.0.0.1:{json.loads(first)['port']}"
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    os.environ.setdefault("MUJOCO_GL", "egl")
    tyro.cli(Drive)()
