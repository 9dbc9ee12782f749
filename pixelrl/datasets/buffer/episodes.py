"""Which recorded steps are learned from, and what follows each: the one place where that is decided, and told.

A demo may hold several episodes. An episode may have been recorded beyond its true end, and its last step may have no
frame after it; a step is left out only for these two reasons, because SARSA needs the action that came next, or
because its episode is held out to be measured on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pixelrl.datasets.buffer.corrupted import corrupted_rewards
from pixelrl.datasets.buffer.sources import Ends, Source
from pixelrl.datasets.buffer.transition_table import TransitionTable
from pixelrl.datasets.rewards import reaches_goal, steps_to_stop
from pixelrl.runtime.seeding import derive

AFTER_END, NO_NEXT = "after the end of their episode", "time-outs without a frame after them"
NO_ACTION = "time-outs without an action after them, which SARSA needs"
NO_CHUNK = "too close to the end of their episode for a chunk of actions"
HELD_OUT = "in episodes that are held out"


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """What is sampled of a table, and by which rewards; all `[T]`.

    Attributes:
        sampled: bool, the steps that are learned from.
        left_out: reason -> bool, the others.
        held_out: bool, the steps that would be learned from if their episodes were not held out.
        reward: float32, by the rules of the sources, of single steps.
        folded: float32, the rewards of n steps.
        discount: float32, gamma to the number of these steps (fewer before an end), or 0 at a true end.
        after: int64, the frame after them; where none was recorded, the last one stands: goals are absorbing.
        following: int64, the step that was taken there, or the last one of the episode.
        first: int64, the first frame of the episode.
        final: int64, the last recorded step of the episode.
        episode: int64, counting over all demos.
        return_to_go: float32, the discounted rewards to the end of the recording.
    """

    sampled: Tensor
    left_out: dict[str, Tensor]
    held_out: Tensor
    reward: Tensor
    folded: Tensor
    discount: Tensor
    after: Tensor
    following: Tensor
    first: Tensor
    final: Tensor
    episode: Tensor
    return_to_go: Tensor


def select_transitions(
    table: TransitionTable,
    sources: Sequence[Source],
    *,
    gamma: float,
    n_step: int,
    ends: Ends,
    sarsa: bool = False,
    chunk: int = 1,
    seed: int = 0,
) -> Transitions:
    """Decide which steps are learned from, and work out what follows each.

    Args:
        table: all recorded steps.
        sources: by whose rules they are rewarded and end.
        gamma: discount per step.
        n_step: rewards summed before bootstrapping.
        ends: what ends an episode, where a source does not say it.
        sarsa: leave out steps in whose next state no action was recorded.
        chunk: h; leave out steps from which on fewer than h were recorded in their episode; with `sarsa`, from s' on.
        seed: of the episodes that are held out, and of corruption.
    """
    scale = torch.tensor([source.reward_scale for source in sources])[table.source]
    shift = torch.tensor([source.reward_shift for source in sources])[table.source]
    reward = corrupted_rewards(table, sources, seed) * scale + shift
    paid = _paid(table, sources) & (scale != 0)
    end = _true_ends(table, paid, [source.ends or ends for source in sources])
    cut = table.last | table.next_missing
    episode = cut.cumsum(0) - cut.long()
    no_next = table.next_missing & ~end & ~paid
    last = cut.clone()
    last[:-1] |= no_next[1:] & ~cut[:-1]  # nothing is summed across a step that is left out
    goes_on = torch.tensor([(source.ends or ends) == "masks" for source in sources])[table.source]
    late = ~torch.from_numpy(before_end(end & ~goes_on, episode))
    folded, discount, steps = fold(reward, end, last, gamma=gamma, n_step=n_step)
    final = torch.arange(len(table)) + steps - 1
    starts = np.searchsorted(episode.numpy(), episode.numpy())
    ahead = torch.from_numpy(steps_to_stop(last.numpy())) + 1
    following = final + 1 - cut[final].long()
    no_action = (cut[final] | (ahead[following] < chunk)) & (discount > 0) & ~no_next & sarsa
    no_chunk = (ahead < chunk) & ~no_next & ~late & ~no_action
    usable = ~no_next & ~late & ~no_action & ~no_chunk
    held_out = usable & _held_out(episode, table, sources, seed)
    left_out = {NO_NEXT: no_next & ~late, AFTER_END: late, NO_ACTION: no_action & ~late}
    left_out |= {NO_CHUNK: no_chunk, HELD_OUT: held_out}
    return Transitions(
        sampled=usable & ~held_out,
        left_out=left_out,
        held_out=held_out,
        reward=reward,
        folded=folded,
        discount=discount,
        after=table.frame[final] + 1 - table.next_missing[final].long(),
        following=following,
        first=table.frame[torch.from_numpy(starts)],
        final=cut.nonzero().squeeze(1)[episode],
        episode=episode,
        return_to_go=return_to_go(reward, end, last, gamma=gamma),
    )


def fold(reward: Tensor, end: Tensor, last: Tensor, *, gamma: float, n_step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fold the next n steps of every transition into (reward, discount, steps), all `[T]`.

    A window of m <= n steps stops with the first step that ends the episode (discount 0) or is the last of its demo
    (discount gamma^m: a time-out bootstraps from the last frame). So each real reward is counted once.
    `reward` float `[T]`, `end` and `last` bool `[T]`; returns float32, float32 and int64.
    """
    steps = torch.zeros(len(reward), dtype=torch.int64)
    total = torch.zeros(len(reward), dtype=torch.float64)
    here = torch.arange(len(reward))
    running = torch.ones(len(reward), dtype=torch.bool)
    ended = torch.zeros(len(reward), dtype=torch.bool)
    for k in range(n_step):
        if not running.any():
            break
        ahead = (here + k).clamp(max=len(reward) - 1)
        total += gamma**k * reward.double()[ahead] * running
        steps += running
        ended |= running & end[ahead]
        running = running & ~(end | last)[ahead]
    discount = (gamma ** steps.double()) * ~ended
    return total.float(), discount.float(), steps


