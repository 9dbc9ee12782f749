"""Several processes (ranks) that train one policy, each on its share of every batch.

Gradients are averaged by one all-reduce; every rank takes the same step, bit for bit. Rank r of R has the rows
r, r + R, ... of a batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store

from pixelrl.runtime.errors import LostRankError, PixelrlError

Result = TypeVar("Result")
MESSAGE_BYTES = 400
"""Length of a text that ranks send to each other."""


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """This process's place among the ranks; by default it is the only one, and nothing here communicates.

    All ranks must call the methods in the same order. Each method may raise a `LostRankError`.

    Attributes:
        rank: which of the ranks this process is.
        world_size: how many ranks there are, R.
        local_world_size: how many of them run on this machine.
        group: the process group to communicate through.
        store: a key-value store that all ranks see, as long as the process that started them lives.
    """

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    group: dist.ProcessGroup | None = None
    store: Store | None = None

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and prints for all."""
        return self.rank == 0

    def all_reduce_mean(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over the ranks, in place and with the same bits everywhere."""
        if self.world_size > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            self._wait(lambda: dist.all_reduce(flat, group=self.group, async_op=True))
            parts = torch.split(flat / self.world_size, [tensor.numel() for tensor in tensors])  # gloo has no mean
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def mean_metrics(self, metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the means of scalars over the ranks: with equal shares, those over the whole batch."""
        if self.world_size == 1 or not metrics:
            return dict(metrics)
        values = torch.stack([value.float() for value in metrics.values()])
        self.all_reduce_mean([values])
        return dict(zip(metrics, values.unbind(), strict=True))

    def all_gather(self, tensor: Tensor, dim: int) -> Tensor:
        """Return the rows of all ranks in their order in the whole batch; `dim` counts the rows."""
        if self.world_size == 1:
            return tensor
        local = tensor.contiguous()
        shares = [torch.empty_like(local) for _ in range(self.world_size)]
        self._wait(lambda: dist.all_gather(shares, local, group=self.group, async_op=True))
        dim %= tensor.dim()
        return torch.stack(shares, dim + 1).flatten(dim, dim + 1)

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set on any rank."""
        if self.world_size == 1:
            return flag
        value = torch.tensor([float(flag)])
        self.all_reduce_mean([value])
        return bool(value)

    def all_gather_text(self, text: str) -> list[str]:
        """Return each rank's text, cut at some length."""
        if self.world_size == 1:
            return [text]
        padded = bytearray(text.encode()[:MESSAGE_BYTES].ljust(MESSAGE_BYTES))
        gathered = self.all_gather(torch.frombuffer(padded, dtype=torch.uint8).unsqueeze(0), 0)
        return [bytes(row.tolist()).decode(errors="ignore").rstrip() for row in gathered]

    def run_on_all_ranks(self, work: Callable[[], Result]) -> Result:
        """Run a function that may fail on some ranks only: then all ranks end, and the first that failed raises.

        The function must not communicate.
        """
        failure, result = None, None
        try:
            result = work()
        except Exception as error:
            failure = error
        failed = [rank for rank, text in enumerate(self.all_gather_text("" if failure is None else "failed")) if text]
        if not failed:
            return result  # type: ignore[return-value]
        if failure is None or failed[0] != self.rank:
            raise SystemExit(1)
        raise failure

    def check_same_state(self, state: str) -> None:
        """Raise a `PixelrlError`, on the main rank, unless all ranks describe their state alike; the others exit."""
        states = self.all_gather_text(state)
        for rank, other in enumerate(states):
            if other != states[0] and not self.is_main:
                raise SystemExit(1)
            if other != states[0]:
                raise PixelrlError(f"rank {rank} is at {other}, rank 0 at {states[0]}; expected the same everywhere")

    def elect_reporter(self) -> bool:
        """Return whether this rank is the first to call this after a rank was lost: it reports for the others."""
        try:
            return self.store is None or self.store.add("pixelrl/lost", 1) == 1
        except RuntimeError:  # the store is lost too: two reports are better than none
            return True

    def abort(self) -> None:
        """Let go of what other ranks, which may be gone, would have to answer: NCCL would wait for them at exit."""
        if self.group is not None and dist.get_backend(self.group) != dist.Backend.GLOO:
            self.group.abort()

    def _wait(self, start: Callable[[], dist.Work | None]) -> None:
        """Start a collective operation and wait for it (on CUDA: make the stream wait)."""
        try:
            work = start()
            assert work is not None
            work.wait()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].split("] ", 1)[-1].split(". ")[0]  # advice follows
            noticed = f"as rank {self.rank} of {self.world_size} noticed"
            raise LostRankError(f"another rank is gone, {noticed}: {reason}") from error


SINGLE_PROCESS = Distributed()
"""Training in one process."""
