"""Key files: read once for a load, however often validation asks."""

import stat
from pathlib import Path

from fzgw.config import values

LARGEST_KEY_FILE = 4096
"""Bytes. A key has 44; whatever is larger is another file named by mistake."""


class KeyFiles:
    """The files a configuration names, relative to `base`. Reading one twice gives the same answer, so a key may come
    through a pipe."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._read: dict[Path, bytes | ValueError] = {}
        self._readable_by_all: set[Path] = set()

    def resolve(self, name: str) -> Path:
        """The path `name` means: relative to the configuration file."""
        return self.base / name

    def key(self, name: str) -> bytes:
        """The 32 bytes of the key in file `name`; ValueError says what is wrong with the file."""
        path = self.resolve(name)
        if path not in self._read:
            try:
                self._read[path] = self._load(path)
            except ValueError as error:
                self._read[path] = error
        found = self._read[path]
        if isinstance(found, ValueError):
            raise found
        return found

    def readable_by_all(self, name: str) -> bool:
        """Whether every user of the host can read (or write) the key file, of those that were read."""
        return self.resolve(name) in self._readable_by_all

    def _load(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                if stat.S_IMODE(path.stat().st_mode) & (stat.S_IROTH | stat.S_IWOTH):
                    self._readable_by_all.add(path)
                content = file.read(LARGEST_KEY_FILE + 1)
        except FileNotFoundError:
            raise ValueError(f"{path} does not exist") from None
        except IsADirectoryError:
            raise ValueError(f"{path} is a directory, not a key file") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        if len(content) > LARGEST_KEY_FILE:
            raise ValueError(f"{path} is too large for a key file")
        try:
            return values.key(content.decode("ascii").strip())
        except UnicodeDecodeError:
            raise ValueError(f"{path}: is not base64") from None
        except ValueError as error:
            raise ValueError(f"{path}: the key {error}") from None
