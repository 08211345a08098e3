"""One outbox file: commits, deletions, dead letters, numbers, and files of the former format."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drift_async.events.sqlite_file import SqliteFile
from drift_async.events.sqlite_format import kind_number
from drift_async.events.storage import DeadLimits
from tests.support.event_storage import LIMITS, events, letters, numbers, opened, store


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteFile]:
    file = opened(tmp_path)
    yield file
    file.close(keep_empty=True)


def test_every_commit_waits_for_the_disk(file: SqliteFile) -> None:
    for _ in range(2):
        assert file._db.execute("PRAGMA synchronous").fetchone() == (2,)
        store(file, events(1, 9))
        assert file._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_nothing_is_written_before_there_is_something_to_write(tmp_path: Path) -> None:
    file = opened(tmp_path)
    assert file.summary(LIMITS).pending == 0
    assert file.read(0, 9, 999).events == []
    assert file.dead(LIMITS).letters == []
    assert file.replay(LIMITS).count == 0
    assert (tmp_path / "a.sqlite").stat().st_size == 0
    file.close(keep_empty=False)
    assert list(tmp_path.iterdir()) == []


def test_deleted_events_are_not_read_nor_counted(file: SqliteFile) -> None:
    store(file, events(1, 9))
    store(file, delete=[1, 2, 3, 4, 9])
    assert numbers(file) == [5, 6, 7, 8]
    summary = file.summary(LIMITS)
    assert (summary.pending, summary.bytes) == (4, 4 * 11)


def test_numbers_follow_the_order_and_are_not_given_twice(tmp_path: Path) -> None:
    file = opened(tmp_path)
    first, second = events(1, 3), events(4, 5)
    store(file, first, second)
    assert [event.number for event in first + second] == [1, 2, 3, 4, 5]
    file.dead_letter(letters(second), LIMITS)
    file.close(keep_empty=True)
    again = opened(tmp_path)
    third = events(6, 6)
    store(again, third)
    assert third[0].number == 6
    again.close(keep_empty=True)


def test_of_several_pieces_one_that_fails_does_not_concern_the_others(file: SqliteFile) -> None:
    store(file, events(1, 3))
    bad, good = events(4, 5), events(6, 7)
    bad[1].kind = "no number" * 9  # type: ignore[assignment]
    bad[1].body = object()  # type: ignore[assignment]
    with pytest.raises(TypeError):  # no error of the disk
        file.write([bad, good], [1])
    assert not file._db.in_transaction
    store(file, good)
    assert numbers(file) == [2, 3, 4, 5]


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 100, 512, 513, 2048, 5000])
def test_any_number_of_events_is_stored_as_a_whole(file: SqliteFile, count: int) -> None:
    store(file, events(1, count))
    assert numbers(file) == list(range(1, count + 1))
    file._db.execute("CREATE TRIGGER t BEFORE INSERT ON events WHEN new.seq = "
                     f"{2 * count} BEGIN SELECT raise(ABORT, 'no'); END")  # fmt: skip
    (error,) = file.write([events(1, count)], [])
    assert isinstance(error, sqlite3.IntegrityError)
    assert len(numbers(file)) == count


def test_a_library_that_takes_few_variables_does_as_well(file: SqliteFile) -> None:
    file._db.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    store(file, events(1, 1500))
    store(file, delete=list(range(1, 1401)))
    assert numbers(file) == list(range(1401, 1501))


def test_dead_letters_are_bounded_in_number_and_age(file: SqliteFile) -> None:
    given = events(1, 5)
    store(file, given)
    aside = letters(given)
    aside[0].died_at -= 100
    limits = DeadLimits(count=3, seconds=50)
    assert file.dead_letter(aside, limits) == {"dead_old": 1, "dead_full": 1}
    kept = file.dead(limits)
    assert [letter.event.body for letter in kept.letters] == [e.body for e in given[2:]]
    assert numbers(file) == []


def test_replayed_events_come_behind_all_others_the_oldest_first(file: SqliteFile) -> None:
    store(file, events(1, 5))
    file.dead_letter(letters(file.read(0, 2, 999).events), LIMITS)  # type: ignore[arg-type]
    replayed = file.replay(LIMITS)
    assert (replayed.count, replayed.last) == (2, 7)
    read = file.read(0, 99, 999).events
    assert [event.number for event in read] == [3, 4, 5, 6, 7]
    assert [event.body[:1] for event in read] == [b"3", b"4", b"5", b"1", b"2"]
    assert file.dead(LIMITS).letters == []


def test_what_is_read_is_bounded(file: SqliteFile) -> None:
    store(file, events(1, 100))
    assert len(file.read(0, 7, 1 << 20).events) == 7
    assert [event.number for event in file.read(20, 99, 25).events] == [21, 22, 23]


@pytest.mark.parametrize("left", [0, 1])
def test_a_file_in_which_nothing_waits_keeps_nothing_of_it(tmp_path: Path, left: int) -> None:
    file = opened(tmp_path)
    store(file, [event for n in range(100) for event in events(n, n)])
    secret = events(1, 1)
    secret[0].body = b"secret" * 99
    store(file, secret)
    store(file, delete=[*range(1 + left, 101), 101])
    file.close(keep_empty=True)
    if not left:
        assert b"secret" not in (tmp_path / "a.sqlite").read_bytes()
    again = opened(tmp_path)
    assert len(numbers(again)) == left
    again.close(keep_empty=False)
    assert (tmp_path / "a.sqlite").exists() == bool(left)


def test_files_can_be_read_by_their_owner_only(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        file = opened(tmp_path)
        store(file, events(1, 9))
        modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    finally:
        os.umask(former)
    file.close(keep_empty=True)
    assert modes == {0o600}


# Files of the former format


def full(*_: object) -> None:
    raise OSError("no space")


FORMER = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind INT, key INT, body BLOB, crc INT
);
CREATE TABLE dead (
    seq INTEGER PRIMARY KEY, kind INT, key INT, body BLOB, crc INT,
    reason TEXT, status INT, died_at REAL
);
CREATE TABLE done (seqs TEXT, sum INT);
INSERT INTO sqlite_sequence VALUES ('events', 0);
PRAGMA application_id=1148339574;
PRAGMA journal_mode=WAL
"""


