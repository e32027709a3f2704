"""Puts the inspector's page together: header, time axis, graph, table, details. It writes HTML and one file."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime, timedelta
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from string import Template
from zoneinfo import ZoneInfo

from ...errors import BadInput
from ...memory import Memory
from ...memory.database import translated
from ...memory.directory import write_atomically
from ...records import Interval, Record, Trust
from .axis import Axis, Mark, lay_out
from .details import articles, fact_row, intro
from .drawing import draw_graph
from .pictures import embed_frames
from .view import LANES, View, attribute, length, words

FRAME_BYTES = 3_000_000
"""Most characters of all pictures in a page."""
_LANES = {"seen": ("Seen", 154, 152), "told": ("Told", 96, 184), "said": ("Done", 88, 184)}
"""Name, height and width of cards, in pixels. What was asked and done share a lane."""
_NO_FACTS = '<p class="empty">No facts yet.</p>'
_TOP = 46
_QUIET = timedelta(minutes=5)


def export_page(
    memory: Memory,
    path: Path | str,
    *,
    about: str | None = None,
    when: Interval | None = None,
    limit: int = 200,
    frame_bytes: int = FRAME_BYTES,
) -> None:
    """Write what ``memory`` holds as one HTML file that needs nothing else, replacing ``path`` whole or not at all.

    Args:
        memory: open, also read-only beside a living agent.
        path: the file to write.
        about: show what is connected to this thing; None for the newest of everything.
        when: world time that is shown.
        limit: most records, outages and things together, from 1.
        frame_bytes: most bytes of pictures, from 0.

    Raises:
        BadInput: ``limit`` or ``frame_bytes`` is too small.
        StorageError: the disk refused.
    """
    if frame_bytes < 0:
        raise BadInput(f"expected frame_bytes from 0, got {frame_bytes}")
    view = _view(memory, about, when, limit, frame_bytes)
    text = _write(view, memory, about)
    with translated(f"writing {path}"):
        write_atomically(Path(path), text.encode())


def _view(memory: Memory, about: str | None, when: Interval | None, limit: int, frame_bytes: int) -> View:
    graph = memory.graph(about, when=when, limit=limit)
    nodes = [data for _, data in graph.nodes(data=True) if data["kind"] in LANES]
    found = memory.journal.get(data["seq"] for data in nodes)
    records = {seq: found[seq] for seq in sorted(found)}
    pictures = embed_frames(memory, [record for record in records.values() if record.kind == "event"], frame_bytes)
    newest = next(memory.journal.read(newest_first=True, limit=1)).recorded
    return View(graph, records, pictures, ZoneInfo(memory.settings.zone), newest)


def _write(view: View, memory: Memory, about: str | None) -> str:
    shown = list(view.shown())
    script = _asset("page.js").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    name = memory.root.resolve().stem
    subject = f"what it knows about {words(about, 80)}" if about is not None else "what it remembers"
    drawing = draw_graph(view)
    keys = '<i></i>holds &ensp;<i class="past"></i>no longer holds &ensp;<i class="back"></i>taken back'
    if drawing.things < len(view.things):
        keys += f" &ensp;the newest {drawing.things} of {len(view.things)} things"
    return Template(_asset("page.html")).substitute(
        script_hash=f"sha256-{digest}",
        title=attribute(f"{name}: memory"),
        name=words(name),
        subtitle=f"{subject}, times in {words(memory.settings.zone)}",
        legend=_legend(view, shown),
        life=_life(view, shown),
        timeline_note="in order; quiet time is compressed, each gap says how long it was",
        timeline=_timeline(view, shown),
        graph_note=keys,
        graph=f'<div class="graph">{drawing.svg or _NO_FACTS}</div>',
        table=_table(view),
        intro=intro(view, memory.journal.last_seq()),
        details=articles(view),
        script=script,
    )


def _table(view: View) -> str:
    if not view.facts:
        return ""
    heads = "".join(f"<th>{head}</th>" for head in ("Thing", "What", "Value", "Held", "Believed", "Trust", "Records"))
    rows = "".join(fact_row(view, *fact) for fact in view.facts)
    summary = f"<summary>The same as a table: {len(view.facts)} facts</summary>"
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<details>{summary}<div class="wide">{table}</div></details>'


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


# ---------------------------------------------------------------------- header


def _legend(view: View, shown: list[Record]) -> str:
    kinds = [LANES[record.kind] for record in shown]
    acts = sum(record.kind == "intent" for record in shown)
    counts = [
        ("seen", kinds.count("seen"), "event", "events"),
        ("told", kinds.count("told"), "thing told", "things told"),
        ("said", kinds.count("said"), "question", "questions"),
        ("did", acts, "act", "acts"),
        ("outage", len(view.outages), "outage", "outages"),
        ("thing", len(view.things), "thing", "things"),
        ("fact", len(view.facts), "fact", "facts"),
    ]
    return "".join(f'<li class="{c}"><b>{n}</b> {one if n == 1 else many}</li>' for c, n, one, many in counts if n)


def _life(view: View, shown: list[Record]) -> str:
    """The whole time on the page, true to scale."""
    edges = [time for _, since, until, _ in view.outages for time in (since, until)]
    edges += [time for record in shown for time in (record.start, record.end)]
    if not edges:
        return ""
    first, last = min(edges), max(edges)
    scale = 1000 / ((last - first).total_seconds() or 1.0)

    def bar(css: str, since: datetime, until: datetime, y: int, height: int) -> str:
        x, width = (since - first).total_seconds() * scale, max(2.5, (until - since).total_seconds() * scale)
        return f'<rect class="{css}" x="{min(x, 1000 - width):.1f}" y="{y}" width="{width:.1f}" height="{height}"/>'

    bars = [bar("outage", since, until, 0, 30) for _, since, until, _ in view.outages]
    rows = {"seen": 4, "told": 10, "said": 16, "did": 22}
    bars += [bar(LANES[r.kind], r.start, r.end, rows[LANES[r.kind]], 4) for r in shown]
    scale_note = f"true to scale: {length(last - first)}"
    ends = "".join(f"<span>{text}</span>" for text in (view.moment(first), scale_note, view.moment(last)))
    return (
        '<svg class="life" viewBox="0 0 1000 30" preserveAspectRatio="none" role="img" '
        f'aria-label="Everything on one scale">{"".join(bars)}</svg><div class="ends">{ends}</div>'
    )


# -------------------------------------------------------------------- timeline


def _timeline(view: View, shown: list[Record]) -> str:
    lane_of = {r.seq: _lane(LANES[r.kind]) for r in shown}
    lanes, tops, top = [lane for lane in _LANES if lane in lane_of.values()], {}, _TOP
    for lane in lanes:
        tops[lane], top = top, top + _LANES[lane][1]
    marks = [Mark(r.seq, lane_of[r.seq], r.start, r.end, _LANES[lane_of[r.seq]][2]) for r in shown]
    marks += [Mark(seq, "", since, until, 0) for seq, since, until, _ in view.outages]
    if not marks:
        return '<p class="empty">Nothing yet.</p>'
    axis = lay_out(marks)
    parts = []
    for lane in lanes:
        name, height, _ = _LANES[lane]
        style = f"top:{tops[lane]}px;height:{height}px"
        parts.append(f'<div class="lane {lane}" style="{style}"><span>{name}</span></div>')
    parts += _ticks(view, axis)
    for seq, since, until, clean in view.outages:
        place = f"left:{axis.left[seq]:.0f}px;width:{axis.right[seq] - axis.left[seq]:.0f}px;top:{_TOP}px"
        text = f"<span>{'closed' if clean else 'cut off'}<br>{length(until - since)}</span>"
        parts.append(f'<a class="outage" href="#r{seq}" data-id="r{seq}" style="{place}">{text}</a>')
    for record in shown:
        lane = lane_of[record.seq]
        _, height, width = _LANES[lane]
        place = f"left:{axis.left[record.seq]:.0f}px;top:{tops[lane] + 8}px;width:{width}px;height:{height - 16}px"
        parts.append(_card(view, record, place))
    return f'<div class="track" style="width:{axis.width:.0f}px;height:{top}px">{"".join(parts)}</div>'


def _lane(colour: str) -> str:
    return "said" if colour == "did" else colour


def _ticks(view: View, axis: Axis) -> list[str]:
    """Days, lines with the time where there is room for it, and how long each quiet time was."""
    parts, free, last = [], 0.0, ""
    days: dict[str, float] = {}
    for x, time in axis.stops:
        label, is_new = view.clock(time), view.day(time) not in days
        days.setdefault(view.day(time), x)
        if is_new or (x >= free and label != last):
            parts.append(f'<div class="tick" style="left:{x:.0f}px">{label}</div>')
            last, free = label, x + 62
    for (day, x), end in zip(days.items(), [*list(days.values())[1:], axis.width], strict=True):
        parts.append(f'<div class="day" style="left:{x:.0f}px;width:{end - x:.0f}px"><b>{day}</b></div>')
    outages = [(since, until) for _, since, until, _ in view.outages]
    for (x, time), (next_x, next_time) in pairwise(axis.stops):
        quiet = next_time - time
        if quiet >= _QUIET and next_x - x > 120 and (time, next_time) not in outages:
            style = f"left:{x + 62:.0f}px;width:{next_x - x - 68:.0f}px"
            parts.append(f'<div class="gap" style="{style}"><span>{length(quiet)}</span></div>')
    return parts


def _card(view: View, record: Record, place: str) -> str:
    values, text = record.payload, view.graph.nodes[f"{record.kind}:{record.seq}"]["text"]
    css, small, picture = ["card", LANES[record.kind]], view.clock(record.start), ""
    if record.kind == "event":
        best = view.pictures.get(record.seq, [None])[0]
        blank = '<span class="blank">no picture</span>'
        picture = f'<img id="p{record.seq}" src="{best.uri}" alt="">' if best is not None and best.uri else blank
        small += f" for {length(record.end - record.start)}"
    elif record.kind == "told":
        small += "" if record.trust is Trust.OWNER else f", {words(values['speaker'], 40)}"
        css += [] if record.trust is Trust.OWNER else ["other"]
    elif record.kind == "answered":
        asked = view.records.get(values["asked"])
        small = words(asked.payload["question"], 80) if asked is not None else small
    elif record.kind == "intent":
        text = values["tool"]
        small += "".join(f", {words(name)} {words(value)}" for name, value in values["arguments"].items())
    elif record.kind == "outcome":
        css += [] if values["status"] == "done" else ["bad"]
    label = attribute(f"{view.moment(record.start)}: {text}")
    body = f'<span class="text">{words(text, 160)}</span>'
    body = f"<small>{small}</small>{body}" if record.kind in ("answered", "told") else f"{body}<small>{small}</small>"
    opening = f'<a class="{" ".join(css)}" href="#r{record.seq}" data-id="r{record.seq}" style="{place}"'
    return f'{opening} aria-label="{label}" title="{label}">{picture}{body}</a>'
