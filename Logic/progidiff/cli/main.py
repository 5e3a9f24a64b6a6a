"""`progidiff`: the commands of the engine, one file a command.

To add one, write `cli/<name>.py` with `SUMMARY`, `add_arguments(parser)` and `run(options) -> int`,
and put its name into `COMMANDS`. Its file must import quickly: whatever needs torch, SimpleITK or
rich is imported inside `run`, so that `progidiff --help` stays instant.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence

from progidiff import __version__
from progidiff.errors import DeviceError, ProGiDiffError
from progidiff.out_of_memory import is_out_of_memory

COMMANDS = (
    "segment",
    "vary",
    "constrain",
    "models",
    "doctor",
    "phantom",
    "evaluate",
    "train",
    "cases",
    "adapt",
    "adapters",
)

INTERRUPTED = 130
"""What shells report for a program ended by Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0 good, 1 failed, 2 wrong usage, 130 interrupted."""
    _print_what_can_be_printed()
    options = build_parser().parse_args(arguments)
    _tidy_up_when_terminated()
    try:
        code = options.run(options)
        sys.stdout.flush()  # here and not at exit, where a closed pipe could not be caught
        return code
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # such as `progidiff models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return report(error, options.debug)


def _print_what_can_be_printed() -> None:
    """A name or sign that the terminal's encoding lacks becomes "?", and is no reason to fail."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _tidy_up_when_terminated() -> None:
    """Lets SIGTERM end the program like an exception, so that half-written files are removed."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="progidiff",
        description="Text-prompted organ proposals on CT and MR. Nothing leaves this computer.",
    )
    parser.add_argument("--version", action="version", version=f"progidiff {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        command = importlib.import_module(f"progidiff.cli.{name}")
        subparser = commands.add_parser(name, help=command.SUMMARY, description=command.SUMMARY)
        subparser.set_defaults(run=command.run)
        subparser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.add_arguments(subparser)
    return parser


def report(error: Exception, debug: bool) -> int:
    """Prints an error as its reader needs it and returns the exit code."""
    if debug:
        traceback.print_exception(error)
    if is_out_of_memory(error) and not isinstance(error, ProGiDiffError):
        error = DeviceError(
            "Memory ran out.", "Try --device cpu, fewer proposals, or an image cropped to the abdomen."
        )
    if isinstance(error, ProGiDiffError):
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    hint = "" if debug else " Run it again with --debug for the details to report."
    print(f"Sorry, this should not have happened ({type(error).__name__}: {error}).{hint}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
