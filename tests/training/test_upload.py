"""Batches on their way to the learner."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pixelrl.training.loop import Upload
from tests.tiny import CPU, transitions


def test_on_the_cpu_nothing_is_copied() -> None:
    batch = transitions()
    assert all(a is b for a, b in zip(Upload(CPU)(batch).tensors, batch.tensors, strict=True))


def test_copies_go_beside_the_learners_stream_which_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    learner = SimpleNamespace(wait_stream=lambda stream: told.append(("learner waits for", stream)))

    class Beside:
        def __enter__(self) -> None:
            told.append("copies begin")

        def __exit__(self, *error: object) -> None:
            told.append("copies end")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "side")
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: Beside())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: learner)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, non_blocking: self)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: told.append(stream))
    batch = transitions()
    Upload(torch.device("cuda:1"))(batch)
    assert told[:3] == ["copies begin", "copies end", ("learner waits for", "side")]
    assert told[3:] == [learner] * len(batch.tensors)


@pytest.mark.cuda
def test_what_arrives_on_a_gpu_is_what_was_sent() -> None:
    upload = Upload(torch.device("cuda"))
    for seed in range(5):
        sent = transitions(seed).map(torch.Tensor.pin_memory)
        for there, here in zip(upload(sent).tensors, sent.tensors, strict=True):
            assert torch.equal(there.cpu(), here)
