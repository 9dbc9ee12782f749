"""`pixelrl`: one command with verbs. `VERB --help` tells its options, `--debug` shows where an error arose."""

import os
import signal
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any, NoReturn

import tyro
from tyro.conf import Positional

from pixelrl.launch.commands.collect import Collect
from pixelrl.launch.commands.compare import Compare
from pixelrl.launch.commands.convert import Convert
from pixelrl.launch.commands.demo import Demo
from pixelrl.launch.commands.evaluate import Evaluate
from pixelrl.launch.commands.export import Export
from pixelrl.launch.commands.inspect import Inspect
from pixelrl.launch.commands.probe import Probe
from pixelrl.launch.commands.render import Render
from pixelrl.launch.commands.report import Report
from pixelrl.launch.commands.serve import Serve
from pixelrl.launch.commands.starts import Starts
from pixelrl.launch.commands.study import StudyCommand
from pixelrl.launch.commands.sweep import Sweep
from pixelrl.launch.commands.view import View
from pixelrl.launch.console import plain_console
from pixelrl.runtime.errors import PixelrlError
from pixelrl.runtime.extras import missing_extra
from pixelrl.version import __version__


def train(recipe: Positional[str], /) -> None:
    """Train a recipe on data; `pixelrl train --help` lists the recipes, `pixelrl train RECIPE --help` its options."""


def distill(run: Positional[str], /) -> None:
    """Train a small policy that imitates a run's; `pixelrl distill --help` tells the options."""


COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": Demo,
    "collect": Collect,
    "render": Render,
    "inspect": Inspect,
    "view": View,
    "convert": Convert,
    "train": train,
    "distill": distill,
    "starts": Starts,
    "evaluate": Evaluate,
    "sweep": Sweep,
    "compare": Compare,
    "report": Report,
    "probe": Probe,
    "study": StudyCommand,
    "export": Export,
    "serve": Serve,
}


def main() -> None:
    """Run the command; exit with 0 only on success, with one clear line on bad input."""
    os.environ.setdefault("MUJOCO_GL", "egl")  # before anything imports MuJoCo; the user's choice stands
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # torch's profiler would tell of its own doings
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    debug = "--debug" in sys.argv
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    try:
        try:
            run(arguments)
        finally:
            sys.stdout.flush()  # where a reader that has left can be told from a fault
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and reader_left():
            sys.exit(128 + signal.SIGPIPE)
        if debug:
            raise
        fail(explain(error), 1)


def reader_left() -> bool:
    """Return whether nobody reads what is printed any more, as after `| head`; it then goes nowhere."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def run(arguments: list[str]) -> None:
    """Run the command of some words."""
    verb, *words = arguments or [""]
    if verb == "train":
        from pixelrl.launch.train_options import train_command

        train_command(words)
    elif verb == "distill":
        from pixelrl.launch.commands.distill import distill_command

        distill_command(words)
    elif verb in COMMANDS:  # by itself, so that a hint names its options and no other command's
        tyro.cli(COMMANDS[verb], prog=f"pixelrl {verb}", args=words)()
    elif verb == "--version":
        print(f"pixelrl {__version__}")
    else:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="pixelrl", args=arguments, description=__doc__)


def explain(error: Exception) -> str:
    """Return one line about what went wrong; of an unexpected error, how to learn more."""
    if isinstance(error, PixelrlError):
        return str(error)
    if extra := missing_extra(error):
        return extra
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the system'}: {error.strerror}"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)"


def fail(message: str, code: int) -> NoReturn:
    """Print a message and leave."""
    plain_console(stderr=True).print(f"pixelrl: {message}", style="bold red", highlight=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
