"""Numbered Alembic migrations of ``perdure.db``; `memory.database` runs them, with a backup first."""
