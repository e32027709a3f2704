"""The directory: what is not an agent's is refused, what is damaged is said, one process writes."""

import shutil
import subprocess
import sys

import pytest
from perdure.errors import AgentAwakeError, BadInput, DamagedError, StorageError, VersionError
from perdure.memory import Memory, Settings
from perdure.memory.directory import Witness, read_settings, write_atomically


@pytest.fixture
def root(tmp_path):
    """An agent's directory with one thing told, closed."""
    with Memory.open(tmp_path / "agent", settings=Settings("Europe/Berlin", "Anna B.")) as memory:
        with memory.step() as step:
            step.told("The key is in the tin.")
        memory.catch_up()
    return tmp_path / "agent"


_PASSING = ("lock", "perdure.db-shm", "perdure.db-wal")


def content(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name not in _PASSING}


def look_closely(root):
    """Open and verify; raises `DamagedError` at the first, or for what the second finds."""
    with Memory.open(root, read_only=True) as memory:
        if any(problem.place == "perdure.db" for problem in memory.check()):
            raise DamagedError("verify found it")


def refused(root, error, match, **options):
    """Opening raises, says what to do, and changes nothing."""
    before = content(root)
    with pytest.raises(error, match=match):
        Memory.open(root, **options)
    assert content(root) == before


def test_a_directory_keeps_its_settings(root):
    with Memory.open(root, settings=Settings("Asia/Tokyo", "other")) as memory:
        assert memory.settings == Settings("Europe/Berlin", "Anna B.")


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "agent").write_text("hello")
    with pytest.raises(BadInput, match="got the file"):
        Memory.open(tmp_path / "agent")
    assert (tmp_path / "agent").read_text() == "hello"


def test_somebody_elses_folder_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    refused(tmp_path, BadInput, r"it holds thesis\.tex and no AGENT")


def test_somebody_elses_database_is_refused(tmp_path):
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(tmp_path / "perdure.db")) as other:
        other.execute("CREATE TABLE customers (name)")
        other.commit()
    with pytest.raises(BadInput, match=r"something else .tables customers"):
        Memory.open(tmp_path)
    assert not (tmp_path / "AGENT.toml").exists()


@pytest.mark.parametrize("read_only", [False, True])
def test_another_format_is_refused(root, read_only):
    manifest = root / "AGENT.toml"
    manifest.write_text(manifest.read_text().replace("format = 1", "format = 99"))
    refused(root, VersionError, "has format 99.*install", read_only=read_only)


@pytest.mark.parametrize("revision", ["9999", "feed"])
@pytest.mark.parametrize("read_only", [False, True])
def test_an_unknown_schema_is_refused(root, revision, read_only):
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(root / "perdure.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        database.commit()
    with pytest.raises(VersionError, match=f"has schema {revision}.*newer Perdure"):
        Memory.open(root, read_only=read_only)


@pytest.mark.parametrize("text", ["format = ", "\xff", 'format = 1\nzone = "Mars"\n'])
def test_an_unreadable_manifest_is_refused(root, text):
    (root / "AGENT.toml").write_bytes(text.encode("latin-1"))
    refused(root, BadInput, "TOML|zone")


def test_a_lost_manifest_does_not_make_a_new_agent(root):
    (root / "AGENT.toml").unlink()
    with pytest.raises(DamagedError, match=r"AGENT\.toml is missing although 3 records"):
        Memory.open(root)
    with pytest.raises(BadInput, match=r"no AGENT\.toml"):
        Memory.open(root, read_only=True)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_lost_or_empty_database_does_not_begin_a_new_journal(root, read_only):
    (root / "perdure.db").write_bytes(b"")
    refused(root, DamagedError, "is empty.*copy", read_only=read_only)
    (root / "perdure.db").unlink()
    refused(root, DamagedError, "is missing.*copy", read_only=read_only)


def test_a_database_of_rubbish_is_damaged(root):
    (root / "perdure.db").write_bytes(b"rubbish " * 1000)
    refused(root, DamagedError, "not a database.*copy")


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.9])
def test_a_truncated_database_is_damaged(root, part):
    path = root / "perdure.db"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(DamagedError, match=r"restore perdure\.db from a copy|verify found it"):
        look_closely(root)


