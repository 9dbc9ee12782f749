"""Seeds: every random stream is a pure function of one seed and a name."""

import zlib

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """Return a 32-bit seed for a named stream, say `derive(0, "evaluate", 7)`.

    Streams of different names are independent, so episode 7 of an evaluation never starts as episode 7 of a
    collection with the same seed did.
    """
    words = [zlib.crc32(name.encode(errors="surrogateescape")) if isinstance(name, str) else name for name in names]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0])
