"""Every error that Perdure raises on purpose.

    PerdureError
    ├── BadInput             (also a ValueError) something the caller passed cannot be used
    ├── StorageError         the disk refused: full, read-only, I/O error; nothing acknowledged was lost
    │   └── DamagedError     stored truth (journal or pack) fails its checksum
    ├── FadedError           a picture was given up to keep to a budget; what it showed stays in words
    ├── AgentAwakeError      another process owns the directory
    ├── VersionError         the directory was written by a newer Perdure
    ├── StaleProjectionError a projection has not caught up and must not answer
    └── WeightsError         weights cannot be had, or are not what their hash says

A message says what was expected, what came, and what to do.
"""

from __future__ import annotations


class PerdureError(Exception):
    """Base of all errors raised on purpose."""


class BadInput(PerdureError, ValueError):
    """Something the caller passed cannot be used."""


class StorageError(PerdureError):
    """The disk refused; nothing acknowledged was lost."""


class DamagedError(StorageError):
    """The journal or a pack fails its checksum."""


class FadedError(PerdureError):
    """A picture was given up to keep to a budget; what it showed stays in words."""


class AgentAwakeError(PerdureError):
    """Another process owns the directory."""


class VersionError(PerdureError):
    """The directory was written by a newer Perdure."""


class StaleProjectionError(PerdureError):
    """A projection has not caught up with the journal, so it must not answer."""


class WeightsError(PerdureError):
    """Weights cannot be had, or are not what their hash says."""
