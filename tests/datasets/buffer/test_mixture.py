"""The mixture: returns by hand, exact quotas, and batches that depend on nothing but seed and step."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from pixelrl.datasets.buffer.load_dataset import load_dataset
from pixelrl.datasets.buffer.mixture import Mixture
from pixelrl.datasets.buffer.sources import Ends, Source
from pixelrl.datasets.hdf5.writer import write_episodes
from pixelrl.learning.batch import Batch
from pixelrl.runtime.errors import DataError
from tests.dots import ACTION, CAMERA, ENV_ARGS, POSITION, dot_episodes, write_dots

Make = Callable[..., Mixture]
EPISODES = [*dot_episodes("prior", 40), *dot_episodes("task", 10)]
"""What the files of `make` hold."""
PLACES = [(episode, step) for episode in EPISODES for step in range(len(episode))]
"""Where each transition of its mixtures was recorded."""


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a factory of mixtures of a prior and a task file."""
    folder = tmp_path_factory.mktemp("dots")
    prior, task = write_dots(folder / "prior.h5", "prior", 40), write_dots(folder / "task.h5", "task", 10)

    def mixture(prior_share: float | None = None, task_share: float | None = None, **options: Any) -> Mixture:
        sources = [
            Source(name="prior", files=(prior,), share=prior_share, reward_scale=0.0),
            Source(name="task", files=(task,), share=task_share),
        ]
        return load_dataset(sources, **{"batch_size": 32, "seed": 0, "gamma": 0.9} | options)

    return mixture


def tensors(batch: Batch) -> list[torch.Tensor]:
    """Return everything in a batch."""
    both = [t for obs in (batch.obs, batch.next_obs) for t in (*obs.images.values(), obs.proprio)]
    rest = (batch.next_action, batch.return_to_go, batch.source)
    return [*both, batch.action, batch.reward, batch.discount, *rest]


def same(one: Batch, other: Batch) -> bool:
    """Tell whether two batches are equal to the bit."""
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


@pytest.mark.parametrize(
    ("ends", "prior", "task"),
    [
        ("never", [0.9, 0.9, 0.9], [0.9, 0.9, 0.9]),
        ("goal", [0.9, 0.9, 0.9], [0.9, 0.9, 0]),
        ("dones", [0.9, 0, 0], [0.9, 0, 0]),
    ],
)
def test_what_ends_an_episode(tmp_path: Path, ends: Ends, prior: list[float], task: list[float]) -> None:
    # Three steps: nothing; done without a reward, as where a file marks the end of a demo; the goal.
    episode = next(dot_episodes("task", 1))
    short = replace(
        episode,
        sensors={key: value[:4] for key, value in episode.sensors.items()},
        actions=episode.actions[:3],
        rewards=np.array([0, 0, 1], np.float32),
        dones=np.array([False, True, True]),
        states=None,
    )
    write_episodes(tmp_path / "a.h5", [short], env_args=ENV_ARGS, action_dims=ACTION)
    sources = [
        Source(name="prior", files=(tmp_path / "a.h5",), reward_scale=0, reward_shift=-1),
        Source(name="task", files=(tmp_path / "a.h5",), reward_scale=10, reward_shift=-1),
    ]
    mixture = load_dataset(sources, batch_size=200, seed=0, gamma=0.9, ends=ends)
    batch = mixture.batch(0)
    index = mixture._draw(0)
    beyond = {2, 5} if ends == "dones" else set()  # what follows a true end is never drawn
    assert set(index) == set(range(6)) - beyond
    assert len(mixture) == 6 - len(beyond)
    expected = torch.tensor([*prior, *task])[index]
    torch.testing.assert_close(batch.discount, expected)
    torch.testing.assert_close(batch.reward, torch.tensor([-1.0, -1, -1, -1, -1, 9])[index])


