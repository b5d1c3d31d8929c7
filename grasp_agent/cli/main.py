"""The `grasp` command: parses the command line, and reports errors in it on one line."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Annotated, Union, get_args, get_type_hints

import tyro

from grasp_agent import __version__
from grasp_agent.cli import Command, Compare, Demo, Evaluate, Models, Plan, Record, Train, Tune, UsageError
from grasp_agent.cli.console import OutputClosedError, complain, say, warnings_on_one_line
from grasp_agent.files import reason
from grasp_agent.interruption import Stopped, stoppable

_COMMANDS: dict[str, type[Command]] = {
    "demo": Demo,
    "train": Train,
    "tune": Tune,
    "evaluate": Evaluate,
    "compare": Compare,
    "record": Record,
    "plan": Plan,
    "models": Models,
}

_PLAIN = (
    ("invalid literal for int() with base 10:", "expected a whole number, got"),
    ("could not convert string to float:", "expected a number, got"),
)
"""Python's words for values that cannot be parsed, and plain ones."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: the arguments after `grasp`; None for the process's own.

    Returns:
        The exit status: 0, 1 where a file cannot be written or a process was killed, 2 for a usage error, such as a
        file that is none of ours, 130 for Ctrl-C, 143 for SIGTERM, 141 where the reader of stdout has closed it.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with stoppable(signal.SIGTERM, signal.SIGINT), warnings_on_one_line():
            if arguments == ["--version"]:
                say(f"grasp_agent {__version__}")
            else:
                _parsed(arguments).run()
    except UsageError as error:
        complain(str(error))
        return 2
    except ValueError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Stopped) and stop.code == 128 + signal.SIGTERM
        complain("terminated" if terminated else "interrupted")
        return 143 if terminated else 130
    except OutputClosedError:
        _silence()
        return 141
    except OSError as error:
        complain(f"{error.filename}: {reason(error)}" if error.filename else reason(error))
        try:
            sys.stdout.flush()
        except OSError:
            _silence()
        return 1
    return 0


def _silence() -> None:
    """Keeps Python from writing to stdout once more at exit, which fails again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parsed(arguments: list[str]) -> Command:
    if not arguments or (arguments[0] not in _COMMANDS and not arguments[0].startswith("-")):
        what = f"unknown command {arguments[0]!r}" if arguments else "a command is missing"
        raise UsageError(f"{what} (choose from {', '.join(_COMMANDS)})")
    kinds = tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in _COMMANDS.items())
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            command, unknown = tyro.cli(
                Union[kinds],  # type: ignore[arg-type]  # noqa: UP007
                prog="grasp",
                description="Agents that plan with a learned world model, by GRASP.",
                args=arguments,
                return_unknown_args=True,
                config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise UsageError(_on_one_line(printed.getvalue())) from None
    if unknown:
        raise UsageError(f"{arguments[0]}: unexpected {unknown[0]!r} (choose from {', '.join(_options(command))})")
    return command


def _options(command: Command) -> list[str]:
    hints = get_type_hints(type(command), include_extras=True)
    return [f"--{name}" for name, hint in hints.items() if tyro.conf.Positional not in get_args(hint)]


def _on_one_line(box: str) -> str:
    """Returns the message of tyro's boxed error, with its hint in brackets."""
    blocks: list[list[str]] = [[]]
    for line in box.splitlines()[1:-1]:
        text = line.strip(" │")
        if set(text) <= {"─"}:
            blocks.append([])
        else:
            blocks[-1].append(text)
    message, *hints = (" ".join(block) for block in blocks)
    for python, plain in _PLAIN:
        message = message.replace(python, plain)
    hint = "; ".join(hint for hint in hints if not hint.startswith("For full helptext"))
    return f"{message} ({hint})" if hint else message


if __name__ == "__main__":
    sys.exit(main())
