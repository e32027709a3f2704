"""What the page shows of one record, outage, thing or fact: all of it, and where it comes from. It writes HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ...memory.graph import seqs_of
from ...records import Record, Trust
from .pictures import Picture
from .view import LANES, View, attribute, length, links, words

_MOST_TEXT = 4000
_MOST_HELD = 10
_TRUST = {
    Trust.OWNER: "said by the owner",
    Trust.SEEN: "seen: data, never an instruction",
    Trust.OTHER: "said by somebody else: data, never an instruction",
    Trust.AGENT: "made by the agent itself",
}
_STATE = {
    "held": "believed, and holds",
    "past": "believed, holds no longer",
    "revised": "revised: believed for another time since",
    "back": "taken back: no longer believed",
}
_SHORT = {"revised": "since revised", "back": "taken back"}


def articles(view: View) -> str:
    """Everything that can be chosen on the page, one article each."""
    records = [_record(view, record) for record in view.shown()]
    outages = [_outage(view, *outage) for outage in view.outages]
    things = [_thing(view, node) for node in view.things]
    facts = [_fact(view, *fact) for fact in view.facts]
    return "\n".join([*records, *outages, *things, *facts])


def intro(view: View, total: int) -> str:
    """What is shown while nothing is chosen: what is believed now. ``total``: records in the journal."""
    held = [(subject, data) for subject, _, data in view.facts if view.state(data) == "held"]
    lines = [_fact_link(view, data, subject) for subject, data in held[:_MOST_HELD]]
    more = len(held) - len(lines)
    if more > 0:
        lines.append(f'<span class="mute">and {more} more in the graph</span>')
    believed = f"<h3>Believed now</h3>{links(lines)}" if lines else ""
    shown = sum(1 for _ in view.shown())
    terms = [("Journal", f"{total:,} records, {shown} on this page"), ("Newest", view.moment(view.now))]
    return f"{believed}{_terms(terms)}"


def fact_row(view: View, subject: str, object_: str, data: Mapping[str, Any]) -> str:
    """A row of the table of facts."""
    made = " ".join(_number(view, seq) for seq in seqs_of(data, "evidence"))
    cells = [
        view.thing(subject),
        f'<a href="#f{data["fact"]}">{_predicate(data)}</a>',
        words(data["value"], 80),
        _span(view, data, "valid"),
        _span(view, data, "known"),
        words(data["trust"]),
        made,
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


# --------------------------------------------------------------------- records


def _record(view: View, record: Record) -> str:
    node = f"{record.kind}:{record.seq}"
    body = {"event": _event, "told": _told, "answered": _answered, "intent": _intent}.get(record.kind, _other)(
        view, record
    )
    made = [data for _, _, data in view.facts if record.seq in seqs_of(data, "evidence")]
    ended = [data for _, _, data in view.facts if record.seq in seqs_of(data, "ended_by")]
    named = view.neighbours(node, "mentions")
    used = [
        int(one.partition(":")[2]) for one in view.neighbours(node, "evidence", back=True) if one not in view.things
    ]
    acts = [int(one.partition(":")[2]) for one in view.neighbours(node, "cause", back=True)]
    lists = [
        ("What it taught", [_fact_link(view, data) for data in made]),
        ("What it ended", [_fact_link(view, data) for data in ended]),
        ("Things it names", [view.thing(thing) for thing in named]),
        ("Answers that rest on it", [view.link(seq) for seq in used]),
        ("Acts it caused", [view.link(seq) for seq in acts]),
    ]
    related = [f"f{data['fact']}" for data in [*made, *ended]] + [view.things[thing] for thing in named]
    related += [view.anchors[seq] for seq in [*used, *acts, *_rests_on(view, record)] if seq in view.anchors]
    origin = [
        ("From", words(record.source)),
        ("Trust", _TRUST[record.trust]),
        ("Record", f"{record.seq}, written {view.moment(record.recorded)}"),
    ]
    return _article(f"r{record.seq}", LANES[record.kind], related, body + _lists(lists) + _terms(origin))


def _event(view: View, record: Record) -> str:
    values = record.payload
    pictures = view.pictures.get(record.seq, [])
    shown = _frame(record, pictures[0]) if pictures and pictures[0].uri else ""
    extra = "".join(
        f'<img src="{picture.uri}" alt="Another key frame of this event">' for picture in pictures[1:] if picture.uri
    )
    tracks = values["tracklets"]
    moving = ", ".join(sorted({track["label"] for track in tracks if track["label"]}))
    media = values["media"]
    terms = [
        ("When", f"{view.moment(record.start)} to {view.clock(record.end)} ({length(record.end - record.start)})"),
        ("Moving", f"{len(tracks)} followed{': ' if moving else ''}{words(moving) if moving else ''}"),
        ("Key frames", f"{len(values['key_frames'])} kept"),
    ]
    if "first_frame" in media and "last_frame" in media:
        terms.append(("In the file", f"frames {words(media['first_frame'])} to {words(media['last_frame'])}"))
    meters = "".join(
        f'<div class="meter">{words(name, 60)}<i style="--p:{100 * share:.0f}%"></i><span>{share:.2f}</span></div>'
        for name, share in values["labels"]
    )
    labels = f"<h3>What it looks like</h3>{meters}" if meters else ""
    strip = f'<div class="strip">{extra}</div>' if extra else ""
    title = words(values["text"] or "An event without words", _MOST_TEXT)
    return f'<p class="kicker">Seen</p><h2>{title}</h2>{shown}{strip}{_terms(terms)}{labels}'


def _frame(record: Record, picture: Picture) -> str:
    """The key frame as large as the page has it, with the box of everything that moved then."""
    frame = record.payload["key_frames"][picture.frame]
    boxes = "".join(
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}"/>'
        for x, y, width, height in _boxes_at(record.payload["tracklets"], frame["time_us"])
    )
    overlay = f'<svg viewBox="0 0 {picture.width} {picture.height}" aria-hidden="true">{boxes}</svg>' if boxes else ""
    name = attribute(f"Key frame of: {record.payload['text']}")
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<figure><img data-of="p{record.seq}" {size} style="height:auto" alt="{name}">{overlay}</figure>'


def _boxes_at(tracklets: Iterable[Mapping[str, Any]], time_us: int) -> Iterable[list[float]]:
    for track in tracklets:
        if track["boxes"] and track["start_us"] <= time_us <= track["end_us"]:
            yield min(track["boxes"], key=lambda box: abs(box[0] - time_us))[1:]


def _told(view: View, record: Record) -> str:
    kicker = f"Told by {words(record.payload['speaker'], 60)}"
    return (
        f'<p class="kicker">{kicker}</p>{_quote(record.payload["text"])}{_terms([("When", view.moment(record.start))])}'
    )


def _answered(view: View, record: Record) -> str:
    values = record.payload
    asked = view.records.get(values["asked"])
    question = words(asked.payload["question"], _MOST_TEXT) if asked is not None else f"record {values['asked']}"
    proof = (
        links(view.link(seq) for seq in values["evidence"]) if values["evidence"] else '<p class="mute">Nothing.</p>'
    )
    terms = [
        ("Asked", view.moment((asked or record).start)),
        ("Confidence", f"{values['confidence']:.2f}"),
        ("How", words(values["reason"], 500)),
    ]
    quote = _quote(values["text"])
    return f'<p class="kicker">Asked</p><h2>{question}</h2><br>{quote}{_terms(terms)}<h3>Rests on</h3>{proof}'


def _intent(view: View, record: Record) -> str:
    values = record.payload
    ends = [int(node.partition(":")[2]) for node in view.neighbours(f"intent:{record.seq}", "outcome")]
    lists = [
        ("Because of", [view.link(values["cause"])] if values["cause"] is not None else []),
        ("How it ended", [view.link(seq) for seq in ends]),
    ]
    given = [(words(name, 60), words(value, _MOST_TEXT)) for name, value in values["arguments"].items()]
    terms = [*given, ("Effect", words(values["effect"])), ("When", view.moment(record.start))]
    return f'<p class="kicker">Meant to do</p><h2>{words(values["tool"], 200)}</h2>{_terms(terms)}{_lists(lists)}'


def _other(view: View, record: Record) -> str:
    """A question without an answer, or an outcome."""
    node = f"{record.kind}:{record.seq}"
    text = view.graph.nodes[node]["text"]
    acts = [view.link(int(one.partition(":")[2])) for one in view.neighbours(node, "outcome", back=True)]
    found_out = record.payload.get("how") == "recover"
    kicker = "Asked" if record.kind == "asked" else "Found out on waking" if found_out else "How an act ended"
    terms = _terms([("When", view.moment(record.start))])
    return f'<p class="kicker">{kicker}</p><h2>{words(text, _MOST_TEXT)}</h2>{terms}{_lists([("The act", acts)])}'


def _outage(view: View, seq: int, since: datetime, until: datetime, clean: bool) -> str:
    why = "It had been closed on purpose." if clean else "It was cut off: the process died or the power failed."
    terms = _terms([("Last sign", view.moment(since)), ("Awake again", view.moment(until)), ("Record", str(seq))])
    body = f'<p class="kicker">Away</p><h2>Not running for {length(until - since)}</h2><br><p>{why}</p>{terms}'
    return _article(f"r{seq}", "outage", [], body)


# ---------------------------------------------------------------- things, facts


def _thing(view: View, node: str) -> str:
    own = [(one, data) for one, other, data in view.facts if node in (one, other)]
    seqs = {int(name.partition(":")[2]) for name in view.neighbours(node, "mentions", back=True)}
    seqs |= {seq for _, data in own for seq in seqs_of(data, "evidence")}
    shown = sorted(seq for seq in seqs if seq in view.anchors)
    lists = _lists(
        [
            ("Facts", [_fact_link(view, data, subject) for subject, data in own]),
            ("Where it comes up", [view.link(seq) for seq in shown]),
        ]
    )
    related = [f"f{data['fact']}" for _, data in own] + [view.anchors[seq] for seq in shown]
    name = words(view.graph.nodes[node]["label"], 200)
    return _article(view.things[node], "thing", related, f'<p class="kicker">Thing</p><h2>{name}</h2>{lists}')


def _fact(view: View, subject: str, object_: str, data: Mapping[str, Any]) -> str:
    made, ended = seqs_of(data, "evidence"), seqs_of(data, "ended_by")
    lists = _lists([("Because of", [view.link(seq) for seq in made]), ("Ended by", [view.link(seq) for seq in ended])])
    terms = [
        ("Thing", view.thing(subject)),
        ("Value", view.thing(object_)),
        ("Trust", _TRUST[Trust(data["trust"])]),
        ("State", _STATE[view.state(data)]),
    ]
    if data["by"]:
        terms.append(("By", words(data["by"], 80)))
    title = f"{words(view.graph.nodes[subject]['label'], 200)}, {_predicate(data)}: {words(data['value'], 200)}"
    related = [view.things[subject], view.things[object_]]
    related += [view.anchors[seq] for seq in [*made, *ended] if seq in view.anchors]
    body = f'<p class="kicker">Fact</p><h2>{title}</h2>{_spans(view, data)}{_terms(terms)}{lists}'
    return _article(f"f{data['fact']}", "fact", related, body)


def _spans(view: View, data: Mapping[str, Any]) -> str:
    """Both intervals as bars on one scale: from the oldest time on the page to now."""
    times = [record.start for record in view.records.values()]
    times += [
        datetime.fromisoformat(fact[name])
        for *_, fact in view.facts
        for name in ("valid_from", "known_from")
        if fact[name]
    ]
    first, last = min(times), max([*times, view.now])
    whole = (last - first).total_seconds() or 1.0

    def percent(iso: str, unbounded: float) -> float:
        if not iso:
            return unbounded
        return min(100.0, max(0.0, 100 * (datetime.fromisoformat(iso) - first).total_seconds() / whole))

    bars = ""
    for name, said in (("valid", "Held in the world"), ("known", "Believed")):
        a, b = percent(data[f"{name}_from"], 0.0), 100 - percent(data[f"{name}_to"], 100.0)
        bars += f"<p><span>{said}</span><span>{_span(view, data, name)}</span></p>"
        bars += f'<div class="{name}"><i style="--a:{min(a, 99.0):.1f}%;--b:{min(b, 99.0):.1f}%"></i></div>'
    return f'<div class="spans">{bars}</div>'


def _span(view: View, data: Mapping[str, Any], name: str) -> str:
    def short(iso: str, unbounded: str) -> str:
        moment = datetime.fromisoformat(iso) if iso else None
        return f"{view.day(moment)}, {view.clock(moment, seconds=False)}" if moment is not None else unbounded

    return f"{short(data[f'{name}_from'], 'before')} to {short(data[f'{name}_to'], 'now')}"


# ------------------------------------------------------------------- fragments


def _rests_on(view: View, record: Record) -> list[int]:
    values = record.payload
    match record.kind:
        case "answered":
            return list(values["evidence"])
        case "intent":
            ends = view.neighbours(f"intent:{record.seq}", "outcome")
            return [int(node.partition(":")[2]) for node in ends] + [values["cause"]] * (values["cause"] is not None)
        case "outcome":
            return [
                int(node.partition(":")[2]) for node in view.neighbours(f"outcome:{record.seq}", "outcome", back=True)
            ]
        case _:
            return []


def _article(anchor: str, colour: str, related: Iterable[str], body: str) -> str:
    together = " ".join(dict.fromkeys(related))
    return f'<article id="{anchor}" class="{colour}" data-rel="{together}">{body}</article>'


def _quote(text: str) -> str:
    more = f'<p class="mute">and {len(text) - _MOST_TEXT:,} more characters</p>' if len(text) > _MOST_TEXT else ""
    return f"<blockquote>{words(text, _MOST_TEXT)}</blockquote>{more}"


def _terms(pairs: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in pairs)}</dl>"


def _lists(lists: Iterable[tuple[str, list[str]]]) -> str:
    return "".join(f"<h3>{title}</h3>{links(lines)}" for title, lines in lists if lines)


def _predicate(data: Mapping[str, Any]) -> str:
    return words(("not " if data["negated"] else "") + data["predicate"], 60)


def _fact_link(view: View, data: Mapping[str, Any], subject: str | None = None) -> str:
    name = f"{words(view.graph.nodes[subject]['label'], 60)}, " if subject is not None else ""
    text = f"{name}{_predicate(data)}: {words(data['value'], 80)}"
    state = view.state(data)
    note = f", {_SHORT[state]}" if state in _SHORT else ""
    return f'<a href="#f{data["fact"]}">{text}<small>{_span(view, data, "valid")}{note}</small></a>'


def _number(view: View, seq: int) -> str:
    return f'<a href="#{view.anchors[seq]}">{seq}</a>' if seq in view.anchors else str(seq)
