"""The first schema: the journal, its blobs, and the first projections."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

US = sa.BigInteger


def upgrade() -> None:
    op.create_table(
        "records",
        sa.Column("seq", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("kind",)),
        sa.Column("payload", sa.Text, nullable=False),
        *(
            sa.Column(name, US, nullable=False)
            for name in ("start_us", "end_us", "wall_us", "wall_error_us", "monotonic_us")
        ),
        *(sa.Column(name, sa.String, nullable=False) for name in ("boot", "source", "trust", "owner", "zone")),
        sa.Column("checksum", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("records_kind", "records", ["kind", "seq"])
    op.create_index("records_time", "records", ["start_us", "end_us"])
    op.create_table(
        "blobs",
        sa.Column("seq", sa.Integer, sa.ForeignKey("records.seq"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("sha256", "role", "pack")),
        sa.Column("offset", US, nullable=False),
        sa.Column("length", sa.Integer, nullable=False),
    )
    op.create_table(
        "projections",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("producer", sa.String, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
    )
    op.create_table(
        "alive",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("boot", sa.String, nullable=False),
        sa.Column("wall_us", US, nullable=False),
    )
    op.create_table(
        "documents",
        sa.Column("seq", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("owner", "kind", "source")),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("context", sa.Text, nullable=False),
        sa.Column("start_us", US, nullable=False),
        sa.Column("end_us", US, nullable=False),
    )
    op.create_index("documents_time", "documents", ["start_us", "end_us"])
    op.create_index("documents_source", "documents", ["source", "seq"])
    op.execute(
        "CREATE VIRTUAL TABLE documents_fts USING fts5("
        "text, context, content='documents', content_rowid='seq', tokenize='porter unicode61 remove_diacritics 2')"
    )
    op.create_table(
        "facts",
        sa.Column("id", sa.Integer, primary_key=True),
        *(
            sa.Column(name, sa.String, nullable=False)
            for name in (
                "owner",
                "subject",
                "subject_key",
                "predicate",
                "predicate_key",
                "object",
                "object_key",
            )
        ),
        sa.Column("functional", sa.Boolean, nullable=False),
        sa.Column("negated", sa.Boolean, nullable=False),
        sa.Column("by", sa.String),
        sa.Column("trust", sa.String, nullable=False),
        sa.Column("valid_from_us", US),
        sa.Column("valid_to_us", US),
        sa.Column("known_from_us", US, nullable=False),
        sa.Column("known_to_us", US),
    )
    thing = ["owner", "subject_key", "predicate_key", "known_to_us"]
    op.create_index("facts_subject", "facts", [*thing, "valid_to_us"])
    op.create_index("facts_start", "facts", [*thing, "valid_from_us"])
    op.create_index("facts_object", "facts", ["owner", "object_key"])
    op.create_table(
        "fact_sources",
        sa.Column("fact", sa.Integer, sa.ForeignKey("facts.id"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("ends", sa.Boolean, primary_key=True),
        sa.Column("known_us", US, nullable=False),
    )
    op.create_index("fact_sources_seq", "fact_sources", ["seq"])
    op.create_table(
        "claims",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("item", sa.Integer, primary_key=True),
        sa.Column("about", sa.Integer),
        *(
            sa.Column(name, sa.String, nullable=False)
            for name in (
                "owner",
                "subject",
                "subject_key",
                "predicate",
                "predicate_key",
                "object",
                "object_key",
            )
        ),
        sa.Column("functional", sa.Boolean, nullable=False),
        sa.Column("negated", sa.Boolean, nullable=False),
        sa.Column("by", sa.String),
        sa.Column("trust", sa.String, nullable=False),
        *(sa.Column(name, US, nullable=False) for name in ("start_us", "end_us", "known_us")),
        sa.Column("withdrawn_us", US),
    )
    op.create_index("claims_subject", "claims", ["owner", "subject_key", "predicate_key", "start_us"])
    op.create_index("claims_object", "claims", ["owner", "object_key", "predicate_key"])
    op.create_table(
        "unread",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("speaker", sa.String, nullable=False),
        sa.Column("said_us", US, nullable=False),
        sa.Column("zone", sa.String, nullable=False),
        sa.Column("trust", sa.String, nullable=False),
        sa.Column("read", sa.Boolean, nullable=False),
    )
    op.create_index("unread_waiting", "unread", ["owner", "read", "seq"])
    op.create_table(
        "vectors",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("space", sa.String, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("item", sa.Integer, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("start_us", US, nullable=False),
        sa.Column("end_us", US, nullable=False),
        sa.Column("segment", sa.Integer),
        sa.Column("row", sa.Integer),
        sa.Column("value", sa.LargeBinary),
        sa.Column("checksum", sa.LargeBinary, nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
    )
    op.create_index("vectors_space", "vectors", ["space", "segment"])
    op.create_index("vectors_seq", "vectors", ["seq"])
    op.create_table(
        "segments",
        sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("space", "owner", "path")),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("first_seq", sa.Integer, nullable=False),
        sa.Column("last_seq", sa.Integer, nullable=False),
        sa.Column("start_us", US, nullable=False),
        sa.Column("end_us", US, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("bytes", US, nullable=False),
    )
