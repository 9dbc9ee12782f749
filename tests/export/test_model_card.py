"""The model card says what a stranger must know, and claims nothing that was not measured."""

from typing import Any

import pytest

from pixelrl.export.model_card import model_card

CONTRACT: dict[str, Any] = {
    "pixelrl": "0.1.0",
    "env_args": {"env_name": "Lift", "env_kwargs": {"robots": "Panda"}},
    "control_freq": 20.0,
    "chunk": 3,
    "task": "lift the cube",
    "evaluation": {"env": "Lift", "episodes": 50, "successes": 40, "success_interval_95": [0.67, 0.89]},
    "inputs": {"front_image": {"dtype": "uint8", "shape": ["B", 48, 64, 3]}},
    "outputs": {"action": {"dims": [{"name": "dx", "low": -0.05, "high": 0.05, "unit": "m"}]}},
    "latency": {"p50_ms": 0.2, "p99_ms": 0.5},
    "parity": {"data": {"normalised": 1e-7}, "random": {"normalised": 3e-7}},
    "provenance": {"commit": "abc", "selected_by": "q_peak", "fingerprint": "12 transitions"},
}


def card(**changes: Any) -> str:
    return model_card(
        CONTRACT | changes, recipe="Terms: td", steps=9, data={"task": [("a.hdf5", "ab12"), ("b.hdf5", None)]}
    )


def test_card_tells_evaluation_actions_data_and_limits() -> None:
    text = card()
    for line in (
        "In Lift: 40 of 50 episodes succeed (95 % interval 67% to 89%), in simulation, not on a robot.",
        "Task: lift the cube. Robot: Panda.",
        "It acts 20 times a second, 3 successive actions each time.",
        "| dx | -0.05 | 0.05 | m |",
        "| `front_image` | uint8 | 48 x 64 x 3 |",
        "Terms: td; step 9, chosen by: q_peak.",
        "- task: `a.hdf5`, SHA-256 at the export ab12",
        "- task: `b.hdf5`, gone since",
        "the largest difference is 3.0e-07 of half a range",
        "An action takes 0.2 ms (median), 0.5 ms (99 of 100)",
    ):
        assert line in text
    assert text.startswith("---\nlibrary_name: pixelrl\n")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"evaluation": None}, "This checkpoint was not evaluated before the export."),
        ({"control_freq": None, "chunk": 1}, "It acts at a rate that its data do not tell."),
        ({"task": None, "env_args": {}}, "Task: not stated. Robot: not stated in the data."),
    ],
)
def test_card_claims_nothing_that_is_unknown(changes: dict[str, Any], line: str) -> None:
    assert line in card(**changes)


def test_contract_of_an_older_format_has_a_card() -> None:
    older = {key: value for key, value in CONTRACT.items() if key not in ("latency", "evaluation", "chunk", "task")}
    assert "not evaluated" in model_card(older, recipe="", steps=1, data={})
