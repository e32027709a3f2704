"""The laboratory: lives are cut off, starved or robbed of power at every call to the file system, and inspected.

    python tests/reliability/faults.py [--kills 300] [--power 1] [--json PATH]

prints the table of docs/reliability.md. The tests run `serve` in a child process and send it cases. Each case is two
forks of a process that has everything imported: one lives with the shim (`shim.c`) in front of libc, one inspects.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import logging
import os
import random
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import agent_life
import cv2
import life
from perdure.errors import StorageError

COUNT, KILL_BEFORE, KILL_AFTER, TORN, FAIL_FROM, FAIL_ONCE = range(6)
CREATE, WRITE, SYNC, RENAME, TRUNCATE, UNLINK, MKDIR, RMDIR, NOTE = range(1, 10)
KINDS = ("", "create", "write", "sync", "rename", "truncate", "unlink", "mkdir", "rmdir")
ROUNDS = 2
WORKERS = 2
HERE = Path(__file__).resolve().parent


def build(folder: Path) -> Path:
    """Compile the shim."""
    library = folder / "shim.so"
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "shim.c"), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library


def under_shim(folder: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment that run this file with the shim in front of libc."""
    library = str(build(folder))
    return [sys.executable, str(HERE / "faults.py"), "--shim", library, *arguments], {
        **os.environ,
        "LD_PRELOAD": library,
    }


class Shim:
    """The preloaded shim."""

    def __init__(self, library: str) -> None:
        self._calls = ctypes.CDLL(library)
        self._calls.shim_calls.restype = ctypes.c_long

    def arm(self, root: Path, mode: int, at: int, code: int) -> None:
        self._calls.shim_arm(str(root).encode(), mode, ctypes.c_long(at), code)

    def trace(self, path: Path) -> None:
        self._calls.shim_trace(str(path).encode())

    def note(self, line: str) -> None:
        self._calls.shim_note(line.encode())

    def disarm(self) -> None:
        self._calls.shim_disarm()

    def calls(self) -> int:
        return int(self._calls.shim_calls())


# ------------------------------------------------------------------ one case


AGENT = "a.perdure"


