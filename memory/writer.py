"""The one thread that writes. Everything durable goes through it, one transaction at a time, in the order of asking."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy.engine import Connection, Engine

from ..errors import PerdureError
from .database import translated, writing

_T = TypeVar("_T")


class Writer:
    """Runs functions in transactions on its own thread; `do` returns when the transaction is durable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = writing(engine)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="perdure-writer")
        self._thread = self._pool.submit(threading.get_ident).result()

    def do(self, work: Callable[[Connection], _T]) -> _T:
        """Run ``work(tx)``; commit if it returns, roll back if it raises.

        Raises:
            StorageError: the disk refused; nothing of this transaction is stored.
            PerdureError: this writer has been closed.
        """
        assert threading.get_ident() != self._thread, "a transaction inside a transaction"
        try:
            running = self._pool.submit(self._run, work)
        except RuntimeError as error:
            raise PerdureError("this memory has been closed; open it again to write") from error
        return running.result()

    def close(self) -> None:
        self._pool.shutdown()

    def _run(self, work: Callable[[Connection], _T]) -> _T:
        with translated("writing to the journal"), self._engine.begin() as tx:
            return work(tx)