@pytest.mark.parametrize("what", ["zone = 'x'", "../x", "", "a\nb", '"'])
def test_strange_owners_are_refused(what):
    with pytest.raises(BadInput, match="owner"):
        Settings(owner=what)


def test_a_second_process_is_told_that_the_agent_is_awake(root):
    code = "import sys; from perdure.memory import Memory; Memory.open(sys.argv[1])"
    with Memory.open(root) as memory:
        second = subprocess.run([sys.executable, "-P", "-c", code, root], capture_output=True, text=True, cwd="/")
        assert "AgentAwakeError" in second.stderr
        assert "is awake in process" in second.stderr
        with Memory.open(root, read_only=True) as reader:
            assert reader.journal.last_seq() == memory.journal.last_seq()
        with pytest.raises(AgentAwakeError):
            Memory.open(root)
    Memory.open(root).close()


def test_a_deleted_write_ahead_log_is_noticed_and_can_be_accepted(root):
    memory = Memory.open(root)
    with memory.step() as step:
        step.told("The tin is in the shed.")
    copy = root.with_name("copy")
    shutil.copytree(root, copy)  # as a crash leaves it: the newest records are in the log
    memory.close()
    (copy / "perdure.db-wal").unlink()
    refused(copy, DamagedError, "gone back: it ends at record 3, but record 5 was acknowledged.*delete.*witness")
    with Memory.open(copy, read_only=True) as reader:
        assert [problem.message for problem in reader.check()] == ["records 4 to 5 were acknowledged and are gone"]
    (copy / "witness").unlink()
    with Memory.open(copy) as memory:
        assert memory.check() == []


@pytest.mark.parametrize("text", ["", "00000000000000000009", "00000000000000000009 00000000\n", "\xff"])
def test_a_torn_witness_says_nothing(root, text):
    (root / "witness").write_bytes(text.encode("latin-1"))
    assert Witness(root).read() == 0
    Memory.open(root).close()


def test_a_missing_frames_folder_is_made_again(root):
    shutil.rmtree(root / "frames")
    with Memory.open(root) as memory:
        assert memory.check() == []


def test_settings_are_read_without_opening(root):
    assert read_settings(root).zone == "Europe/Berlin"
    with pytest.raises(BadInput, match="not an agent's directory"):
        read_settings(root.parent)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    (tmp_path / ".file.tmp").mkdir()  # the temporary file cannot be made
    with pytest.raises(OSError, match="directory"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_process_with_no_more_room_is_told_and_loses_nothing(root):
    code = """
import resource, signal, sys
from perdure.errors import StorageError
from perdure.memory import Memory
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Memory.open(sys.argv[1]) as memory:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    told = 0
    try:
        while True:
            with memory.step() as step:
                step.told("word " * 1000)
            told = step.records[0].seq
    except StorageError as error:
        print(told, error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
    run = subprocess.run([sys.executable, "-P", "-c", code, root], capture_output=True, text=True, cwd="/")
    assert run.returncode == 0, run.stderr
    told, message = run.stdout.split(" ", 1)
    assert "nothing acknowledged was lost" in message
    with Memory.open(root) as memory:
        assert memory.journal.newest("told").seq == int(told) > 4
        assert memory.check() == []
        assert memory.outages()[-1].clean


def test_storage_error_is_what_a_read_only_folder_gives(tmp_path, monkeypatch):
    from pathlib import Path

    def refuse(self, *_args, **_options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match="read-only, make it writable"):
        Memory.open(tmp_path / "agent")


@pytest.mark.parametrize("seed", range(8))
def test_whatever_bit_flips_in_the_database_it_is_said_or_changes_nothing(root, seed):
    import random

    chance = random.Random(seed)
    path = root / "perdure.db"
    whole = path.read_bytes()
    with Memory.open(root, read_only=True) as memory:
        truth = list(memory.journal.read())
    for _ in range(12):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            with Memory.open(root, read_only=True) as memory:
                if memory.check() == []:
                    assert list(memory.journal.read()) == truth
                    assert [hit.record.seq for hit in memory.recall("key").hits] == [2]
        except (DamagedError, VersionError, StorageError):
            pass
