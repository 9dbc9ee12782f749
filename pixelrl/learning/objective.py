"""An objective: a weighted sum of terms, what it moves, and what moves it."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import Term, UpdateContext
from pixelrl.learning.flat import Flat
from pixelrl.learning.weights import AtMost, Multiplier
from pixelrl.runtime.errors import UnrecordableError
from pixelrl.runtime.profiling import span

Gradients = tuple[Tensor | None, ...]


class Objective:
    """A weighted sum of terms, the parameters that it moves, and the optimiser that moves them.

    Args:
        name: prefix of its metrics.
        terms: every term that may be asked for, each with the name that it logs under.
        parameters: what the gradient is taken for; nothing else ever changes. They become views of one tensor.
        lr: Adam's learning rate.
        device: of the learned multipliers.

    Attributes:
        flat: the parameters, and their gradient, as one tensor.
        optimiser: Adam of that tensor.
        multipliers: the learned weights of terms, by name, and `dual_optimiser`, theirs, if there are any.
    """

    def __init__(
        self, name: str, terms: Iterable[Term], parameters: Iterable[nn.Parameter], lr: float, device: torch.device
    ) -> None:
        self.name, self.lr = name, lr
        self.flat = Flat(parameters)
        self.optimiser = adam([self.flat.whole], lr, device)
        rules = {term_name(term): term.weight for term in terms if isinstance(term.weight, AtMost)}
        learned = {key: Multiplier(rule).to(device) for key, rule in rules.items()}
        rates = {key: torch.tensor(each.rule.rate, device=device) for key, each in learned.items()}
        groups = [{"params": [each.log], "lr": rates[key]} for key, each in learned.items()]
        self.multipliers = learned
        self.dual_optimiser = adam(groups, 0.0, device) if groups else None

    def evaluate(self, terms: tuple[Term, ...], update: UpdateContext) -> "Loss":
        """Evaluate terms on a batch."""
        parts: dict[str, Tensor] = {}
        dual: Tensor | None = None
        metrics: Metrics = {}
        for term in terms:
            if term.weight == 0:
                continue  # as if it were absent: it neither costs anything nor draws noise
            key = term_name(term)
            try:
                with span(key):
                    value, extra = term(update)
            except UnrecordableError as error:
                raise UnrecordableError(f"{self.name}/{key}: {error}") from error
            if isinstance(term.weight, AtMost):
                multiplier = self.multipliers[key]
                ascent = multiplier.ascend(value)
                dual = ascent if dual is None else dual + ascent
                metrics[f"{self.name}/{key}/weight"] = multiplier.value
                parts[f"{self.name}/{key}"] = multiplier.value * value
            else:
                parts[f"{self.name}/{key}"] = term.weight * value
            metrics[f"{self.name}/{key}"] = value.detach()
            metrics |= {f"{self.name}/{key}/{label}": item.detach() for label, item in extra.items()}
        total = sum(parts.values(), torch.zeros((), device=update.batch.action.device))
        metrics[f"{self.name}/loss"] = total.detach()
        return Loss(objective=self, total=total, parts=parts, dual=dual, metrics=metrics)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """An objective on one batch.

    Attributes:
        objective: whose it is.
        total: the weighted sum of its terms, a scalar.
        parts: what each term adds to it, by the name that it logs under.
        dual: the loss of the multipliers; None if no term has one.
        metrics: what is worth logging.
    """

    objective: Objective
    total: Tensor
    parts: dict[str, Tensor]
    dual: Tensor | None
    metrics: Metrics

    def gradients(self, scaler: torch.amp.GradScaler) -> tuple[Gradients, Gradients]:
        """Return the (scaled) gradient of each of the objective's parameters, and of each multiplier's logarithm."""
        found = gradients(scaler.scale(self.total), self.objective.flat.parameters)
        logs = [each.log for each in self.objective.multipliers.values()]
        return found, gradients(self.dual, logs) if self.dual is not None else (None,) * len(logs)


def term_name(term: Term) -> str:
    """Return the name that a term logs under, say `cql`."""
    return type(term).__name__.lower()


def adam(parameters: Iterable[object], lr: float, device: torch.device) -> torch.optim.Adam:
    """Return Adam in its fused form; its learning rate is a tensor, so that a captured step can have another one."""
    return torch.optim.Adam(parameters, lr=torch.tensor(lr, device=device), fused=True)  # type: ignore[arg-type]


def gradients(loss: Tensor, parameters: list[nn.Parameter]) -> Gradients:
    """Return d loss / d parameter of each parameter, None where there is none, and touch nothing else."""
    return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
