"""Packs: what was appended is read back, what was damaged is noticed."""

import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perdure.errors import BadInput, DamagedError
from perdure.memory import packs as packs_module
from perdure.memory.packs import Packs

DAY = datetime(2026, 3, 2, tzinfo=UTC)


@given(batches=st.lists(st.lists(st.binary(max_size=50), max_size=3), max_size=4))
def test_whatever_was_appended_is_read_back(tmp_path_factory, batches):
    packs = Packs(tmp_path_factory.mktemp("agent"))
    stored = [(packs.append("anna", DAY, [("frame", data) for data in batch]), batch) for batch in batches]
    for blobs, batch in stored:
        assert [packs.read(blob) for blob in blobs] == batch


def test_each_owner_and_day_has_its_own_pack(tmp_path):
    packs = Packs(tmp_path)
    paths = {packs.append(owner, DAY.replace(day=day), [("frame", b"x")])[0].pack for owner in "ab" for day in (1, 2)}
    assert paths == {f"frames/{owner}/2026-03-0{day}.pack" for owner in "ab" for day in (1, 2)}


def test_a_flipped_bit_is_noticed_and_the_neighbours_stay_readable(tmp_path):
    packs = Packs(tmp_path)
    first, second = packs.append("anna", DAY, [("frame", b"one"), ("vector", b"two")])
    path = tmp_path / first.pack
    data = bytearray(path.read_bytes())
    data[first.offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=f"byte {first.offset}.*copy"):
        packs.read(first)
    assert packs.read(second) == b"two"


def test_a_torn_end_is_never_written_over(tmp_path):
    packs = Packs(tmp_path)
    (first,) = packs.append("anna", DAY, [("frame", b"one")])
    with (tmp_path / first.pack).open("ab") as file:
        file.write(b"half of an ent")
    (second,) = Packs(tmp_path).append("anna", DAY, [("frame", b"two")])
    assert [packs.read(first), packs.read(second)] == [b"one", b"two"]
    assert second.offset > first.offset + first.length + len(b"half of an ent")


def test_a_short_or_missing_pack_is_damaged(tmp_path):
    packs = Packs(tmp_path)
    (blob,) = packs.append("anna", DAY, [("frame", b"picture")])
    os.truncate(tmp_path / blob.pack, blob.offset + 3)
    with pytest.raises(DamagedError, match="sha256"):
        packs.read(blob)
    (tmp_path / blob.pack).unlink()
    with pytest.raises(DamagedError, match="cannot read"):
        packs.read(blob)


def test_a_name_left_by_a_crash_is_made_durable_before_it_is_used(tmp_path, monkeypatch):
    (tmp_path / "frames" / "anna").mkdir(parents=True)
    (tmp_path / "frames" / "anna" / "2026-03-02.pack").touch()
    synced = []
    monkeypatch.setattr(packs_module, "sync_folder", synced.append)
    Packs(tmp_path).append("anna", DAY, [("frame", b"x")])
    assert synced == [tmp_path / "frames" / "anna", tmp_path / "frames", tmp_path]


@pytest.mark.parametrize("owner", ["", "..", "a/b", "a\0b"])
def test_an_owner_cannot_lead_out_of_the_directory(tmp_path, owner):
    with pytest.raises(BadInput, match="owner"):
        Packs(tmp_path).append(owner, DAY, [("frame", b"x")])
