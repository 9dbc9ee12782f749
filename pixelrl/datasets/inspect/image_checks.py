"""Whose pictures look wrong: cameras that are swapped, colours in the other order, pictures upside down.

The method. Of each camera and demo the mean thumbnail is kept. Each suspicion is a change that undoes itself: exchange
two cameras, reverse the order of the colours, turn the picture upside down. A demo has it if the changed thumbnails
are less than half as far from the usual ones as its own are: |T(x) - m| < |x - m| / 2, where |.| is the mean absolute
difference in grey levels and m the median of the demos that do not have it; those are found by alternating, from the
first demo on. Where both views look alike (two cameras side by side, grey scenes, a symmetric table) nothing is said.
Of two equal halves, the one with the first demo counts as right.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pixelrl.datasets.inspect.issues import Issue, Occurrence
from pixelrl.datasets.inspect.demo_summary import GRID

FLOOR = 6.0
"""A demo whose own thumbnails are nearer than this to the usual ones [grey levels of 255] is above suspicion."""

BRIGHTNESS = 30.0
"""Sources whose mean brightness differs by more than this [grey levels of 255] are told of."""

Looks = Mapping[str, NDArray[np.float64]]
"""Camera -> mean thumbnail of each of D demos (or files), `[D, G, G, C]`."""


def odd(looks: NDArray[np.float64], change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Return which of D demos `[D, ...]` look as if they were changed, and the others not; see above."""
    changed = change(looks)
    wrong = np.arange(len(looks)) > 0
    for _ in range(len(looks) + 1):
        usual = np.median(looks[~wrong], axis=0)
        straight, crossed = (_distance(each, usual) for each in (looks, changed))
        now = (crossed < straight / 2) & (straight > FLOOR)
        now[0] = False
        if (now == wrong).all():
            break
        wrong = now
    return wrong


def suspicions(
    looks: Looks,
) -> Iterator[tuple[str, str, str, NDArray[np.bool_]]]:
    """Yield (check, where, message, which of the D demos or files have it) for every suspicion that is confirmed."""
    for one, other in combinations(looks, 2):
        if looks[one].shape == looks[other].shape:
            which = odd(np.stack([looks[one], looks[other]], axis=1), lambda pair: pair[:, ::-1])
            message = f"shows what {other} usually shows, and {other} what {one} does: are the cameras swapped?"
            yield "camera-swapped", f"obs/{one}", message, which
    for key, thumbnails in looks.items():
        if thumbnails.shape[-1] >= 3:
            which = odd(thumbnails[..., :3], lambda colours: colours[..., ::-1])
            yield "colour-order", f"obs/{key}", "red and blue are exchanged (BGR beside RGB?)", which
        which = odd(thumbnails, lambda pictures: pictures[:, ::-1])
        yield "upside-down", f"obs/{key}", "the pictures are upside down beside the others", which


def within(looks: Looks, demos: Sequence[str]) -> Iterator[Occurrence]:
    """Find demos of one file that look otherwise than the rest."""
    for check, where, message, which in suspicions(looks):
        for index in np.flatnonzero(which):
            yield Occurrence(check=check, level="warning", where=where, message=message, demo=demos[index])


def between(looks: Sequence[Looks], files: Sequence[str]) -> Iterator[Issue]:
    """Find files that look otherwise than the first one: swapped, other colours, upside down, brighter, darker."""
    shared = [key for key in looks[0] if all(key in each and each[key].shape[1:] == looks[0][key].shape[1:]
                                             for each in looks)]  # fmt: skip
    usual = {key: np.stack([np.median(each[key], axis=0) for each in looks]) for key in shared}
    for check, where, message, which in suspicions(usual):
        for index in np.flatnonzero(which):
            said = f"{message} Compared with {files[0]}"
            yield Issue(check=check, level="warning", where=where, message=said, file=files[index])
    for key, thumbnails in usual.items():
        light = thumbnails.mean(axis=(1, 2, 3))
        for index in np.flatnonzero(np.abs(light - light[0]) > BRIGHTNESS):
            message = f"mean brightness {light[index]:.0f} of 255, but {light[0]:.0f} in {files[0]}: other light, "
            message += "exposure or camera?"
            yield Issue(check="brightness", level="warning", where=f"obs/{key}", message=message, file=files[index])


def look(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean of the thumbnails of one demo: `[F, G, G, C]` -> `[GRID, GRID, C]`, small pictures stretched."""
    mean = thumbnails.mean(axis=0)
    rows, columns = (np.arange(GRID) * size // GRID for size in mean.shape[:2])
    stretched: NDArray[np.float64] = mean[rows][:, columns]
    return stretched


def _distance(looks: NDArray[np.float64], usual: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean absolute difference of each demo from what is usual `[D]`."""
    difference: NDArray[np.float64] = np.abs(looks - usual).reshape(len(looks), -1).mean(axis=1)
    return difference