def test_a_batch_is_what_was_recorded(make: Make) -> None:
    mixture = make(0.5, 0.5, n_step=3, ends="goal")
    batch, index = mixture.batch(5), mixture._draw(5)
    for row, (episode, step) in enumerate(PLACES[i] for i in index):
        length = min(3, len(episode) - step)
        prior = episode.notes["part"] == "prior"
        for obs, instant in ((batch.obs, step), (batch.next_obs, step + length)):
            np.testing.assert_array_equal(obs.images[CAMERA][row].permute(1, 2, 0), episode.sensors[CAMERA][instant])
            np.testing.assert_array_equal(obs.proprio[row], episode.sensors[POSITION][instant])
        paid = 0 if prior else sum(0.9**k * episode.rewards[step + k] for k in range(length))
        assert batch.reward[row] == pytest.approx(paid)
        assert batch.discount[row] == pytest.approx(0 if paid else 0.9**length)
        assert batch.source[row] == int(not prior)
    assert (batch.reward > 0).any()


def test_a_batch_depends_on_seed_and_step_only(make: Make) -> None:
    mixture, again = make(0.3, 0.7), make(0.3, 0.7)
    for step in range(5):
        mixture.batch(step)
    with ThreadPoolExecutor(4) as threads:
        later = list(threads.map(again.batch, (9, 7, 8, 7)))
    assert all(same(mixture.batch(step), batch) for step, batch in zip((9, 7, 8, 7), later, strict=True))
    assert not same(mixture.batch(7), mixture.batch(8))
    assert not same(mixture.batch(7), make(0.3, 0.7, seed=1).batch(7))


def test_a_share_is_kept_in_every_batch(make: Make) -> None:
    mixture = make(0.75, 0.25)
    assert all(torch.bincount(mixture.batch(step).source).tolist() == [24, 8] for step in range(20))


@pytest.mark.parametrize("history", [1, 3])
@pytest.mark.parametrize("memory", ["ram", "cache", "file"])
def test_channels_lie_last_in_memory(make: Make, memory: str, history: int) -> None:
    batch = make(history=history, memory=memory).batch(0)
    for obs in (batch.obs, batch.next_obs):
        assert obs.images[CAMERA].shape == (32, 3 * history, 24, 24)
        assert obs.images[CAMERA].is_contiguous(memory_format=torch.channels_last)


def test_without_shares_all_transitions_are_alike(make: Make) -> None:
    mixture = make(batch_size=10_000)
    count = np.bincount(mixture._draw(3), minlength=len(mixture))
    expected = 10_000 / len(mixture)
    chi_squared = float(((count - expected) ** 2 / expected).sum())
    assert abs(chi_squared - len(mixture)) < 5 * (2 * len(mixture)) ** 0.5


def test_the_spec_is_read_from_the_files(make: Make) -> None:
    mixture = make()
    spec = mixture.spec
    assert (spec.images, spec.proprio, spec.action) == ({CAMERA: (3, 24, 24)}, {POSITION: 2}, ACTION)
    assert (spec.sources, mixture.env_args) == (("prior", "task"), ENV_ARGS)
    frames = np.concatenate([episode.sensors[POSITION] for episode in EPISODES])
    assert spec.proprio_mean == pytest.approx(frames.mean(axis=0), abs=1e-5)
    assert spec.proprio_std == pytest.approx(frames.std(axis=0), abs=1e-5)
    bare = make(proprio=())
    assert bare.spec.proprio_dim == 0
    assert bare.batch(0).obs.proprio.shape == (32, 0)


@pytest.mark.cuda
def test_pinned_batches_are_the_same(make: Make) -> None:
    pinned = make(device=torch.device("cuda"), memory="ram").batch(3)
    assert pinned.obs.images[CAMERA].is_pinned()
    assert same(pinned, make().batch(3))


@pytest.mark.parametrize("history", [2, 3])
def test_a_history_is_stacked_oldest_first_and_stops_at_the_start_of_a_demo(make: Make, history: int) -> None:
    mixture, single = make(0.5, 0.5, n_step=2, history=history), make(0.5, 0.5, n_step=2)
    batch, index = mixture.batch(4), mixture._draw(4)
    assert mixture.spec.history == history and mixture.spec.images == single.spec.images
    assert mixture.spec.stacks == {CAMERA: (3 * history, 24, 24)}
    early = 0
    for row, (episode, step) in enumerate(PLACES[i] for i in index):
        later = step + min(2, len(episode) - step)
        for obs, instant in ((batch.obs, step), (batch.next_obs, later)):
            frames = [episode.sensors[CAMERA][max(0, instant - back)] for back in range(history - 1, -1, -1)]
            seen = obs.images[CAMERA][row].permute(1, 2, 0)
            np.testing.assert_array_equal(seen, np.concatenate(frames, axis=-1))
        early += step < history - 1
    assert early
    bare = single.batch(4)
    torch.testing.assert_close(batch.next_obs.images[CAMERA][:, -3:], bare.next_obs.images[CAMERA])
    torch.testing.assert_close(batch.next_obs.proprio, bare.next_obs.proprio)


