"""A watch for values that explode: it observes every step, and waits for the device only when asked."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pixelrl.learning.context import UpdateContext
from pixelrl.runtime.distributed import SINGLE_PROCESS, Distributed
from pixelrl.runtime.errors import DivergenceError

FACTOR, LEAST, UNBOUNDED = 1e3, 1e4, 1e6
"""How many times what rewards allow is too much; below what nothing is; what is, where they allow anything."""


def largest_q(gamma: float, largest_reward: float) -> float:
    """Return the |Q| beyond which a run is stopped.

    Rewards of at most R in size allow |Q| <= R / (1 - gamma). A thousand times that is no estimate any more, however
    conservative; 10,000 is allowed always, and without discounting a million.
    """
    return UNBOUNDED if gamma >= 1 else max(LEAST, FACTOR * largest_reward / (1 - gamma))


class DivergenceMonitor:
    """Remember the first step that went wrong: which term, how large Q was, rows of which source.

    A step goes wrong when a term is not finite or, in some row, |Q(s, a)| or its target exceeds `limit` or the
    recorded action's log-density is not finite.

    Args:
        terms: all that may ever be evaluated, by the names that they log under.
        sources: of the transitions.
        device: where the notes are kept.

    Attributes:
        limit: the largest |Q| that is taken for a value.
    """

    def __init__(self, terms: Sequence[str], sources: Sequence[str], device: torch.device) -> None:
        self.terms, self.sources, self.limit = list(dict.fromkeys(terms)), list(sources), UNBOUNDED
        self._updates = torch.zeros((), device=device, dtype=torch.float64)  # counted here: a captured step has no int
        # updates at the first wrong one (0: none), largest |Q|, each term's part of the loss, wrong rows per source
        self._notes = torch.zeros(2 + len(self.terms) + len(self.sources), device=device, dtype=torch.float64)

    def observe(self, context: UpdateContext, parts: Mapping[str, Tensor]) -> Tensor:
        """Return what there is to record of a step, without waiting for the device.

        That is: whether it went wrong, the largest |Q|, the terms, wrong rows per source.

        Args:
            context: after its terms were evaluated; what none of them asked for is not computed for this.
            parts: term -> what it adds to its loss, a scalar.
        """
        with torch.no_grad():
            size = torch.zeros_like(context.batch.reward)
            if (q_data := UpdateContext.q_data.peek(context)) is not None:
                size = q_data.value.abs().amax(0)
            if (target := UpdateContext.td_target.peek(context)) is not None:
                size = torch.maximum(size, target.abs())
            wrong = ~(size <= self.limit)
            if (log_prob := UpdateContext.log_prob.peek(context)) is not None:
                wrong = wrong | ~log_prob.isfinite()
            rows = torch.zeros(len(self.sources), device=wrong.device)
            rows = rows.index_add(0, context.batch.source, wrong.float())
            zero = torch.zeros((), device=wrong.device)
            values = torch.stack([size.max(), *(parts.get(name, zero) for name in self.terms)])
            bad = wrong.any() | ~values[1:].isfinite().all()
            return torch.cat([bad.view(1), values, rows]).double()

    def record(self, observed: Tensor) -> None:
        """Count a step, and keep what was observed of it if it is the first that went wrong."""
        with torch.no_grad():
            self._updates += 1
            first = (observed[0] > 0) & (self._notes[0] == 0)
            self._notes.copy_(torch.where(first, torch.cat([self._updates.view(1), observed[1:]]), self._notes))

    def check(self, step: int, distributed: Distributed = SINGLE_PROCESS) -> None:
        """Raise on all ranks if a step has gone wrong on any; this waits for the device.

        Args:
            step: how many steps the run has done.
            distributed: the ranks that may have recorded something.
                Wrong rows are counted over those that recorded the same step.

        Raises:
            DivergenceError: names the first such step, the term and the source.
        """
        notes = distributed.all_gather(self._notes.unsqueeze(0), 0)
        notes = notes[notes[:, 0] > 0]
        if not len(notes):
            return
        notes = notes[notes[:, 0] == notes[:, 0].min()]
        terms = slice(2, 2 + len(self.terms))
        parts, counts = notes[:, terms].mean(0).tolist(), notes[:, terms.stop :].sum(0).tolist()
        at, size = notes[0, 0].item(), notes[:, 1].max().item()
        values = dict(zip(self.terms, parts, strict=True))
        rows = dict(zip(self.sources, counts, strict=True))
        lost = [name for name, value in values.items() if not math.isfinite(value)]
        worst = max(values, key=lambda name: abs(values[name]))
        too_large = f"|Q| is {size:.3g}, and beyond {self.limit:.3g} it means nothing; most of the loss is {worst}"
        what = f"{lost[0]} is {values[lost[0]]}" if lost else too_large
        where = " and ".join(f"{name} ({count:.0f})" for name, count in rows.items() if count)
        raise DivergenceError(
            f"step {step - int(self._updates) + int(at)}: {what}, in rows of {where or 'no one source'}; "
            "try a smaller learning rate, a `target_range`, or precision fp32"
        )
