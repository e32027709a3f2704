"""The inspector's page: all that happened is on it, it is safe, small, the same each time, and needs nothing else."""

import base64
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from perdure.agent.inspector import export_page
from perdure.agent.inspector.axis import Mark, lay_out
from perdure.agent.inspector.view import length
from perdure.errors import BadInput
from perdure.memory import Memory, Settings
from perdure.records import Box, Effect, Event, Image, Interval, KeyFrame, Label, OutcomeStatus, Tracklet, Trust

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \" ' & ${x} $title javascript:alert(3)"
VOID = {"meta", "img", "br", "path", "rect", "link", "input"}


class Clock:
    time = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic_us(self) -> int:
        return 0


class Page(HTMLParser):
    """What a browser would see: tags with attributes, words, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes its own tag"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words += data

    def all(self, tag: str, css: str = "") -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag and css in [*attrs.get("class", "").split(" "), ""]]


def picture(seed: int, height: int = 90, width: int = 160) -> Image:
    noise = np.random.default_rng(seed).integers(0, 255, (9, 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def see(memory: Memory, seed: int = 0, text: str = "a bicycle leaves", size: tuple[int, int] = (90, 160)) -> int:
    start = memory.now()
    track = Tracklet(1, start, start + timedelta(seconds=2), ((start, Box(10, 20, 30, 40)),), "bicycle")
    frames = (KeyFrame(start, picture(seed, *size), 0.9), KeyFrame(start, picture(seed + 1, *size), 0.1))
    label = (Label("mountain bike", 0.62),)
    with memory.step() as step:
        step.event(Event(start, start + timedelta(seconds=2), "cam", Trust.SEEN, text, frames, (track,), label))
    return step.records[0].seq


def tell(memory: Memory, text: str, speaker: str = "owner", trust: Trust = Trust.OWNER) -> int:
    with memory.step() as step:
        step.told(text, speaker=speaker, trust=trust)
    return step.records[0].seq


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(tmp_path: Path, clock: Clock) -> Iterator[Memory]:
    with Memory.open(tmp_path / "life", settings=Settings("Europe/Berlin"), clock=clock) as opened:
        yield opened


def page(memory: Memory, path: Path, **given: object) -> Page:
    export_page(memory, path, **given)  # type: ignore[arg-type]
    return Page(path.read_text("utf-8"))


def test_the_page_shows_what_was_seen_told_asked_and_done(memory: Memory, tmp_path: Path) -> None:
    cause, seen = tell(memory, "The keys are in the drawer."), see(memory)
    with memory.step() as step:
        step.note("asked", {"question": "Where are the keys?"})
        step.intent("x", "close_door", {"door": "front"}, Effect.REVERSIBLE, cause)
        step.outcome("x", OutcomeStatus.FAILED, error="it was stuck")
    asked = step.records[0].seq
    answer = {"asked": asked, "text": "In the drawer.", "evidence": [cause], "confidence": 0.9, "reason": "fact"}
    with memory.step() as step:
        step.note("answered", answer)
    found = page(memory, tmp_path / "p.html")
    for said in (
        "a bicycle leaves",
        "Where are the keys?",
        "In the drawer.",
        "close_door",
        "it was stuck",
        "mountain bike",
    ):
        assert said in found.words
    cards = [card["href"] for card in found.all("a", "card")]
    assert cards[:2] == [f"#r{cause}", f"#r{seen}"]
    assert f"#r{asked}" not in cards, "a question is shown with its answer"
    assert len(found.all("a", "bad")) == 1


def test_every_link_leads_to_an_article_and_every_article_is_unique(
    memory: Memory, clock: Clock, tmp_path: Path
) -> None:
    tell(memory, "The keys are in the drawer.")
    clock.time += timedelta(hours=1)
    tell(memory, "The keys are on the shelf.")
    see(memory, text="the drawer is opened")
    found = page(memory, tmp_path / "p.html")
    anchors = [article["id"] for article in found.all("article")]
    assert len(anchors) == len(set(anchors))
    assert {anchor[0] for anchor in anchors} == set("ref")
    hrefs = {link["href"] for link in found.all("a") if link.get("href")}
    assert hrefs - {"#"} <= {f"#{anchor}" for anchor in anchors}
    related = {name for article in found.all("article") for name in article["data-rel"].split()}
    assert related <= set(anchors)


def test_a_fact_shows_both_intervals_and_its_records(memory: Memory, clock: Clock, tmp_path: Path) -> None:
    tell(memory, "The keys are in the drawer.")
    clock.time += timedelta(hours=3)
    tell(memory, "The keys are on the shelf.")
    words = page(memory, tmp_path / "p.html").words
    assert "Mon 2 Mar, 09:00 to Mon 2 Mar, 12:00" in words, "in the agent's zone"
    assert "Mon 2 Mar, 12:00 to now" in words
    assert "Held in the world" in words
    assert "Believed" in words
    assert "Ended by" in words


def test_an_outage_is_a_hatched_band_across_the_axis(tmp_path: Path, clock: Clock) -> None:
    memory = Memory.open(tmp_path / "life", clock=clock)
    tell(memory, "The keys are in the drawer.")
    memory._release()
    clock.time += timedelta(hours=5, minutes=17)
    with Memory.open(tmp_path / "life", clock=clock) as memory:
        found = page(memory, tmp_path / "p.html")
    assert len(found.all("a", "outage")) == 1
    assert "cut off5 h 17 min" in found.words


def test_nothing_that_was_said_becomes_markup(memory: Memory, tmp_path: Path) -> None:
    tell(memory, f"The {EVIL} is in the {EVIL}.", speaker=EVIL, trust=Trust.OTHER)
    tell(memory, f"The keys are in the {EVIL} drawer.")
    see(memory, text=EVIL)
    with memory.step() as step:
        step.note("asked", {"question": EVIL})
        step.note("answered", {"asked": 1, "text": EVIL, "evidence": [], "confidence": 0.0, "reason": EVIL})
        step.intent("x", EVIL, {EVIL: EVIL}, Effect.NONE, None)
        step.outcome("x", OutcomeStatus.FAILED, error=EVIL)
    found = page(memory, tmp_path / "p.html", about=None)
    assert len(found.all("script")) == 1
    assert {name for _, attrs in found.tags for name in attrs if name.startswith("on")} == set()
    assert all(image.get("src", "data:image/jpeg").startswith("data:image/jpeg") for image in found.all("img"))
    assert all(link.get("href", "#").startswith("#") for link in found.all("a"))
    assert found.words.count("<script>alert(1)</script>") >= 8, "it is shown as it was said"


def test_an_asked_about_name_is_escaped_too(memory: Memory, tmp_path: Path) -> None:
    assert len(page(memory, tmp_path / "p.html", about=EVIL).all("script")) == 1


def test_controls_that_reorder_text_are_made_visible(memory: Memory, tmp_path: Path) -> None:
    tell(memory, "pay \u202egnihton\u202c \x00 now")
    text = (tmp_path / "p.html", export_page(memory, tmp_path / "p.html"))[0].read_text("utf-8")
    assert not re.search("[\u202a-\u202e\x00]", text)
    assert "\ufffd" in text


def test_the_page_may_load_nothing_and_run_only_its_own_script(memory: Memory, tmp_path: Path) -> None:
    see(memory)
    export_page(memory, tmp_path / "p.html")
    text = (tmp_path / "p.html").read_text("utf-8")
    policy = next(meta["content"] for meta in Page(text).all("meta") if "http-equiv" in meta)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert not Page(text).all("link")


def test_the_same_memory_gives_the_same_bytes(memory: Memory, tmp_path: Path) -> None:
    for number in range(12):
        tell(memory, f"Box {number} is on shelf {number % 3}.")
    see(memory)
    export_page(memory, tmp_path / "one.html")
    export_page(memory, tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


@pytest.mark.parametrize("budget", [0, 6_000, 60_000, 400_000])
def test_pictures_keep_to_their_budget(memory: Memory, tmp_path: Path, budget: int) -> None:
    for number in range(8):
        see(memory, seed=10 * number, size=(360, 640))
    found = page(memory, tmp_path / "p.html", frame_bytes=budget)
    pictures = [image["src"] for image in found.all("img") if "src" in image]
    assert sum(map(len, pictures)) <= budget
    assert len(pictures) >= min(8, budget // 6_000)
    assert (tmp_path / "p.html").stat().st_size < budget + 80_000


def test_a_picture_is_a_jpeg_and_its_tracks_are_drawn_in_its_own_pixels(memory: Memory, tmp_path: Path) -> None:
    seq = see(memory)
    found = page(memory, tmp_path / "p.html")
    uri = next(image["src"] for image in found.all("img") if image.get("id") == f"p{seq}")
    data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (90, 160, 3)
    assert "0 0 160 90" in [svg.get("viewbox") for svg in found.all("svg")]
    boxes = [[float(box[side]) for side in ("x", "y", "width", "height")] for box in found.all("rect")]
    assert [10, 20, 30, 40] in boxes


def test_a_damaged_frame_leaves_a_gap_and_the_page_is_written(memory: Memory, tmp_path: Path) -> None:
    seq = see(memory)
    blob = memory.journal.get([seq])[seq].blobs[0]
    pack = memory.root / blob.pack
    data = bytearray(pack.read_bytes())
    data[blob.offset + 40] ^= 255
    pack.write_bytes(bytes(data))
    assert "no picture" in page(memory, tmp_path / "p.html").words


def test_an_empty_memory_has_a_page(memory: Memory, tmp_path: Path) -> None:
    words = page(memory, tmp_path / "p.html").words
    assert "Nothing yet." in words
    assert "No facts yet." in words


def test_about_and_when_narrow_the_page(memory: Memory, clock: Clock, tmp_path: Path) -> None:
    tell(memory, "The keys are in the drawer.")
    until = clock.time = clock.time + timedelta(hours=1)
    tell(memory, "The milk is in the fridge.")
    assert "milk" not in page(memory, tmp_path / "p.html", about="keys").words
    assert "milk" not in page(memory, tmp_path / "p.html", when=Interval(None, until)).words
    assert "drawer" not in page(memory, tmp_path / "p.html", when=Interval(until, None), about="milk").words


def test_a_negative_budget_is_refused(memory: Memory, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="frame_bytes"):
        export_page(memory, tmp_path / "p.html", frame_bytes=-1)


def test_cards_of_a_lane_never_overlap_and_time_never_runs_back() -> None:
    start = Clock.time
    times = [start + timedelta(seconds=s) for s in (0, 0, 1, 2, 2, 3600, 90_000)]
    marks = [Mark(n, "ab"[n % 2], time, time, 100) for n, time in enumerate(times)]
    marks.append(Mark(99, "", times[4], times[5], 0))
    axis = lay_out(marks)
    for lane in (0, 1):
        left = [axis.left[n] for n in range(len(times)) if n % 2 == lane]
        assert all(b - a >= 100 for a, b in pairwise(left))
    assert [x for x, _ in axis.stops] == sorted(x for x, _ in axis.stops)
    assert axis.right[99] > axis.left[99]
    assert axis.width > max(axis.left.values()) + 100


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.56, "1.6 s"), (45, "45 s"), (1320, "22 min"), (3600, "1 h"), (19020, "5 h 17 min"), (273600, "3 d 4 h")],
)
def test_a_length_of_time_is_two_units_at_most(seconds: float, text: str) -> None:
    assert length(timedelta(seconds=seconds)) == text