def test_what_was_done_next_and_what_was_paid_from_here_on(make: Make) -> None:
    mixture = make(0.5, 0.5, n_step=3, ends="goal")
    batch, index = mixture.batch(5), mixture._draw(5)
    for row, (episode, step) in enumerate(PLACES[i] for i in index):
        after = min(step + 3, len(episode) - 1)  # at the end of a demo its last action stands for the one not taken
        np.testing.assert_array_equal(batch.next_action[row], episode.actions[after])
        paid = 0 if episode.notes["part"] == "prior" else 0.9 ** (len(episode) - 1 - step) * episode.rewards[-1]
        assert batch.return_to_go[row] == pytest.approx(paid)
    assert (batch.return_to_go > 0).any()


def test_ranks_share_a_batch_row_by_row(make: Make) -> None:
    whole = make(0.3, 0.7).batch(6)
    shares = [make(0.3, 0.7, rank=rank, ranks=4).batch(6) for rank in range(4)]
    for rank, share in enumerate(shares):
        for ours, everything in zip(tensors(share), tensors(whole), strict=True):
            assert torch.equal(ours, everything[rank::4])
    with pytest.raises(DataError, match=r"rank 4 of 4 ranks, batch size 32"):
        make(rank=4, ranks=4)
    with pytest.raises(DataError, match=r"expected a multiple of the ranks"):
        make(ranks=5)


