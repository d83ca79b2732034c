"""How an error becomes one clear message on stderr and a documented exit code, without a traceback.

A verb raises what describes the failure: an exception of the part that failed, or a `Failure` of its own. What is
neither is a bug of fzgw, and keeps its traceback.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import IO, Any

import click


class ExitCode(IntEnum):
    """What a finished command says to its caller."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    CONFIGURATION = 3
    PRIVILEGE = 4
    VERIFICATION = 5
    INTERRUPTED = 130
    """128 + SIGINT, as shells have it: ended by Ctrl-C before it was done."""


class Failure(click.ClickException):
    """A command that cannot do what it was asked for: exit code 1. `message` says why, in words for its user."""

    exit_code = int(ExitCode.FAILED)
    label = "error: "

    def show(self, file: IO[Any] | None = None) -> None:
        """Writes the message to stderr."""
        click.echo(click.style(self.label, fg="red", bold=True) + self.format_message(), file=file, err=file is None)


class ConfigurationFailure(Failure):
    """The configuration is wrong: exit code 3. The lines of `ConfigErrors` stand as they are, beginning with file and
    line, which editors and CI know how to read."""

    exit_code = int(ExitCode.CONFIGURATION)
    label = ""


class PrivilegeFailure(Failure):
    """The right to do it is missing: exit code 4. The message has the ways out."""

    exit_code = int(ExitCode.PRIVILEGE)


@contextmanager
def reported(ctx: click.Context) -> Iterator[None]:
    """Turns what a command raises into a `Failure`, which click shows and exits with."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(err=True)
        ctx.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        _abandon_stdout()
        ctx.exit(ExitCode.FAILED)
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise failure from error


def failure_of(error: Exception) -> Failure | None:
    """The message and exit code of an error that somebody can mend; None for a bug, and for click's own."""
    if isinstance(error, click.ClickException | click.exceptions.Exit | click.Abort):
        return None
    if isinstance(error, OSError):
        return Failure(_os_error(error))
    # Imported here: a command that fails may take a moment longer, one that runs carries none of it.
    from fzgw._core import StartError
    from fzgw.config.errors import ConfigErrors
    from fzgw.handlers import HandlerError
    from fzgw.host.errors import PRIVILEGE_FIX, HostError, PrivilegeError
    from fzgw.sinks import SinkError

    match error:
        case ConfigErrors() | HandlerError():
            return ConfigurationFailure(str(error))
        case StartError() if error.kind == "privilege":
            return PrivilegeFailure(f"{error}; {PRIVILEGE_FIX}")
        case PrivilegeError():
            return PrivilegeFailure(str(error))
        case StartError() | HostError() | SinkError():
            return Failure(str(error))
        case _:
            return None


def _os_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def _abandon_stdout() -> None:
    """Whoever read stdout has gone: nothing more is written to it, at exit neither."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