def former_file(folder: Path, done: list[tuple[str, int]]) -> Path:
    """Make a file as version 1 did: twenty events, a dead letter, notes of what is done."""
    path = folder / "drift-old.sqlite"
    path.touch(0o600)
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(FORMER)
    db.execute(f"PRAGMA user_version={kind_number('drift')}")
    for n in range(1, 22):
        body = json.dumps({"n": n}).encode()
        row: list[Any] = [n, 0, n, body, zlib.crc32(body, n)]
        if n == 21:
            row += ["refused", 400, time.time()]
        table = "dead" if n == 21 else "events"
        db.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)
    db.executemany("INSERT INTO done VALUES (?, ?)", done)
    db.close()
    for end in (".mark", ".reserve"):
        path.with_name(path.name + end).write_bytes(b"0" * 20)
    return path


@pytest.mark.parametrize("is_full", [False, True])
def test_nothing_is_lost_of_a_file_of_the_former_format(
    tmp_path: Path, is_full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = former_file(tmp_path, [("[3, 1, 2]", 6), ("[20]", 20)])
    with monkeypatch.context() as patch:
        if is_full:
            patch.setattr(SqliteFile, "_allocate", full)
        file = SqliteFile(path, "drift", time.time)
    assert file._is_current != is_full
    file._db.execute("PRAGMA query_only=1")
    assert numbers(file) == list(range(4, 20))
    summary = file.summary(LIMITS)
    assert (summary.pending, summary.dead) == (16, 1)
    assert [letter.reason for letter in file.dead(LIMITS).letters] == ["refused"]
    file._db.execute("PRAGMA query_only=0")
    store(file, events(1, 1))
    file.close(keep_empty=True)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    again = SqliteFile(path, "drift", time.time)
    assert numbers(again) == [*range(4, 20), 22]
    assert again.replay(LIMITS).count == 1
    assert again._db.execute("SELECT name FROM sqlite_schema WHERE name = 'done'").fetchall() == []
    again.close(keep_empty=True)


def test_a_note_of_what_is_done_that_has_changed_takes_out_nothing(tmp_path: Path) -> None:
    noted = str([5, 16])
    changed = [(noted, 29), (noted, 5)]
    for at in range(len(noted)):
        for bit in range(7):
            other = chr(ord(noted[at]) ^ 1 << bit)
            changed.append((noted[:at] + other + noted[at + 1 :], 21))
    path = former_file(tmp_path, changed)
    file = SqliteFile(path, "drift", time.time)
    assert numbers(file) == list(range(1, 21))
    file.close(keep_empty=True)
