"""The model card of an exported policy: README.md beside it, as hubs read it (YAML in front, Markdown below)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MODEL_CARD = "README.md"

File = tuple[str, str | None]
"""A file's name, and its SHA-256, None if it is gone."""

HEADER = """---
library_name: pixelrl
pipeline_tag: robotics
tags: [robotics, offline-reinforcement-learning, onnx]
---
"""


def model_card(contract: Mapping[str, Any], *, recipe: str, steps: int, data: Mapping[str, Sequence[File]]) -> str:
    """Return the card.

    Args:
        contract: what `policy.json` says.
        recipe: what the policy was trained by, in a line.
        steps: of its training.
        data: source -> its files.
    """
    parts = (
        _intent(contract),
        ("## Evaluation", *_evaluation(contract)),
        ("## What it sees", *_inputs(contract)),
        ("## What it does", *_actions(contract)),
        ("## Training", *_training(contract, recipe, steps, data)),
        ("## Limits", *_limits(contract)),
        ("## Use", *_use()),
    )
    return HEADER + "\n" + "\n\n".join("\n".join(part) for part in parts) + "\n"


def _intent(contract: Mapping[str, Any]) -> Iterator[str]:
    robot = (contract["env_args"].get("env_kwargs") or {}).get("robots")
    robot = ", ".join(map(str, robot)) if isinstance(robot, list) else robot
    name = contract["env_args"].get("env_name", "a robot")
    yield f"# A policy for {name}"
    yield ""
    yield f"Task: {contract.get('task') or 'not stated'}. Robot: {robot or 'not stated in the data'}."


def _evaluation(contract: Mapping[str, Any]) -> Iterator[str]:
    found = contract.get("evaluation")
    if not found:
        yield "This checkpoint was not evaluated before the export."
        return
    low, high = found["success_interval_95"]
    share = f"{found['successes']} of {found['episodes']} episodes succeed"
    yield f"In {found['env']}: {share} (95 % interval {low:.0%} to {high:.0%}), in simulation, not on a robot."


def _inputs(contract: Mapping[str, Any]) -> Iterator[str]:
    yield "| key | type | shape |"
    yield "|---|---|---|"
    for key, each in contract["inputs"].items():
        yield f"| `{key}` | {each['dtype']} | {' x '.join(map(str, each['shape'][1:]))} |"


def _actions(contract: Mapping[str, Any]) -> Iterator[str]:
    rate, chunk = contract.get("control_freq"), contract.get("chunk", 1)
    often = "at a rate that its data do not tell" if rate is None else f"{rate:g} times a second"
    several = f", {chunk} successive actions each time" if chunk > 1 else ""
    yield f"It acts {often}{several}."
    yield ""
    yield "| number | lowest | highest | unit |"
    yield "|---|---|---|---|"
    for dim in contract["outputs"]["action"]["dims"]:
        yield f"| {dim['name']} | {dim['low']:g} | {dim['high']:g} | {dim['unit']} |"


def _training(
    contract: Mapping[str, Any], recipe: str, steps: int, data: Mapping[str, Sequence[File]]
) -> Iterator[str]:
    provenance = contract.get("provenance", {})
    yield f"{recipe}; step {steps}, chosen by: {provenance.get('selected_by', 'last')}."
    for source, files in data.items():
        for name, sha256 in files:
            yield f"- {source}: `{name}`, {'gone since' if sha256 is None else f'SHA-256 at the export {sha256}'}"
    if provenance.get("fingerprint"):
        yield f"- fingerprint of what was learned from: {provenance['fingerprint']}"
    yield f"- pixelrl {contract['pixelrl']}, commit {provenance.get('commit') or 'unknown'}"


def _limits(contract: Mapping[str, Any]) -> Iterator[str]:
    latency, parity = contract.get("latency"), contract.get("parity")
    yield "- It was trained on recorded data alone; what they do not show, it has not learned."
    yield "- It has no notion of safety: put limits beside the arm (`pixelrl_client.Guard`)."
    if parity:
        largest = max(parity[source]["normalised"] for source in ("data", "random"))
        yield f"- It acts as its checkpoint does: the largest difference is {largest:.1e} of half a range."
    if latency:
        figures = f"{latency['p50_ms']:g} ms (median), {latency['p99_ms']:g} ms (99 of 100)"
        yield f"- An action takes {figures} on one thread of the machine that exported it."


def _use() -> Iterator[str]:
    yield "    from pixelrl.export.runtime import ExportedPolicy"
    yield ""
    yield '    policy = ExportedPolicy(".")'
    yield "    action = policy.act(sensors)  # NumPy in, the robot's units out; numpy and onnxruntime are enough"
    yield ""
    yield "Or `pixelrl serve .` and a client on the robot's computer."
