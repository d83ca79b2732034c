"""Arguments and options that several verbs share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

DEFAULT_CONFIG = "gateway.toml"

Command = TypeVar("Command", bound=Callable[..., Any])


def config_argument(command: Command) -> Command:
    """``[CONFIG]``: the configuration file, as `config`."""
    return click.argument("config", default=DEFAULT_CONFIG, type=click.Path(path_type=Path))(command)


def config_option(command: Command) -> Command:
    """``--config FILE``, as `config`."""
    return click.option(
        "--config",
        default=DEFAULT_CONFIG,
        show_default=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The gateway's configuration.",
    )(command)


def set_option(command: Command) -> Command:
    """``--set KEY=VALUE``, as the tuple `overrides`."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set any key for this run, such as flow_logs.idle.tcp=300s. May be repeated.",
    )(command)


def json_option(command: Command) -> Command:
    """``--json``, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(command)
