"""The products that most of an update consists of, x W + b, by the fastest kernel at hand.

In float32, torch gives matrix products on a CPU to MKL, which leaves AVX-512 unused on processors that are not Intel's,
and convolutions to oneDNN, which does not. Products can go to oneDNN too: of two machines with AMD's processors, that
halved their time on one, and on the other MKL was a little ahead. `Networks.use_onednn` chooses.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEW = 16
"""Up to so many inputs, or below so many outputs, oneDNN's kernels, which take 16 numbers at a time, win nothing."""


class Linear(nn.Linear):
    """A linear layer for rows, `[R, in] -> [R, out]`.

    Attributes:
        onednn: whether oneDNN is to take it where it can.
    """

    onednn: bool = True

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        if self.onednn and through_onednn(x, self.in_features, self.out_features):
            result: Tensor = OneDNN.apply(x, self.weight, self.bias)
            return result
        return nn.functional.linear(x, self.weight, self.bias)


def ensemble_linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, onednn: bool = True) -> Tensor:
    """Return x_e W_e + b_e for each of E members, `[E, R, out]`.

    Args:
        x: `[E, R, in]`, or `[1, R, in]`: the same rows for all.
        weight: `[E, in, out]`.
        bias: `[E, 1, out]`, or None.
        onednn: whether oneDNN is to take them where it can.
    """
    members, inputs, outputs = weight.shape
    if onednn and through_onednn(x, inputs, outputs):
        result: Tensor = OneDNNs.apply(x, weight, bias)
        return result
    x = x.expand(members, -1, -1)
    if x.device.type == "cpu" and outputs == 1 and bias is not None:  # a batched product of vectors is slow there
        return (x * weight.mT).sum(-1, keepdim=True) + bias
    return torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)


def through_onednn(x: Tensor, inputs: int, outputs: int) -> bool:
    """Tell whether oneDNN can take the product and is likely to be the faster one."""
    return (
        inputs > FEW <= outputs
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # torch's compiler uses it; a build may lack it
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # an export shall hold standard operators
    )


class OneDNN(torch.autograd.Function):
    """A layer's product, and its gradients, which are products as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return x W^T + b of `[R, in]`, `[out, in]` and `[out]`."""
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of those inputs that want one."""
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            product(slope, weight.t()) if for_x else None,
            product(slope.t(), x.t()) if for_weight else None,
            slope.sum(0) if for_bias else None,
        )


class OneDNNs(torch.autograd.Function):
    """The products of an ensemble."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x_e W_e + b_e; shapes as in `ensemble_linear`."""
        ctx.save_for_backward(x, weight)
        rows = x.unbind() if len(x) == len(weight) else x.unbind() * len(weight)
        offsets = (None,) * len(weight) if bias is None else bias.squeeze(1).unbind()
        return torch.stack(list(map(product, rows, weight.mT.unbind(), offsets)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of those inputs that want one."""
        x, weight = ctx.saved_tensors
        shared = len(x) < len(weight)
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            members = list(map(product, slope.unbind(), weight.unbind()))
            for_x = sum(members[1:], members[0]).unsqueeze(0) if shared else torch.stack(members)
        if ctx.needs_input_grad[1]:
            columns = x.mT.unbind() * (len(weight) if shared else 1)
            for_weight = torch.stack(list(map(product, columns, slope.mT.unbind())))
        if ctx.needs_input_grad[2]:
            for_bias = slope.sum(1, keepdim=True)
        return for_x, for_weight, for_bias


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b of matrices, by oneDNN."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result