class Lab:
    """Runs cases below a temporary folder. Fork only: nothing in this process opens an agent's directory."""

    def __init__(self, shim: Shim, folder: Path) -> None:
        self.shim = shim
        self.folder = folder

    def cuts(self, mode: int, ats: list[int], code: int = 0, sabotage: str = "") -> list[dict[str, Any]]:
        """For each of ``ats`` one life with one fault at that call, then an inspection."""

        def cut(at: int) -> dict[str, Any]:
            with self._place() as place:

                def prepare() -> None:
                    self.shim.arm(place / "disk", mode, at, code)
                    _break(sabotage)

                reports, status = self._live(place, 0, prepare)
                return self._inspected(place, reports, status, 2) | {"at": at}

        return spread(cut, ats)

    def kills(self, lives: int, each: int, seed: int, longest_s: float) -> list[dict[str, Any]]:
        """``lives`` directories, each lived in again after every one of ``each`` kills at random instants."""

        def life_after_life(number: int) -> list[dict[str, Any]]:
            chance = random.Random(1000 * seed + number)
            reports: list[str] = []
            found = []
            with self._place() as place:
                for kill in range(each):
                    delay_s = chance.uniform(0.0, longest_s)
                    more, status = self._live(place, 2 * kill, lambda: None, kill_after_s=delay_s)
                    reports += more
                    found.append(self._inspected(place, reports, status, 2 * kill + 1) | {"at": delay_s})
            return found

        return [result for life in spread(life_after_life, list(range(lives))) for result in life]

    def power(self, every: int, variants: list[int], sabotage: str = "") -> dict[str, Any]:
        """One life, traced; then the directory as a loss of power after every ``every``-th call could have left it."""
        with self._place() as place:
            entries = self._traced(place, sabotage)
            unexplained = differences(entries, place / "disk")
            total = sum(entry.kind != NOTE for entry in entries)

            def lost(case: tuple[int, int]) -> dict[str, Any]:
                point, variant = case
                with self._place() as other:
                    disk = Disk.after(entries, point)
                    disk.rebuild(place / "disk", other / "disk", variant, point)
                    for line in disk.notes:
                        if line.startswith("world "):
                            life.World(other / "world").act(line.split()[1])
                    return self._inspected(other, disk.notes, 0, 2) | {"at": point, "variant": variant}

            cases = [(point, variant) for point in range(0, total + 1, every) for variant in variants]
            return {"unexplained": unexplained, "calls": total, "cases": spread(lost, cases)}

    def acts(self, mode: int, every: int, kills: int, seed: int) -> list[dict[str, Any]]:
        """An agent with irreversible things to do dies at every ``every``-th call, or ``kills`` times at random
        instants, then lives once more; whatever happened, each thing was done once."""
        with self._place() as place:
            _, status = self._acting(place, 0, lambda: self.shim.arm(place / "disk", COUNT, 0, 0), note="count")
            assert status == 0
            total = int((place / "count").read_text())

        def cut(at: int) -> dict[str, Any]:
            with self._place() as place:
                reports, status = self._acting(place, 0, lambda: self.shim.arm(place / "disk", mode, at, 0))
                return self._finished(place, reports, 2) | {"at": at, "killed": int(status == -signal.SIGKILL)}

        def random_kills(number: int) -> dict[str, Any]:
            chance = random.Random(1000 * seed + number)
            reports: list[str] = []
            killed = 0
            with self._place() as place:
                for generation in range(5):
                    delay_s = chance.uniform(0.0, 0.15)
                    more, status = self._acting(place, 2 * generation, lambda: None, kill_after_s=delay_s)
                    reports += more
                    killed += status == -signal.SIGKILL
                return self._finished(place, reports, 20) | {"at": number, "killed": killed}

        ats = list(range(1, total + 1, every)) if every else []
        return spread(cut, ats) + spread(random_kills, list(range(-(-kills // 5))))

    def _acting(
        self, place: Path, generation: int, prepare: Callable[[], None], *, kill_after_s: float = -1.0, note: str = ""
    ) -> tuple[list[str], int]:
        def child(report: Callable[[str], None]) -> None:
            prepare()
            agent_life.live(place / "disk" / AGENT, life.World(place / "world"), report, generation)
            if note:
                (place / note).write_text(str(self.shim.calls()))

        return forked(child, kill_after_s)

    def _finished(self, place: Path, reports: list[str], generation: int) -> dict[str, Any]:
        more, status = self._acting(place, generation, lambda: None)
        return self._inspected(place, reports + more, status, generation + 1, agent_life.inspect)

    def read_only_disk(self) -> list[str]:
        """What happens to who reads, and who writes, where a closed agent lies on a read-only disk."""
        with self._place() as place:
            root = place / "disk" / AGENT
            reports, _ = self._live(place, 0, lambda: None)

            def child(report: Callable[[str], None]) -> None:
                self.shim.arm(place / "disk", FAIL_FROM, 1, errno.EROFS)
                with life.open_memory(root, 1, read_only=True) as memory:
                    told = [line.split()[2] for line in reports if line.startswith("told ")]
                    report(f"found {[hit.record.kind for hit in memory.recall(told[0], k=1, kinds=['told']).hits]}")
                    report(f"verify {memory.check()}")
                try:
                    life.open_memory(root, 1)
                except StorageError as error:
                    report(f"refused {error}")

            return forked(child)[0]

    def kinds(self) -> list[int]:
        """The kinds of the calls of one whole life, in order."""
        with self._place() as place:
            return [entry.kind for entry in self._traced(place) if entry.kind != NOTE]

    def _traced(self, place: Path, sabotage: str = "") -> list[Entry]:
        def prepare() -> None:
            _break(sabotage)
            self.shim.arm(place / "disk", COUNT, 0, 0)
            self.shim.trace(place / "trace")

        reports, status = self._live(place, 0, prepare, note=True)
        assert status == 0, reports
        return list(read_trace(place / "trace"))

    @contextmanager
    def _place(self) -> Iterator[Path]:
        """A folder with an empty ``disk`` in it; what lies beside that is not the agent's."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            (Path(folder) / "disk").mkdir()
            yield Path(folder)

    def _live(
        self,
        place: Path,
        generation: int,
        prepare: Callable[[], None],
        *,
        kill_after_s: float = -1.0,
        note: bool = False,
    ) -> tuple[list[str], int]:
        def child(report: Callable[[str], None]) -> None:
            prepare()

            def say(line: str) -> None:
                if note:
                    self.shim.note(line)
                report(line)

            live_on(self.shim, place, say, generation)

        return forked(child, kill_after_s)

    def _inspected(
        self, place: Path, reports: list[str], status: int, generation: int, inspect: Any = life.inspect
    ) -> dict[str, Any]:
        def child(report: Callable[[str], None]) -> None:
            world = life.World(place / "world")
            report(json.dumps(inspect(place / "disk" / AGENT, world, reports, generation)))

        lines, ended = forked(child)
        if ended != 0 or not lines:
            return {"wrong": [f"the inspection died: {lines}"], "open_s": 0.0, "records": 0, "status": status}
        wrong = [line for line in reports if line.startswith("unexpected ")]
        result = json.loads(lines[-1])
        refusals = [line for line in reports if line.startswith("refused ")]
        acknowledged = sum(line.startswith("record ") for line in reports)
        killed = int(status == -signal.SIGKILL)
        more = {"status": status, "killed": killed, "refusals": refusals, "acknowledged": acknowledged}
        return result | more | {"wrong": wrong + result["wrong"]}


def _break(promise: str) -> None:
    if promise:
        life.sabotage(promise)


def live_on(shim: Shim, place: Path, report: Callable[[str], None], generation: int) -> None:
    """Live; when the disk refuses, say so, have it work again, and go on: with the same memory if it is open."""
    root, world = place / "disk" / AGENT, life.World(place / "world")

    def refused(error: StorageError) -> None:
        report(f"refused {type(error).__name__} {error}".replace("\n", " "))
        shim.disarm()

    try:
        life.live(root, world, report, generation, ROUNDS, refused)
    except StorageError as error:
        refused(error)
        life.live(root, world, report, generation + 1, 1)


def forked(work: Callable[[Callable[[str], None]], None], kill_after_s: float = -1.0) -> tuple[list[str], int]:
    """Run ``work(report)`` in a fork. Returns the lines that it reported and how it ended (negative: the signal)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            work(lambda line: _send(writing, line))
            os._exit(0)
        except BaseException:  # noqa: BLE001 - whatever it was, the parent hears of it
            _send(writing, "unexpected " + traceback.format_exc().replace("\n", " | "))
            os._exit(4)
    os.close(writing)
    data = b""
    until = time.monotonic() + kill_after_s
    is_killed = kill_after_s < 0
    while True:
        wait_s = None if is_killed else max(0.0, until - time.monotonic())
        if not select.select([reading], [], [], wait_s)[0]:
            os.kill(child, signal.SIGKILL)
            is_killed = True
            continue
        piece = os.read(reading, 65536)
        if not piece:
            break
        data += piece
    os.close(reading)
    _, status = os.waitpid(child, 0)
    return data.decode().splitlines(), os.waitstatus_to_exitcode(status)


def spread(work: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    """``[work(item) for item in items]`` in WORKERS forks; results have a JSON form."""
    pipes, children = [], []
    for worker in range(WORKERS):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with os.fdopen(writing, "w") as out:
                json.dump([work(item) for item in items[worker::WORKERS]], out)
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
        children.append(child)
    found: list[Any] = [None] * len(items)
    for worker, reading in enumerate(pipes):
        with os.fdopen(reading) as lines:
            found[worker::WORKERS] = json.load(lines)
        os.waitpid(children[worker], 0)
    return found


def _send(pipe: int, line: str) -> None:
    os.write(pipe, line.encode() + b"\n")


# ------------------------------------------------------------------ loss of power


@dataclass(frozen=True)
class Entry:
    """A call in a trace."""

    kind: int
    path: str
    other: str
    offset: int
    data: bytes


def read_trace(path: Path) -> Iterator[Entry]:
    """The calls in the order in which they returned."""
    head = struct.Struct("<IIIqq")
    data = path.read_bytes()
    at = 0
    while at < len(data):
        kind, length, other, offset, size = head.unpack_from(data, at)
        at += head.size
        cuts = [at, at + length, at + length + other, at + length + other + size]
        yield Entry(
            kind, data[cuts[0] : cuts[1]].decode(), data[cuts[1] : cuts[2]].decode(), offset, data[cuts[2] : cuts[3]]
        )
        at = cuts[3]


@dataclass
class Node:
    """A file: what was synced, and the changes since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, int, bytes]] = field(default_factory=list)

    def content(self, changes: list[tuple[int, int, bytes]]) -> bytes:
        data = bytearray(self.durable)
        for kind, offset, piece in changes:
            if kind == TRUNCATE:
                data = data[:offset].ljust(offset, b"\0")
            else:
                data = data.ljust(offset + len(piece), b"\0")
                data[offset : offset + len(piece)] = piece
        return bytes(data)

    def sync(self) -> None:
        self.durable, self.pending = bytearray(self.content(self.pending)), []


Names = dict[str, Node | None]
"""Paths with their file; None for a folder."""


@dataclass
class Disk:
    """A file system that keeps what was synced for certain, and of the rest what it likes.

    A name is durable after a sync of its folder, a content after a sync of its file.
    """

    names: Names = field(default_factory=dict)
    durable: Names = field(default_factory=dict)
    pending: list[tuple[str, Callable[[Names], None]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def after(cls, entries: list[Entry], calls: int) -> Disk:
        """The disk after so many calls, and what was reported by then."""
        disk, left = cls(), calls
        for entry in entries:
            if entry.kind == NOTE:
                disk.notes.append(entry.path)
                continue
            if left == 0:
                break
            left -= 1
            disk._take(entry)
        return disk

    def rebuild(self, old: Path, new: Path, variant: int, seed: int) -> list[str]:
        """Write the directory ``old`` as ``new``, and return what had been reported.

        ``variant`` 0: all that was not synced is lost. 1: names are kept, contents lost. 2: contents are kept, names
        lost. From 3: of each folder's names a random first part, and of each file's writes a random choice.
        """
        chance = random.Random(seed * 1000 + variant)
        names = dict(self.names if variant == 1 else self.durable)
        if variant >= 3:
            by_folder = Counter(folder for folder, _ in self.pending)
            left = {folder: chance.randint(0, count) for folder, count in by_folder.items()}
            for folder, change in self.pending:
                if left[folder] > 0:
                    left[folder] -= 1
                    change(names)
        for path in sorted(names):
            target = new / Path(path).relative_to(old)
            node = names[path]
            if not target.parent.is_dir() and target != new:
                continue  # its folder was lost
            if node is None:
                target.mkdir(exist_ok=True)
            elif not path.endswith("-shm"):
                target.write_bytes(node.content(_surviving(node, variant, chance)))
        return self.notes

    def _take(self, entry: Entry) -> None:
        path, kind = entry.path, entry.kind
        if kind in (WRITE, TRUNCATE):
            node = self.names[path]
            assert node is not None
            node.pending.append((kind, entry.offset, entry.data))
        elif kind == SYNC:
            self._sync(path)
        else:
            change = _naming(entry)
            change(self.names)
            if kind in (CREATE, MKDIR):
                made = self.names[path]
                change = lambda names: names.__setitem__(path, made)  # noqa: E731 - the same node in both views
            self.pending.append((str(Path(path).parent), change))

    def _sync(self, path: str) -> None:
        node = self.names.get(path)
        if node is not None:
            node.sync()
            return
        for folder, change in self.pending:
            if folder == path:
                change(self.durable)
        self.pending = [(folder, change) for folder, change in self.pending if folder != path]


def _naming(entry: Entry) -> Callable[[Names], None]:
    path, other = entry.path, entry.other

    def change(names: Names) -> None:
        if entry.kind in (CREATE, MKDIR):
            names[path] = Node() if entry.kind == CREATE else None
        elif entry.kind == RENAME:
            if path in names:
                names[other] = names.pop(path)
        else:
            names.pop(path, None)

    return change


def _surviving(node: Node, variant: int, chance: random.Random) -> list[tuple[int, int, bytes]]:
    if variant == 2:
        return node.pending
    if variant < 3:
        return []
    kept = [change for change in node.pending if chance.random() < 0.6]
    if kept and kept[-1][0] == WRITE and chance.random() < 0.5:
        kind, offset, data = kept[-1]
        kept[-1] = (kind, offset, data[: chance.randrange(0, len(data) + 1)])
    return kept


def differences(entries: list[Entry], root: Path) -> list[str]:
    """Files whose content the trace does not explain; none if nothing escaped the shim."""
    disk = Disk.after(entries, len(entries))
    traced = {path: node.content(node.pending) for path, node in disk.names.items() if node is not None}
    actual = {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return sorted(p for p in {*traced, *actual} if not p.endswith("-shm") and traced.get(p) != actual.get(p))


# ------------------------------------------------------------------ as a server, and as a command


def warm(shim: str) -> Lab:
    """Import everything that a case needs, so that a fork has it."""
    import faiss

    logging.getLogger("perdure").setLevel(logging.ERROR)
    faiss.omp_set_num_threads(1)
    cv2.setNumThreads(1)
    life.shrink()
    lab = Lab(Shim(shim), Path(tempfile.mkdtemp(prefix="perdure-faults-")))
    with lab._place() as place:
        reports: list[str] = []
        live_on(lab.shim, place, reports.append, 0)
        warmed = life.inspect(place / "disk" / AGENT, life.World(place / "world"), reports, 2)
        assert warmed["wrong"] == [], warmed
    with lab._place() as place:
        agent_life.live(place / "disk" / AGENT, life.World(place / "world"), reports.append, 0)
    return lab


def serve(lab: Lab) -> None:
    """Answer requests, one JSON object a line: {"do": method of Lab, "with": arguments}."""
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(lab, request["do"])(**request["with"])), flush=True)


def table(lab: Lab, kills: int, power: int) -> dict[str, Any]:
    """Everything, as rows for docs/reliability.md."""
    kinds = lab.kinds()
    every = list(range(1, len(kinds) + 1))
    writes = [number for number in every if kinds[number - 1] == WRITE]
    rows = []

    def add(name: str, results: list[dict[str, Any]]) -> None:
        opened = sorted(result["open_s"] for result in results)
        wrong = [(result.get("at"), what) for result in results for what in result["wrong"]]
        row = {
            "case": name,
            "cases": len(results),
            "killed": sum(result["killed"] for result in results),
            "refused": sum(bool(result.get("refusals")) for result in results),
            "failed": sum(bool(result["wrong"]) for result in results),
            "open_ms_p50": round(1e3 * statistics.median(opened), 1),
            "open_ms_max": round(1e3 * opened[-1], 1),
        }
        rows.append(row | {"wrong": wrong[:5]})
        print("|", " | ".join(str(value) for value in row.values()), "|", flush=True)
        for place, what in wrong[:5]:
            print("   ", place, what, flush=True)

    print("| what happened | cases | killed | refused by the disk | wrong | open, median ms | open, longest ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    add("killed before each call", lab.cuts(KILL_BEFORE, every))
    add("killed in the middle of each write", lab.cuts(TORN, writes))
    add("disk full from each call on", lab.cuts(FAIL_FROM, every, errno.ENOSPC))
    add("I/O error at each call, once", lab.cuts(FAIL_ONCE, every, errno.EIO))
    add("disk read-only from each call on", lab.cuts(FAIL_FROM, every, errno.EROFS))
    if power:
        lost = lab.power(1, list(range(3 + power)))
        assert lost["unexplained"] == [], lost["unexplained"]
        for variant, name in enumerate(("all unsynced lost", "unsynced contents lost", "unsynced names lost")):
            add(f"power lost, {name}", [case for case in lost["cases"] if case["variant"] == variant])
        add("power lost, a random part of the unsynced kept", [c for c in lost["cases"] if c["variant"] >= 3])
    if kills:
        add("killed at random instants", lab.kills(-(-kills // 10), 10, seed=1, longest_s=0.25))
    add("an agent killed before each call, each act then done once", lab.acts(KILL_BEFORE, 1, 0, 0))
    if kills:
        add("an agent killed 5 times at random, each act then done once", lab.acts(KILL_BEFORE, 0, kills, 1))
    return {"calls": len(kinds), "kinds": Counter(KINDS[kind] for kind in kinds), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--power", type=int, default=2, help="random variants of each loss of power; 0 for none at all")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--shim")
    options = parser.parse_args()
    if options.shim is None:
        with tempfile.TemporaryDirectory() as folder:
            command, environment = under_shim(Path(folder), *sys.argv[1:])
            sys.exit(subprocess.run(command, env=environment).returncode)
    lab = warm(options.shim)
    try:
        if options.serve:
            serve(lab)
            return
        found = table(lab, options.kills, options.power)
        print(json.dumps({key: found[key] for key in ("calls", "kinds")}))
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))
        sys.exit(any(row["failed"] for row in found["rows"]))
    finally:
        shutil.rmtree(lab.folder)


if __name__ == "__main__":
    main()
