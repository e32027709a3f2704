"""The tables of ``perdure.db``. Only the room `memory` knows them; `migrations/` builds them step by step.

Truth
    records      the journal: append-only, one row a record, contiguous ``seq`` from 1
    blobs        where the key frames and vectors of a record lie in the packs

Derived (each can be dropped and rebuilt from the journal)
    projections  what each projection reflects, and who produced it
    alive        the last sign of life, so that an outage is dated well
    documents    text of a record as it is searched, and ``documents_fts`` over it
    claims       what was said about things, one row a statement; ``facts`` is derived from it
    facts        bitemporal beliefs with their lineage in ``fact_sources``
    unread       told records that gave no statement by rule, waiting for a language model
    vectors      one row a vector: in the active segment while ``segment`` is null
    segments     sealed, checksummed vector files
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

KNOWN = ("0001",)
"""The migrations, oldest first. A directory that names another one was written by a newer Perdure."""
HEAD = KNOWN[-1]

metadata = MetaData()

records = Table(
    "records",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("payload", Text, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("wall_us", BigInteger, nullable=False),
    Column("wall_error_us", BigInteger, nullable=False),
    Column("monotonic_us", BigInteger, nullable=False),
    Column("boot", String, nullable=False),
    Column("source", String, nullable=False),
    Column("trust", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("zone", String, nullable=False),
    Column("checksum", LargeBinary, nullable=False),
    Index("records_kind", "kind", "seq"),
    Index("records_time", "start_us", "end_us"),
    sqlite_autoincrement=True,
)

blobs = Table(
    "blobs",
    metadata,
    Column("seq", Integer, ForeignKey("records.seq"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("sha256", String, nullable=False),
    Column("role", String, nullable=False),
    Column("pack", String, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", Integer, nullable=False),
)

projections = Table(
    "projections",
    metadata,
    Column("name", String, primary_key=True),
    Column("producer", String, nullable=False),
    Column("seq", Integer, nullable=False),
)

alive = Table(
    "alive",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("boot", String, nullable=False),
    Column("wall_us", BigInteger, nullable=False),
)

documents = Table(
    "documents",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("owner", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("source", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("context", Text, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Index("documents_time", "start_us", "end_us"),
    Index("documents_source", "source", "seq"),
)

facts = Table(
    "facts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("owner", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("subject_key", String, nullable=False),
    Column("predicate", String, nullable=False),
    Column("predicate_key", String, nullable=False),
    Column("object", String, nullable=False),
    Column("object_key", String, nullable=False),
    Column("functional", Boolean, nullable=False),
    Column("negated", Boolean, nullable=False),
    Column("by", String),
    Column("trust", String, nullable=False),
    Column("valid_from_us", BigInteger),
    Column("valid_to_us", BigInteger),
    Column("known_from_us", BigInteger, nullable=False),
    Column("known_to_us", BigInteger),
    Index("facts_subject", "owner", "subject_key", "predicate_key", "known_to_us", "valid_to_us"),
    Index("facts_start", "owner", "subject_key", "predicate_key", "known_to_us", "valid_from_us"),
    Index("facts_object", "owner", "object_key"),
)

fact_sources = Table(
    "fact_sources",
    metadata,
    Column("fact", Integer, ForeignKey("facts.id"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("ends", Boolean, primary_key=True),
    Column("known_us", BigInteger, nullable=False),
    Index("fact_sources_seq", "seq"),
)

claims = Table(
    "claims",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("item", Integer, primary_key=True),
    Column("about", Integer),
    Column("owner", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("subject_key", String, nullable=False),
    Column("predicate", String, nullable=False),
    Column("predicate_key", String, nullable=False),
    Column("object", String, nullable=False),
    Column("object_key", String, nullable=False),
    Column("functional", Boolean, nullable=False),
    Column("negated", Boolean, nullable=False),
    Column("by", String),
    Column("trust", String, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("known_us", BigInteger, nullable=False),
    Column("withdrawn_us", BigInteger),
    Index("claims_subject", "owner", "subject_key", "predicate_key", "start_us"),
    Index("claims_object", "owner", "object_key", "predicate_key"),
)

unread = Table(
    "unread",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("owner", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("speaker", String, nullable=False),
    Column("said_us", BigInteger, nullable=False),
    Column("zone", String, nullable=False),
    Column("trust", String, nullable=False),
    Column("read", Boolean, nullable=False),
    Index("unread_waiting", "owner", "read", "seq"),
)

vectors = Table(
    "vectors",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("space", String, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("item", Integer, nullable=False),
    Column("owner", String, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("segment", Integer),
    Column("row", Integer),
    Column("value", LargeBinary),
    Column("checksum", LargeBinary, nullable=False),
    Column("weight", Float, nullable=False, default=1.0),
    Index("vectors_space", "space", "segment"),
    Index("vectors_seq", "seq"),
)

segments = Table(
    "segments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("space", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("path", String, nullable=False),
    Column("count", Integer, nullable=False),
    Column("first_seq", Integer, nullable=False),
    Column("last_seq", Integer, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("sha256", String, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)

FTS = (
    "CREATE VIRTUAL TABLE documents_fts USING fts5("
    "text, context, content='documents', content_rowid='seq', tokenize='porter unicode61 remove_diacritics 2')"
)
