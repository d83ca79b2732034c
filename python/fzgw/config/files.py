"""Files that must not be lost half-way: made new, or replaced whole."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SECRET = 0o600


def create(path: Path, content: str, mode: int) -> None:
    """Writes a file that must not exist yet, with exactly `mode`; FileExistsError when it does. One that cannot be
    written to its end is removed again."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink()
        raise


@contextmanager
def replacement(path: Path, content: str) -> Iterator[None]:
    """Puts `content` in place of the file at `path` when the block ends well, in one step, with the mode and owner of
    the file that was there; a failed block leaves the old file. A symbolic link stays one: its target is replaced.
    Everything that can fail for want of space or rights does so before the block runs."""
    target = path.resolve(strict=True)
    old = target.stat()
    new = target.with_name(f".{target.name}.{os.getpid()}.new")
    create(new, content, old.st_mode & 0o7777)
    try:
        # Only root can give a file away; for everybody else it is theirs already, or theirs from now on.
        with suppress(PermissionError):
            os.chown(new, old.st_uid, old.st_gid)
        yield
        new.replace(target)
    except BaseException:
        new.unlink()
        raise
    _sync_directory(target.parent)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps other fzgw commands from changing files in `directory` meanwhile; waits for one that does."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
