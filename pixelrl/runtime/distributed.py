"""Several processes that train one policy, each on its share of every batch: `Ranks`, this one's place among them.

What DistributedDataParallel does takes one sum here, since an objective's parameters lie in one tensor (`Flat`): every
rank adds up the same gradient, bit for bit, and takes the same step. Rank r has the rows r, r + R, ... of a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store

from pixelrl.learning.batch import Metrics
from pixelrl.runtime.errors import LostRankError, PixelrlError

Result = TypeVar("Result")
TEXT = 400
"""Bytes of a message between ranks."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place among those that train together; by default it is alone, and nothing here does anything.

    All ranks call the methods in the same order. Each of them may raise a `LostRankError`.

    Attributes:
        rank: which of them this is.
        count: how many there are, R.
        here: how many of them are on this machine.
        group: through which they talk.
        store: what they all see, as long as whoever started them lives.
    """

    rank: int = 0
    count: int = 1
    here: int = 1
    group: dist.ProcessGroup | None = None
    store: Store | None = None

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks for all."""
        return self.rank == 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over the ranks, in place and with the same bits everywhere."""
        if self.count > 1:
            self._wait(lambda: [dist.all_reduce(each, group=self.group, async_op=True) for each in tensors])
            torch._foreach_div_(list(tensors), self.count)  # gloo knows sums, but no means

    def mean(self, metrics: Metrics) -> Metrics:
        """Return the means of scalars over the ranks: where shares are equal, those over the whole batch."""
        if self.count == 1 or not metrics:
            return metrics
        values = torch.stack([value.float() for value in metrics.values()])
        self.average([values])
        return dict(zip(metrics, values.unbind(), strict=True))

    def gather(self, tensor: Tensor, dim: int) -> Tensor:
        """Return the rows of all ranks in their order in the whole batch; `dim` counts ours."""
        if self.count == 1:
            return tensor
        ours = tensor.contiguous()
        shares = [torch.empty_like(ours) for _ in range(self.count)]
        self._wait(lambda: [dist.all_gather(shares, ours, group=self.group, async_op=True)])
        dim %= tensor.dim()
        return torch.stack(shares, dim + 1).flatten(dim, dim + 1)

    def any(self, flag: bool) -> bool:
        """Tell whether a flag is up on any rank."""
        if self.count == 1:
            return flag
        raised = torch.tensor([float(flag)])
        self.average([raised])
        return bool(raised)

    def tell(self, text: str) -> list[str]:
        """Return what each rank tells the others, up to some length."""
        if self.count == 1:
            return [text]
        letters = torch.frombuffer(bytearray(text.encode()[:TEXT].ljust(TEXT)), dtype=torch.uint8)
        told = self.gather(letters.unsqueeze(0), 0)
        return [bytes(row.tolist()).decode(errors="ignore").rstrip() for row in told]

    def together(self, work: Callable[[], Result]) -> Result:
        """Do work that may fail on some ranks only; then all end, and the first that failed says why.

        The work must not talk to other ranks.
        """
        failure, result = None, None
        try:
            result = work()
        except Exception as error:
            failure = error
        failed = [rank for rank, said in enumerate(self.tell("" if failure is None else "failed")) if said]
        if not failed:
            return result  # type: ignore[return-value]
        if failure is None or failed[0] != self.rank:
            raise SystemExit(1)
        raise failure

    def check_alike(self, state: str) -> None:
        """Raise a `PixelrlError` unless all ranks are in the same state, as this describes it; the first says so."""
        states = self.tell(state)
        for rank, other in enumerate(states):
            if other != states[0] and not self.first:
                raise SystemExit(1)
            if other != states[0]:
                raise PixelrlError(f"rank {rank} is at {other}, rank 0 at {states[0]}; expected the same everywhere")

    def check_rows_apart(self, networks: nn.Module) -> None:
        """Raise a `PixelrlError` if what networks make of a row depends on the other rows, which lie on all ranks."""
        if self.count > 1 and any(isinstance(module, nn.BatchNorm2d) for module in networks.modules()):
            raise PixelrlError(
                f"--encoder: this one's BatchNorm mixes the pictures of a batch, and {self.count} ranks see a part of "
                "it each; use one without (resnet18 has GroupNorm), or one rank"
            )

    def speaks(self) -> bool:
        """Elect, among the ranks that noticed that one is lost, the first to ask."""
        try:
            return self.store is None or self.store.add("pixelrl/lost", 1) == 1
        except RuntimeError:  # it is lost too: better two that speak than none
            return True

    def _wait(self, begin: Callable[[], Sequence[dist.Work]]) -> None:
        """Begin to exchange tensors, and wait until they are there (on CUDA: let what follows on the stream wait)."""
        try:
            for work in begin():
                work.wait()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].split("] ", 1)[-1].split(". ")[0]  # advice follows
            noticed = f"as rank {self.rank} of {self.count} noticed"
            raise LostRankError(f"another rank is gone, {noticed}: {reason}") from error


ALONE = Ranks()