def test_each_source_may_have_its_own_ends_masks_and_fractions(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_dots(tmp_path / f"{name}.h5", "task", 6)
        with h5py.File(tmp_path / f"{name}.h5", "r+") as file:
            file["mask/train"] = np.array([b"demo_1", b"demo_4", b"demo_5"])
    sources = [
        Source(name="task", files=(tmp_path / "?.h5",), mask="train", ends="never", share=0.5),
        Source(name="prior", files=(tmp_path / "a.h5",), reward_scale=0, reward_shift=2, share=0.3),
        Source(name="few", files=(tmp_path / "?.h5",), fraction=0.25, pick="first", ends="never", share=0.2),
    ]
    mixture = load_dataset(sources, batch_size=100, seed=0, gamma=0.9, ends="dones")
    lengths = [len(episode) for episode in dot_episodes("task", 6)]
    trained = [lengths[1], lengths[4], lengths[5]]
    expected = [*trained, *trained, *lengths, *lengths[:3]]
    assert np.bincount(mixture.table.demo).tolist() == expected
    assert len(mixture.table.proprio) == 2 * sum(lengths) + 12 - sum(lengths[i] + 1 for i in (0, 2, 3)), (
        "the frames of a demo lie once, however many sources use it"
    )
    batch = mixture.batch(0)
    assert torch.bincount(batch.source).tolist() == [50, 30, 20]
    done = mixture.table.done[mixture._draw(0)]
    assert done[batch.source == 1].any() and done[batch.source == 0].any()
    ended = (batch.source == 1) & done
    torch.testing.assert_close(batch.discount, torch.where(ended, 0.0, 0.9))
    torch.testing.assert_close(batch.reward[batch.source == 1], torch.full((30,), 2.0))
    for row, transition in enumerate(mixture._draw(0)):
        frame = int(mixture.table.frame[transition])
        assert torch.equal(batch.obs.images[CAMERA][row], mixture.table.images[CAMERA].take(torch.tensor([frame]))[0])


def test_a_glob_that_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source 'task': no file matches .*\*\.h5"):
        load_dataset([Source(name="task", files=(tmp_path / "*.h5",))], batch_size=1, seed=0, gamma=0.9)


@pytest.mark.cuda
def test_batches_put_together_on_the_gpu_are_the_same(make: Make) -> None:
    cuda = torch.device("cuda")
    batch = make(0.5, 0.5, history=2, device=cuda, memory="gpu").batch(3)
    assert all(tensor.is_cuda for tensor in tensors(batch))
    assert same(batch.to(torch.device("cpu")), make(0.5, 0.5, history=2).batch(3))


def test_held_out_episodes_are_never_sampled_and_can_be_probed(tmp_path: Path) -> None:
    files = {part: write_dots(tmp_path / f"{part}.h5", part, 20) for part in ("prior", "task")}  # type: ignore[arg-type]
    sources = [Source(name=name, files=(file,), held_out=0.1) for name, file in files.items()]
    mixture = load_dataset(sources, batch_size=32, seed=0, gamma=0.9)
    chosen, table = mixture.transitions, mixture.table
    for number in range(2):  # two of twenty episodes each, whole
        held = chosen.episode[chosen.held_out & (table.source == number)].unique()
        learned = chosen.episode[chosen.sampled & (table.source == number)].unique()
        assert len(held) == 2 and len(learned) == 18 and not set(held.tolist()) & set(learned.tolist())
    places = mixture.probe(10, seed=3, held_out=True)
    assert len(places) == 10 == len({*places.tolist()}) and bool(chosen.held_out[places].all())
    assert mixture.rows(places).source.sum() == 5  # half of each source
    assert (places == mixture.probe(10, seed=3, held_out=True)).all()
    assert bool(chosen.sampled[mixture.probe(10, seed=3)].all())
    other = load_dataset(sources, batch_size=32, seed=1, gamma=0.9)
    assert not torch.equal(other.transitions.held_out, chosen.held_out)
    assert "in episodes that are held out" in " ".join(mixture.ledger.lines())
    everything = load_dataset([replace(each, held_out=0.0) for each in sources], batch_size=32, seed=0, gamma=0.9)
    assert len(everything) == len(mixture) + int(chosen.held_out.sum())
    with pytest.raises(DataError, match="no episode is held out; train with --held-out"):
        everything.probe(10, seed=3, held_out=True)


def test_what_one_source_holds_out_of_a_file_all_sources_do(tmp_path: Path) -> None:
    file = write_dots(tmp_path / "task.h5", "task", 20)
    link = tmp_path / "link.h5"
    link.symlink_to(file)
    task = Source(name="task", files=(file,), held_out=0.1)
    alone = load_dataset([task], batch_size=32, seed=0, gamma=0.9).transitions
    for more, count in ((Source(name="more", files=(link,), held_out=0.1), 3), (Source(name="more", files=(link,)), 2)):
        mixture = load_dataset([task, more], batch_size=32, seed=0, gamma=0.9)
        table, chosen = mixture.table, mixture.transitions
        held = [set(table.frame[chosen.held_out & (table.source == number)].tolist()) for number in range(2)]
        assert held[0] == held[1] >= set(table.frame[: len(alone.held_out)][alone.held_out].tolist())
        assert len(chosen.episode[chosen.held_out & (table.source == 0)].unique()) == count
        assert not held[0] & set(table.frame[chosen.sampled].tolist())


def test_what_is_held_out_is_so_for_a_source_that_reads_the_file_under_other_names(tmp_path: Path) -> None:
    file = write_dots(tmp_path / "task.h5", "task", 20)
    with h5py.File(file, "a") as held:
        for demo in held["data"].values():
            demo["frames/wrist_image"] = demo[f"frames/{CAMERA}"][()]
    exchanged = {CAMERA: "wrist_image", "wrist_image": CAMERA}
    sources = [Source(name="task", files=(file,), held_out=0.2), Source(name="more", files=(file,), rename=exchanged)]
    mixture = load_dataset(sources, batch_size=32, seed=0, gamma=0.9)
    chosen, table = mixture.transitions, mixture.table
    one, two = (chosen.held_out[table.source == number] for number in range(2))
    assert one.any() and torch.equal(one, two)
    assert not set(table.frame[table.source == 0].tolist()) & set(table.frame[table.source == 1].tolist())
