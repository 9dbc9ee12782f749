"""Threads are found, remembered, and never change what is learned by themselves."""

import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from tests.tiny import CPU, Calls, make_learner, shrink, transitions
from torch import Tensor

from pixelrl.learning.batch import Batch
from pixelrl.runtime.errors import PixelrlError
from pixelrl.launch import processor
from pixelrl.launch.processor import Threads, fastest, keep_memory, onednn_wins, settle_kernels, settle_threads
from pixelrl.launch.recipes import quick_cog
from pixelrl.learning.learner import Learner


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(processor, "cores", lambda: 6)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def never() -> Learner:
    raise AssertionError("nothing was to be tried")


def settle(asked: Threads, before: int | None = None, device: torch.device = CPU) -> int | None:
    return settle_threads(asked, device, before, never, transitions)


def pretend(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> list[int]:
    """Let an update take so long with each number of threads, and return the numbers that are tried."""
    tried: list[int] = []

    def timed(learner: Learner, batch: Batch) -> float:
        tried.append(torch.get_num_threads())
        return seconds[tried[-1]]

    monkeypatch.setattr(processor, "time_update", timed)
    return tried


def trial() -> Learner:
    return make_learner(shrink(quick_cog()))


def test_what_is_asked_for_is_used() -> None:
    assert settle(3) == 3 == torch.get_num_threads()
    assert settle("2", before=4) == 2 == torch.get_num_threads()


def test_a_resumed_run_goes_on_with_its_number() -> None:
    assert settle("auto", before=4) == 4 == torch.get_num_threads()


def test_the_users_environment_is_a_choice_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    torch.set_num_threads(5)  # as torch does when it is loaded
    assert settle("auto") == 5


@pytest.mark.parametrize("asked", [0, -1, "many", 1.5])
def test_anything_else_is_refused(asked: Threads) -> None:
    with pytest.raises(PixelrlError, match=f"--threads is {asked}; it must be auto or at least 1"):
        settle(asked)


def test_a_gpu_needs_none() -> None:
    assert settle("auto", device=torch.device("cuda")) is None


def test_the_fastest_number_is_found_and_a_tie_goes_to_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = pretend(monkeypatch, {1: 3.0, 2: 2.0, 4: 1.98, 6: 5.0})
    assert fastest(trial, transitions()) == 2
    assert tried == [1, 2, 4, 6]
    pretend(monkeypatch, {1: 3.0, 2: 2.0, 4: 1.0, 6: 0.5})
    assert settle_threads("auto", CPU, None, trial, transitions) == 6 == torch.get_num_threads()


def test_a_trial_takes_real_updates_on_a_learner_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "cores", lambda: 1)
    made: list[Learner] = []

    def make() -> Learner:
        made.append(trial())
        return made[-1]

    assert fastest(make, transitions()) == 1
    assert [learner.step for learner in made] == [1 + processor.TRIES]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults are counted by Linux")
def test_memory_that_is_freed_stays() -> None:
    import resource

    keep_memory()

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        held = [torch.ones(24 << 20, dtype=torch.uint8) for _ in range(4)]
        del held
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faults()
    assert min(faults() for _ in range(3)) < 1000  # 96 MB are 24,576 pages, or 48 large ones


def test_onednn_multiplies_where_it_is_clearly_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {False: 4.0, True: 3.0}
    asked: list[bool] = []

    def timed(work: Callable[[], Tensor]) -> float:
        with Calls() as calls:
            work()
        asked.append("_linear_pointwise" in calls.names)
        return seconds[asked[-1]]

    monkeypatch.setattr(processor, "timed", timed)
    assert onednn_wins() and set(asked) == {False, True}
    seconds[True] = 3.1
    assert not onednn_wins()
    assert settle_kernels(quick_cog(), CPU, True) is True and settle_kernels(quick_cog(), CPU, None) is False


def test_full_precision_is_full_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    for precision in ("bf16", "fp32"):
        recipe = shrink(quick_cog(), precision=precision)
        assert settle_kernels(recipe, torch.device("cuda"), None) is None
        assert torch.backends.cudnn.allow_tf32 == (precision == "bf16")


def test_networks_multiply_by_either_library() -> None:
    learner = make_learner(shrink(quick_cog(), critic_hidden=(32, 32), actor_hidden=(32, 32)))
    seen = {}
    for wanted in (True, False):
        learner.networks.use_onednn(wanted)
        with Calls() as calls:
            learner.update(transitions())
        seen[wanted] = calls.names.count("_linear_pointwise")
    assert seen[True] > 10 and not seen[False]
