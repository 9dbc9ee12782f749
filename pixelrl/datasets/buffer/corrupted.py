"""What sources that are corrupted on purpose give in place of what was recorded."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from pixelrl.datasets.buffer.sources import Source
from pixelrl.datasets.buffer.transition_table import TransitionTable
from pixelrl.datasets.corruption import LIMIT, Corruption, freeze, others, parse_corruptions, rectangles, shake


def corruptions(
    table: TransitionTable, sources: Sequence[Source], seed: int, *kinds: str
) -> Iterator[tuple[Corruption, Tensor, Tensor, np.random.Generator]]:
    """Yield each corruption of some kinds, its source's steps `[t]`, which of them it strikes, and its generator."""
    for number, source in enumerate(sources):
        for corruption in parse_corruptions(source.corrupt) or ():
            if corruption.kind in kinds:
                steps = (table.source == number).nonzero().squeeze(1)
                yield corruption, steps, *corruption.chosen(seed, source.name, len(steps))


def corrupted_rewards(table: TransitionTable, sources: Sequence[Source], seed: int) -> Tensor:
    """Return the rewards `[T]`, unscaled."""
    reward = table.reward
    for _, steps, chosen, random in corruptions(table, sources, seed, "reward"):
        largest = float(reward[steps].abs().max())
        drawn = torch.from_numpy(random.uniform(-largest, largest, len(steps)).astype(np.float32))
        reward = reward.index_put((steps,), torch.where(chosen, drawn, reward[steps]))
    return reward


def corrupted_actions(table: TransitionTable, sources: Sequence[Source], seed: int) -> Tensor:
    """Return the actions `[T, A]`."""
    action = table.action
    for _, steps, chosen, random in corruptions(table, sources, seed, "action"):
        mine = action[steps]
        moved = (mine + shake(table.action.std(0), chosen, random)).clamp(-LIMIT, LIMIT)
        action = action.index_put((steps,), torch.where(chosen.unsqueeze(1), moved, mine))
    return action


def corrupted_views(
    table: TransitionTable, first: Tensor, after: Tensor, held_out: Tensor, sources: Sequence[Source], seed: int
) -> dict[str, Tensor]:
    """Return what stands for what is seen in s and s', nothing where that is what was recorded.

    Args:
        table: what was recorded.
        first: the first frame of each step's episode, `[T]`.
        after: the frame of s', `[T]`.
        held_out: bool, the steps of episodes that are held out, whose pictures stand for no others, `[T]`.
        sources: with their rules.
        seed: of the corruption.

    Returns:
        `shown` and `shown_after`, the frames whose pictures are seen, `[T]`; `shaken` and `shaken_after`, what is added
        to readings, `[T, P]`; `first_of`, the first frame of the episode of each frame, `[F]`; `occluded`, if any
        are, rectangles of the pictures of s, `[T, 4]`, in shares of a picture.
    """
    views: dict[str, Tensor] = {}
    seen = ("observation", "dynamics", "swap", "freeze", "occlude")
    for corruption, steps, chosen, random in corruptions(table, sources, seed, *seen):
        if not views:
            first_of = torch.zeros(len(table.proprio), dtype=torch.int64)
            first_of[table.frame], first_of[after] = first, first
            nothing = torch.zeros(len(table), table.proprio.shape[1])
            views = {"shown": table.frame.clone(), "shown_after": after.clone(), "first_of": first_of}
            views |= {"shaken": nothing, "shaken_after": nothing.clone()}
        place = "_after" if corruption.kind == "dynamics" else ""
        shown = views["shown" + place]
        if corruption.kind == "occlude":
            views.setdefault("occluded", torch.zeros(len(table), 4))[steps] = rectangles(chosen, random)
        elif corruption.kind == "freeze":
            shown[steps] = freeze(shown[steps], first[steps], chosen, random)
        else:
            shown[steps] = others(shown[steps], chosen, ~held_out[steps], random)
        if corruption.kind in ("observation", "dynamics"):
            views["shaken" + place][steps] = shake(table.proprio.std(0), chosen, random)
    return views
