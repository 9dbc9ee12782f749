"""The artefact as a program of torch's own, `policy.pt2` (torch.export), for robots that run torch.

Nothing here reads a file from elsewhere: `torch.export.load` falls back to Python's pickle, which runs whatever a file
tells it to. The only file that is loaded is the one that was just written, to prove it.
"""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pixelrl.export.runtime import ExportedPolicy
from pixelrl.runtime.interfaces import Sensors

OUTPUTS = ("action", "normalised")


def write_program(path: Path, artefact: nn.Module, example: Sequence[torch.Tensor]) -> None:
    """Write an artefact as a program of any batch size, without what the policy does not need; see `Artefact`.

    `example` are its inputs, in their order.
    """
    needed = _without_learning(artefact)
    shapes = (tuple({0: torch.export.Dim("batch")} for _ in example),)
    program = torch.export.export(needed, tuple(example), dynamic_shapes=shapes)
    graphs = [each.graph for each in program.graph_module.modules() if isinstance(each, torch.fx.GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes):
        node.meta.pop("stack_trace", None)  # names files of the machine that exports
    torch.export.save(program, path)


def _without_learning(artefact: nn.Module) -> nn.Module:
    """Return a copy of an artefact without networks that serve learning alone."""
    artefact = copy.deepcopy(artefact)
    networks: Any = artefact.networks
    networks.target, networks.target_actor, networks.value = nn.Identity(), None, None
    if networks.acting.kind != "best":
        for each in (networks, networks.average or networks):
            each.critic.head = nn.Identity()
    return artefact


class ProgramPolicy(ExportedPolicy):
    """An exported policy that computes by a program instead of onnxruntime; checks, histories and units are the same.

    The program must be one that this process has written.
    """

    def __init__(self, policy: ExportedPolicy, path: Path) -> None:
        vars(self).update(vars(policy))
        self._session = _Session(path, tuple(self.inputs))


class _Session:
    """A loaded program, asked as onnxruntime is."""

    def __init__(self, path: Path, inputs: tuple[str, ...]) -> None:
        self._inputs = inputs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self._module = torch.export.load(path).module()

    @torch.inference_mode()
    def run(self, outputs: Sequence[str], sensors: Sensors) -> list[NDArray[np.float32]]:
        found = self._module(*(torch.from_numpy(np.ascontiguousarray(sensors[key])) for key in self._inputs))
        return [found[OUTPUTS.index(name)].numpy() for name in outputs]
