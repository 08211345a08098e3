"""Ownership of outbox files: locks, the files of ended processes, files that are set aside.

A file has an owner while a lock file beside it is locked. The system frees that lock when the
process ends. Whoever holds the lock may rename, replace and remove the file.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..core.process import after_fork
from ..errors import InputError, OutboxLockedError

logger = logging.getLogger("drift_async.events")

SUFFIX = ".sqlite"
SIDES = ("-wal", "-shm", "-journal")
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)

_held: set[int] = set()
"""Descriptors of this process that a forked child must close: it would keep the locks alive."""

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """The exclusive right to an outbox file.

    Raises `OutboxLockedError` when another client has it, `InputError` when there is no file that
    could be locked, or it is not safe to use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.owner")
        while True:
            self.descriptor = open_safely(self.path)
            try:
                _try_lock(self.descriptor)
            except OSError as error:
                os.close(self.descriptor)
                if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                    raise OutboxLockedError(f"{path.name} has an owner") from None
                raise InputError("outbox", f"cannot be locked ({error})") from None
            if is_at(self.descriptor, self.path):
                break
            os.close(self.descriptor)  # its owner has removed it meanwhile
        _held.add(self.descriptor)

    def release(self, *, unlink: bool = True) -> None:
        """Give the file free."""
        with contextlib.suppress(OSError):  # not every system removes an open file
            if unlink:
                self.path.unlink()
        _held.discard(self.descriptor)
        os.close(self.descriptor)


def _close_in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


after_fork(_close_in_child)


def open_safely(path: Path) -> int:
    """Open or create a file of ours for reading and writing, or raise `InputError`."""
    try:
        check(path)
        flags = os.O_RDWR | os.O_CREAT | NO_FOLLOW
        return os.open(path, flags, 0o600)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("outbox", f"cannot be used ({type(error).__name__})") from None


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file still has its name."""
    try:
        found = path.stat(follow_symlinks=False)
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    opened = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


def check(path: Path) -> None:
    """Raise `InputError` for a file that others could have put there, or could change."""
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise InputError("outbox", f"{path.name} is a link, or no regular file")
    if hasattr(os, "geteuid"):
        if found.st_uid != os.geteuid():
            raise InputError("outbox", f"{path.name} belongs to another user")
        if found.st_mode & 0o022:
            raise InputError("outbox", f"others can write to {path.name}")


def make_folder(outbox: Path) -> None:
    """Make the directory of an outbox; log a warning if other users can write to it."""
    folder = outbox.parent if outbox.suffix == SUFFIX else outbox
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "geteuid") and folder.stat().st_mode & 0o002:
        logger.warning("outbox: all users of this machine can write to its directory %s", folder)


def found(outbox: Path, stem: str) -> list[Path]:
    """Return the files in an outbox directory, including one that is half replaced."""
    if outbox.suffix == SUFFIX:
        return []
    there = {*outbox.glob(f"{stem}-*{SUFFIX}")}
    there |= {path.with_suffix("") for path in outbox.glob(f"{stem}-*{SUFFIX}.new")}
    return sorted(there)


def candidates(outbox: Path, stem: str) -> Iterator[Path]:
    """Give the files that a client may own: those there are, and then a name for a new one."""
    if outbox.suffix == SUFFIX:
        yield outbox
        return
    yield from found(outbox, stem)
    yield outbox / f"{stem}-{uuid.uuid4().hex[:12]}{SUFFIX}"


def replacement_of(path: Path) -> Path:
    """Return the name of a file that is to replace a damaged one, once it is complete."""
    return path.with_name(f"{path.name}.new")


def finish_replacing(path: Path) -> bool:
    """Give a complete replacement its name, if its maker ended just before; return if so."""
    new = replacement_of(path)
    if path.exists():
        remove(new)  # one that is not complete
    elif new.exists():
        new.rename(path)
        return True
    return False


def set_aside(path: Path) -> str:
    """Rename a damaged file and put its replacement in its place; return the new name.

    At every moment either the file has its name, or all that could be read of it is in the new one.
    """
    aside = path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:8]}")
    for end in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    replacement_of(path).rename(path)
    return aside.name


def remove(path: Path) -> None:
    """Remove a file and all that SQLite may have put beside it."""
    for end in ("", *SIDES):
        path.with_name(path.name + end).unlink(missing_ok=True)