def before_end(end: Tensor, demo: Tensor) -> NDArray[np.bool_]:
    """Return bool `[T]`: the transitions of each demo up to and with its first true end; `demo` is sorted."""
    ends_before = (end.cumsum(0) - end.long()).numpy()
    at_start = ends_before[np.searchsorted(demo.numpy(), demo.numpy())]
    live: NDArray[np.bool_] = ends_before == at_start
    return live


def return_to_go(reward: Tensor, end: Tensor, last: Tensor, *, gamma: float) -> Tensor:
    """Return the discounted rewards from each step to the first true end, or to the last step of its demo.

    Nothing is bootstrapped: what might have been paid after a time-out is missing. Arguments as `fold`'s;
    float32 `[T]`. Windows double in length: after k rounds each holds up to 2^k rewards.
    """
    ahead = steps_to_stop((end | last).numpy())  # steps after this one that count
    total: NDArray[np.float64] = reward.double().numpy()
    width = 1
    while (ahead >= width).any():
        further = np.flatnonzero(ahead >= width)
        longer = total.copy()
        longer[further] += gamma**width * total[further + width]
        total, width = longer, 2 * width
    return torch.from_numpy(total.astype(np.float32))


def _held_out(episode: Tensor, table: TransitionTable, sources: Sequence[Source], seed: int) -> Tensor:
    """Return the steps of the episodes that sources hold out, `[T]`: at least one episode where a part is.

    What one source holds out of a file, all do that read it, whatever they call its observations.
    """
    held = torch.zeros_like(episode, dtype=torch.bool)
    for number, rule in enumerate(sources):
        if rule.held_out:
            mine = np.unique(episode[table.source == number].numpy())
            order = np.random.default_rng(derive(seed, "held out", rule.name)).permutation(mine)
            held |= torch.isin(episode, torch.from_numpy(order[: max(1, round(rule.held_out * len(mine)))]))
    return torch.isin(table.row, table.row[held])


def _paid(table: TransitionTable, sources: Sequence[Source]) -> Tensor:
    """Return the steps that reach the goal, `[T]`, as far as rewards tell: above 0; among costs, the highest.

    A scale below 0 turns costs that were recorded as positive numbers, and the rewards are those after it.
    """
    paid = torch.zeros_like(table.done)
    for number, source in enumerate(sources):
        mine = table.source == number
        rewards = table.reward[mine].numpy() * math.copysign(1, source.reward_scale)
        paid[mine] = torch.from_numpy(reaches_goal(rewards, free=rewards.max(initial=-np.inf)))
    return paid


def _true_ends(table: TransitionTable, paid: Tensor, ends: Sequence[Ends]) -> Tensor:
    """Return the steps beyond which there is nothing to bootstrap, `[T]`; see `Ends`."""
    done = table.done
    rules = {"never": torch.zeros_like(done), "goal": done & paid, "dones": done, "masks": done}
    end = torch.zeros_like(table.done)
    for source, rule in enumerate(ends):
        end |= rules[rule] & (table.source == source)
    return end
