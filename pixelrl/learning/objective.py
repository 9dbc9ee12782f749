"""An objective: a weighted sum of terms, the parameters that it moves, and their optimiser."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pixelrl.learning.batch import Metrics
from pixelrl.learning.context import UpdateContext
from pixelrl.learning.span import span
from pixelrl.learning.term import Term
from pixelrl.learning.weights import AtMost, Multiplier
from pixelrl.runtime.errors import PixelrlError

Gradients = tuple[Tensor | None, ...]
"""One gradient a tensor of `Objective.moved`; None for a multiplier whose term was not asked for."""


class SelfTuned(nn.Module):
    """A module that tunes a number of its own by what a gradient looks like, and not along a gradient.

    Attributes:
        amount: that number, between 0 and 1.
        probe: zeros, added to what the gradient is looked at of; they stay zeros.
        rate, betas: Adam's, of `amount`.
    """

    amount: nn.Parameter
    probe: nn.Parameter
    rate: float
    betas: tuple[float, float]

    def slope(self, gradient: Tensor) -> Tensor:
        """Return what stands for the gradient of `amount`, a scalar, given that of `probe`, times any factor."""
        raise NotImplementedError


def checked(name: str, result: Any) -> tuple[Tensor, Metrics]:
    """Return what a term returned, if it is a scalar and what to log.

    Raises:
        PixelrlError: it is not.
    """
    if isinstance(result, tuple) and len(result) == 2:
        value, extra = result
        if isinstance(value, Tensor) and value.ndim == 0 and isinstance(extra, dict):
            return value, extra
    parts = result if isinstance(result, tuple) else (result,)
    came = ", ".join(str(list(each.shape)) if isinstance(each, Tensor) else type(each).__name__ for each in parts)
    raise PixelrlError(f"{name}: a term returns a scalar tensor and a dict of tensors to log, and this one ({came})")


class Objective:
    """A weighted sum of terms, the parameters that it moves, and the optimiser that moves them.

    Args:
        name: prefix of its metrics.
        terms: every term that may be asked for.
        network: whose parameters the gradient is taken for, but for those that are frozen; nothing else ever changes.
        lr: Adam's learning rate.
        device: of the learned multipliers.
        weight_decay: AdamW's, of matrices and filters, but not of biases, gains and last layers.

    Attributes:
        multipliers: the learned weights of terms, by the terms' names.
        tuned: the modules of the network that tune themselves.
        moved: the parameters, the multipliers' logarithms and the probes of `tuned`: what gradients are taken for.
        optimised: what moves along them, which has an `amount` in the place of each probe.
        optimiser: Adam; the multipliers are groups of their own, so that a step that fp16 skips moves none of them.
    """

    def __init__(
        self,
        name: str,
        terms: Iterable[Term],
        network: nn.Module | None,
        lr: float,
        device: torch.device,
        weight_decay: float = 0.0,
    ) -> None:
        self.name, self.lr = name, lr
        modules = () if network is None else network.modules()
        self.tuned = [module for module in modules if isinstance(module, SelfTuned)]
        apart = {id(parameter) for module in self.tuned for parameter in module.parameters()}
        parameters = () if network is None else network.named_parameters()
        named = [(name, each) for name, each in parameters if each.requires_grad and id(each) not in apart]
        decayed = [parameter for name, parameter in named if weight_decay and may_decay(name, parameter)]
        kept = [parameter for name, parameter in named if not weight_decay or not may_decay(name, parameter)]
        self.parameters = [*decayed, *kept]
        rules = {term_name(term): term.weight for term in terms if isinstance(term.weight, AtMost)}
        self.multipliers = {key: Multiplier(rule).to(device) for key, rule in rules.items()}
        learned = [*self.parameters, *(multiplier.log for multiplier in self.multipliers.values())]
        self.moved = [*learned, *(module.probe for module in self.tuned)]
        self.optimised = [*learned, *(module.amount for module in self.tuned)]
        parts = [(part, lr, decay) for part, decay in ((decayed, weight_decay), (kept, 0.0))]
        self._followers = len(parts)
        parts += [([each.log], each.rule.rate, 0.0) for each in self.multipliers.values()]
        # rates are tensors, so that a step that was captured as a CUDA graph can have another one
        groups = [
            {"params": params, "lr": torch.tensor(rate, device=device), "weight_decay": decay}
            for params, rate, decay in parts
        ]
        groups += [
            {"params": [each.amount], "lr": torch.tensor(each.rate, device=device), "betas": each.betas}
            for each in self.tuned
        ]
        for group in groups:
            group.setdefault("weight_decay", 0.0)
        kind = torch.optim.AdamW if weight_decay else torch.optim.Adam
        self.optimiser = kind(groups, fused=True)

    def loss(self, terms: Sequence[Term], context: UpdateContext) -> "Loss":
        """Evaluate terms on a batch; those of weight 0 are as if they were absent: they cost and draw nothing."""
        parts: dict[str, Tensor] = {}
        metrics: Metrics = {}
        dual = torch.zeros((), device=context.batch.action.device)
        for term in terms:
            if term.weight == 0:
                continue
            key = term_name(term)
            name = f"{self.name}/{key}"
            with span(name):
                value, extra = checked(name, term(context))
            if isinstance(term.weight, AtMost):
                multiplier = self.multipliers[key]
                dual = dual + multiplier.ascend(value)
                metrics[f"{name}/weight"] = multiplier.value
                parts[name] = multiplier.value * value
            else:
                parts[name] = term.weight * value
            metrics[name] = value.detach()
            metrics |= {f"{name}/{label}": item.detach() for label, item in extra.items()}
        total = sum(parts.values(), torch.zeros_like(dual))
        metrics[f"{self.name}/loss"] = total.detach()
        for number, module in enumerate(self.tuned):
            metrics[f"{self.name}/mixing/{number}"] = module.amount.detach().clone()
        return Loss(objective=self, total=total, dual=dual, parts=parts, metrics=metrics)

    def set_learning_rate(self, factor: float) -> None:
        """Set the learning rate of the next step to `factor` times `lr`."""
        for group in self.optimiser.param_groups[: self._followers]:
            group["lr"].fill_(self.lr * factor)

    def step(self, gradients: Gradients, scaler: torch.amp.GradScaler) -> None:
        """Move along gradients.

        Fused Adam on a CPU takes each tensor for a row of numbers, and gradients of convolutions come with channels
        last: they are laid out as their weights are, or they would move other weights than their own.
        """
        with span(f"optimise {self.name}"):
            for tensor, gradient in zip(self.moved, gradients, strict=True):
                if gradient is not None and gradient.stride() != tensor.stride():
                    gradient = torch.empty_like(tensor).copy_(gradient)
                tensor.grad = gradient
            for module in self.tuned:
                if (found := module.probe.grad) is not None:
                    module.amount.grad = scaler.scale(module.slope(found))
                module.probe.grad = None
            scaler.step(self.optimiser)
            with torch.no_grad():
                for module in self.tuned:
                    module.amount.clamp_(0, 1)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """An objective on one batch.

    Attributes:
        objective: whose it is.
        total: the weighted sum of its terms, a scalar; multipliers count as numbers in it.
        dual: the loss of the multipliers, in which terms count as numbers.
        parts: what each term adds to `total`, by the name that it logs under.
        metrics: what is worth logging.
    """

    objective: Objective
    total: Tensor
    dual: Tensor
    parts: dict[str, Tensor]
    metrics: Metrics

    def gradients(self, scale: Tensor) -> Gradients:
        """Return `scale` times the gradient of each tensor that the objective moves, and touch nothing else."""
        loss, moved = (self.total + self.dual) * scale, self.objective.moved
        with span(f"backward {self.objective.name}"):
            found = torch.autograd.grad(loss, moved, retain_graph=True, allow_unused=True)
        last = len(self.objective.parameters)
        zeros = zip(moved[:last], found[:last], strict=True)
        return (*(torch.zeros_like(old) if new is None else new for old, new in zeros), *found[last:])


def term_name(term: Term) -> str:
    """Return the name that a term logs under, say `cql`."""
    return type(term).__name__.lower()


def may_decay(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether weight decay may pull a parameter to zero: a matrix or filters, in no last layer."""
    *path, kind = name.split(".")
    return parameter.dim() > 1 and kind not in ("bias", "gain") and "last" not in path
