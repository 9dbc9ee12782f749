"""The errors that a user meets: one line that names what is wrong and what would have been right."""


class PixelrlError(Exception):
    """Bad input. The command line prints its message without a traceback and exits with 1."""


class DataError(PixelrlError):
    """A data set that cannot be used; the message names the file, the demo and the key."""


class DivergenceError(PixelrlError):
    """Training that left all bounds; the message names the step, the term and the source of the rows."""


class LostRankError(PixelrlError):
    """Training on several ranks, one of which is gone or silent."""


class SimulationError(PixelrlError):
    """An environment that cannot be made or used; the message names it and the option."""
