"""Opening ``perdure.db``: pragmas, one writer, migrations with a backup, and errors in Perdure's words.

Knows SQLite and SQLAlchemy; knows nothing of what the rows mean.

SQLite runs in WAL mode with ``synchronous=FULL``: a committed transaction survives the loss of power, and readers
never wait for the writer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

from ..errors import BadInput, DamagedError, StorageError, VersionError
from .schema import HEAD, KNOWN

_BUSY_MS = 10_000
_WRITING = "perdure_writing"
_DAMAGE = ("malformed", "not a database", "could not decode", "disk image")


def open_engine(path: Path, *, read_only: bool, durable: bool = True) -> Engine:
    """An engine on the SQLite file ``path``, in whose transactions readers see one snapshot and never wait.

    Writers take `writing(engine)`: their transactions begin with the write lock, so they never fail half-way to get it.

    Args:
        path: of the file; made if it is not there, unless ``read_only``.
        read_only: nothing is written, and a file on a read-only disk can be read if its last user closed it.
        durable: False for a file that is thrown away: nothing is synced.
    """

    def connect() -> sqlite3.Connection:
        if read_only:
            connection = _connect(path, "mode=ro")
            try:
                connection.execute("SELECT count(*) FROM sqlite_master")
            except sqlite3.OperationalError:
                # SQLite makes a -shm file beside it, which a read-only disk refuses; a cleanly closed one needs none.
                connection.close()
                if path.with_name(f"{path.name}-wal").exists():
                    raise
                connection = _connect(path, "immutable=1")
            return connection
        connection = _connect(path, "mode=rwc")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=4, max_overflow=4)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # The driver's own transaction handling is off (isolation_level=None): it would begin too late for DDL.
        is_writer = connection.get_execution_options().get(_WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")

    return engine


def writing(engine: Engine) -> Engine:
    """The same engine, for transactions that write."""
    return engine.execution_options(**{_WRITING: True})


def scratch_engine(path: Path) -> Engine:
    """An engine on a new file with the newest schema that need not survive anything, for replaying."""
    engine = open_engine(path, read_only=False, durable=False)
    with writing(engine).begin() as tx:
        _run_migrations(tx)
    return engine


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn errors of the database and the file system into `StorageError` with what to do about them.

    Raises:
        DamagedError: the database is not what was written.
        StorageError: the disk refused.
    """
    try:
        yield
    except (sa.exc.DBAPIError, sqlite3.Error, OSError) as error:
        cause: Any = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        if any(sign in str(cause).lower() for sign in _DAMAGE):
            advice = "the file is damaged: restore perdure.db from a copy, `perdure verify` lists what is damaged"
            raise DamagedError(f"{doing} failed: {cause}; {advice}") from error
        raise StorageError(f"{doing} failed: {cause}; {_advice(cause)}") from error


def migrate(engine: Engine, path: Path) -> None:
    """Bring the schema to `HEAD`; an older one is first copied to ``perdure.db.before-HEAD``.

    Raises:
        VersionError: the file was written by a newer Perdure.
        BadInput: the file holds somebody else's tables.
    """
    with engine.connect() as connection:
        current = _revision(connection)
        strangers = [] if current else sa.inspect(connection).get_table_names()
    if current == HEAD:
        return
    if strangers:
        raise BadInput(
            f"{path} is a database of something else (tables {', '.join(strangers[:3])}); nothing was changed: "
            "choose another directory"
        )
    if current is not None and current not in KNOWN:
        raise VersionError(
            f"{path} has schema {current}, this Perdure knows up to {HEAD}; nothing was changed: "
            "install a newer Perdure"
        )
    if current is not None:
        _backup(path, path.with_name(f"{path.name}.before-{HEAD}"))
    with writing(engine).begin() as tx:
        _run_migrations(tx)


def check_revision(engine: Engine, path: Path) -> None:
    """For readers, who may not migrate: raise `VersionError` unless the schema is `HEAD`."""
    with engine.connect() as connection:
        current = _revision(connection)
    if current != HEAD:
        newer = current is not None and current not in KNOWN
        action = "install a newer Perdure" if newer else "open it once for writing: it is then migrated with a backup"
        raise VersionError(f"{path} has schema {current}, expected {HEAD}; {action}")


def _revision(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    value = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if value is None else str(value)


def _run_migrations(tx: Connection) -> None:
    # Alembic takes 0.3 s to import, and only a new or an old directory needs it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = tx
    command.upgrade(config, "head")


def _backup(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def _connect(path: Path, options: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{_quoted(path)}?{options}", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
    return connection


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _advice(cause: BaseException) -> str:
    text = str(cause).lower()
    if "full" in text or "no space" in text:
        return "nothing acknowledged was lost: free some space and try again"
    if "readonly" in text or "read-only" in text:
        return "nothing acknowledged was lost: the disk or directory is read-only, make it writable and try again"
    if "locked" in text:
        return "another process holds the file: close it and try again"
    # SQLite does not say why: "disk I/O error", "unable to open database file".
    return "nothing acknowledged was lost: check that the disk has space, can be written and works, then try again"
