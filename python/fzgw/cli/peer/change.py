"""What ``peer add`` and ``peer remove`` have in common: one at a time, all or nothing, judged before it is written."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fzgw.cli.errors import ConfigurationFailure, Failure
from fzgw.config import Config, ConfigErrors, files, load, load_text
from fzgw.config.edit import EditError

RELOAD = "A running gateway takes this up when it gets SIGHUP: kill -HUP <its process id>"


@contextmanager
def changing(path: Path) -> Iterator[Config]:
    """The configuration at `path`, with every other command that would change it kept waiting."""
    directory = path.resolve().parent
    if not directory.is_dir():
        load(path)  # raises: it has the words for a file that is not there
    # The directory's lock, not the file's: the file is replaced.
    with files.locked(directory):
        yield load(path)


def judged(path: Path, change: Callable[[str], str], without: str) -> tuple[str, Config]:
    """The text at `path` after `change`, and the configuration it makes; a failure that says that nothing was changed
    when it makes none. `without` says with or without which peer."""
    try:
        # Bytes and not read_text: line ends stay as they are.
        text = change(path.read_bytes().decode("utf-8"))
        return text, load_text(text, path)
    except EditError as error:
        raise Failure(f"{path}: {error}") from None
    except ConfigErrors as errors:
        raise ConfigurationFailure(f"{path} would be wrong {without}; nothing was changed:\n{errors}") from None


def psk_file(name: str) -> str:
    """The file beside the configuration that holds the preshared key of peer `name`."""
    return f"{re.sub(r'[^A-Za-z0-9_.@+-]+|^[.]', '_', name)}.psk"
