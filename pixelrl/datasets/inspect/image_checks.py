"""Demos or files whose pictures look wrong: swapped cameras, colours in the other order, pictures upside down.

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

from pixelrl.datasets.inspect.demo_summary import GRID
from pixelrl.datasets.inspect.issues import Issue, Occurrence

FLOOR = 6.0
"""A demo whose own thumbnails are nearer than this to the usual ones [grey levels of 255] is above suspicion."""

BRIGHTNESS = 30.0
"""Files whose mean brightness differs by more than this [grey levels of 255] are told of."""

Thumbnails = Mapping[str, NDArray[np.float64]]
"""Camera -> mean thumbnail of each of D demos (or files), `[D, GRID, GRID, C]`."""


def mean_thumbnail(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean of the thumbnails of one demo: `[F, G, G, C]` -> `[GRID, GRID, C]`, small pictures stretched."""
    mean = thumbnails.mean(axis=0)
    rows, columns = (np.arange(GRID) * size // GRID for size in mean.shape[:2])
    stretched: NDArray[np.float64] = mean[rows][:, columns]
    return stretched


def look_changed(
    thumbnails: NDArray[np.float64], change: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.bool_]:
    """Return which of D demos `[D, ...]` look as if they were changed, and the others not; see above."""
    changed = change(thumbnails)
    wrong = np.arange(len(thumbnails)) > 0
    for _ in range(len(thumbnails) + 1):
        usual = np.median(thumbnails[~wrong], axis=0)
        own, after = (np.abs(each - usual).reshape(len(each), -1).mean(axis=1) for each in (thumbnails, changed))
        now = (after < own / 2) & (own > FLOOR)
        now[0] = False
        if (now == wrong).all():
            break
        wrong = now
    return wrong


def suspicions(thumbnails: Thumbnails) -> Iterator[tuple[str, str, str, int]]:
    """Yield (check, where, message, index of the demo or file) for every suspicion that is confirmed."""
    found: list[tuple[str, str, str, NDArray[np.bool_]]] = []
    for one, other in combinations(thumbnails, 2):
        if thumbnails[one].shape == thumbnails[other].shape:
            pairs = np.stack([thumbnails[one], thumbnails[other]], axis=1)
            message = f"shows what {other} usually shows, and {other} what {one} does: are the cameras swapped?"
            swapped = look_changed(pairs, lambda pair: pair[:, ::-1])
            found.append(("camera-swapped", f"obs/{one}", message, swapped))
    for key, held in thumbnails.items():
        if held.shape[-1] >= 3:
            reversed_ = look_changed(held[..., :3], lambda colours: colours[..., ::-1])
            found.append(("colour-order", f"obs/{key}", "red and blue are exchanged (BGR beside RGB?)", reversed_))
        turned = look_changed(held, lambda pictures: pictures[:, ::-1])
        found.append(("upside-down", f"obs/{key}", "the pictures are upside down beside the others", turned))
    for check, where, message, which in found:
        for index in np.flatnonzero(which).tolist():
            yield check, where, message, index


def check_demos(thumbnails: Thumbnails, demos: Sequence[str]) -> Iterator[Occurrence]:
    """Find demos of one file that look otherwise than the rest."""
    for check, where, message, index in suspicions(thumbnails):
        yield Occurrence(check, "warning", where, message, demos[index])


def check_files(thumbnails: Sequence[Thumbnails], files: Sequence[str]) -> Iterator[Issue]:
    """Find files that look otherwise than the first one: swapped, other colours, upside down, brighter, darker."""
    shapes = {key: {each[key].shape[1:] if key in each else None for each in thumbnails} for key in thumbnails[0]}
    shared = [key for key, found in shapes.items() if len(found) == 1]
    usual = {key: np.stack([np.median(each[key], axis=0) for each in thumbnails]) for key in shared}
    for check, where, message, index in suspicions(usual):
        said = f"{message} Compared with {files[0]}"
        yield Issue(check=check, level="warning", where=where, message=said, file=files[index])
    for key, each in usual.items():
        light = each.mean(axis=(1, 2, 3))
        for index in np.flatnonzero(np.abs(light - light[0]) > BRIGHTNESS).tolist():
            message = f"mean brightness {light[index]:.0f} of 255, but {light[0]:.0f} in {files[0]}: other light, "
            message += "exposure or camera?"
            yield Issue(check="brightness", level="warning", where=f"obs/{key}", message=message, file=files[index])
