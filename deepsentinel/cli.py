"""The same verbs from a shell: `deepsentinel doctor` here, the others in `cli_demo`, `cli_corpus` and `cli_learn`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from . import __version__, cli_corpus, cli_demo, cli_learn
from .cli_demo import NOTEBOOK
from .cli_steps import say
from .errors import DeepSentinelError, DeepSentinelWarning, InputError

EXIT_OK, EXIT_UNWELL, EXIT_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status (0 well, 1 the doctor found something, 2 an error, 130 interrupted).

    >>> main(["doctor", "--json", "--services", "none"])  # doctest: +ELLIPSIS
    {...}
    0
    """
    options = _parser().parse_args(arguments)
    try:
        with _plain_warnings():
            status: int = options.run(options)
        sys.stdout.flush()
        return status
    except DeepSentinelError as error:
        if options.debug:
            raise
        print(f"deepsentinel: {error}", file=sys.stderr)
        print("(--debug shows where this comes from)", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("deepsentinel: interrupted; nothing is left half written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`). Python would complain once more while closing stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        if options.debug:
            raise
        print(f"deepsentinel: a file cannot be read or written: {error}", file=sys.stderr)
        print(
            "(is there room, and may you write there? --out and DEEPSENTINEL_CACHE name other places)", file=sys.stderr
        )
        return EXIT_ERROR


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Ours without the line of code that they come from, which in a shell is always the same."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if issubclass(category, DeepSentinelWarning):
            print(f"note: {message}", file=sys.stderr)
        else:
            usual(message, category, *rest, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DeepSentinelWarning)
        warnings.showwarning = show
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deepsentinel",
        description="From a rectangle on a map to matched Sentinel-1 and Sentinel-2 pixels.",
        epilog=f"The first ten minutes: jupyter lab {NOTEBOOK}",
    )
    parser.add_argument("--version", action="version", version=f"deepsentinel {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    cli_demo.add_command(commands, common)
    doctor = commands.add_parser(
        "doctor",
        parents=[common],
        help="versions, GPU, credentials, cache, and whether the live services answer rightly",
        description="Look at everything that commonly goes wrong. Exit status 1 if something is.",
    )
    doctor.add_argument("--json", action="store_true", help="for machines")
    doctor.add_argument("--services", nargs="+", metavar="NAME", help="which to ask; 'none' asks nobody (all)")
    doctor.set_defaults(run=_doctor)
    cli_corpus.add_commands(commands, common)
    cli_learn.add_commands(commands, common)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from .checkups import SERVICES
    from .doctor import diagnose

    names = options.services
    if names is not None:
        names = [] if names == ["none"] else names
        unknown = [name for name in names if name not in SERVICES]
        if unknown:
            raise InputError(
                f"There is no service {', '.join(unknown)} to ask; there are {', '.join(SERVICES)}, or none."
            )
    if not options.json and sys.stderr.isatty():
        print("Asking the services, a minute at most ...", file=sys.stderr)
    report = diagnose(services=names)
    say(json.dumps(report.as_dict(), indent=2) if options.json else report.text())
    return EXIT_OK if report.ok else EXIT_UNWELL
