"""Parameters laid end to end."""

import torch
from torch import nn

from pixelrl.learning.flat import ALIGNMENT, Flat


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 20))


def test_the_module_computes_as_before_and_follows_the_whole() -> None:
    module, x = layers(), torch.ones(2, 3)
    before, state = module(x), {key: value.clone() for key, value in module.state_dict().items()}
    flat = Flat(module.parameters())
    torch.testing.assert_close(module(x), before, rtol=0, atol=0)
    with torch.no_grad():
        flat.whole.mul_(2)
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, 2 * state[key], rtol=0, atol=0)
    module.load_state_dict(state)  # into the same memory
    torch.testing.assert_close(flat.views(flat.whole)[0], state["0.weight"], rtol=0, atol=0)


def test_each_parameter_starts_where_kernels_like_it() -> None:
    module = layers()
    flat = Flat(module.parameters())
    assert flat.whole.numel() == 16 + 16 + 112 + 32  # 15, 5, 100 and 20, rounded up
    starts = [(each.data_ptr() - flat.whole.data_ptr()) // 4 for each in module.parameters()]
    assert starts == [0, 16, 32, 144] and all(start % ALIGNMENT == 0 for start in starts)


def test_gradients_are_gathered_in_place_and_none_is_zero() -> None:
    module = layers()
    flat = Flat(module.parameters())
    assert flat.whole.grad is not None
    place = flat.whole.grad.data_ptr()
    slopes = [torch.full_like(each, 1.0 + index) for index, each in enumerate(module.parameters())]
    flat.gather(slopes)
    assert flat.whole.grad.sum().item() == 15 + 2 * 5 + 3 * 100 + 4 * 20
    flat.gather([slopes[0], None, None, slopes[3].t().contiguous().t()])
    assert flat.whole.grad.sum().item() == 15 + 4 * 20
    assert flat.whole.grad.data_ptr() == place
    assert [float(each.grad.max()) for each in flat.parameters if each.grad is not None] == [1, 0, 0, 4]


def test_adam_of_the_whole_is_adam_of_each() -> None:
    one, other = layers(), layers()
    flat = Flat(one.parameters())
    whole = torch.optim.Adam([flat.whole], lr=0.1, fused=True)
    apart = torch.optim.Adam(other.parameters(), lr=0.1)
    for step in range(3):
        x = torch.full((2, 3), 1.0 + step)
        flat.gather(torch.autograd.grad(one(x).square().sum(), flat.parameters))
        whole.step()
        apart.zero_grad()
        other(x).square().sum().backward()
        apart.step()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_what_wants_no_gradient_has_none() -> None:
    flat = Flat(layers().requires_grad_(False).parameters())
    assert flat.whole.grad is None and not flat.whole.requires_grad
