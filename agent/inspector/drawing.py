"""Drawing the things and facts of a memory graph as SVG. It knows boxes and lines, not what memory is.

Each connected part is laid out by networkx (Fruchterman-Reingold, fixed seed), its boxes are pushed apart, and the
parts are put on shelves like books. The same graph gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from .view import View, attribute, shorten

_HEIGHT = 30.0
_GAP_X, _GAP_Y = 34.0, 30.0
_MARGIN = 24.0
_MOST_LABEL = 26
_CROWD = 40
"""Edges above which only facts that hold have their names written beside them."""
_RANK = {"held": 0, "past": 1, "back": 2, "revised": 3}
_Edge = tuple[str, str, Mapping[str, Any]]
MOST_THINGS = 150
"""More cannot be told apart."""


class _Box(NamedTuple):
    """A labelled node: its middle and its width, in pixels."""

    x: float
    y: float
    width: float


class Drawing(NamedTuple):
    """The picture, and how much of the view is in it."""

    svg: str
    """"" if there are no facts."""
    things: int
    facts: int


def draw_graph(view: View, *, width: float = 860.0) -> Drawing:
    """Draw the things and facts of ``view``, newest first as far as they can be told apart (`MOST_THINGS`).

    Of facts that say the same for several times only one is drawn: the one that holds, else the newest.

    Args:
        view: what to draw.
        width: pixels to fill before a new shelf is begun.
    """
    edges = _chosen(view)
    if not edges:
        return Drawing("", 0, 0)
    plain = nx.Graph()
    plain.add_nodes_from(node for node in view.things if any(node in edge[:2] for edge in edges))
    plain.add_edges_from((one, other) for one, other, _ in edges)
    labels = {name: shorten(view.graph.nodes[name]["label"], _MOST_LABEL) for name in plain}
    boxes, right, bottom = _shelve([_lay_out(plain.subgraph(part), labels) for part in _parts(plain)], width)
    subjects = {one for one, _, _ in edges}
    drawn = [
        _draw_edge(boxes[one], boxes[other], data, bend, view.state(data), len(edges) > _CROWD)
        for (one, other, data), bend in zip(edges, _bends(edges), strict=True)
    ]
    drawn += [
        _draw_node(view.things[name], view.graph.nodes[name], labels[name], boxes[name], name in subjects)
        for name in plain
    ]
    size = f'width="{right:.0f}" height="{bottom:.0f}" viewBox="0 0 {right:.0f} {bottom:.0f}"'
    svg = f'<svg {size} role="group" aria-label="Graph of things and facts">{_ARROW}{"".join(drawn)}</svg>'
    return Drawing(svg, len(plain), len(edges))


def _chosen(view: View) -> list[_Edge]:
    best: dict[tuple[object, ...], _Edge] = {}
    for one, other, data in view.facts:
        claim = (one, other, data["predicate"], data["negated"])
        if claim not in best or _RANK[view.state(data)] < _RANK[view.state(best[claim][2])]:
            best[claim] = (one, other, data)
    things: set[str] = set()
    edges = []
    for edge in best.values():
        if len(things | set(edge[:2])) <= MOST_THINGS:
            things |= set(edge[:2])
            edges.append(edge)
    return sorted(edges, key=lambda edge: -_RANK[view.state(edge[2])])  # what holds lies on top


_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0.8 7.4 4 0 7.2z" fill="context-stroke"/></marker></defs>'
)


def _parts(plain: nx.Graph) -> list[list[str]]:
    order = {name: place for place, name in enumerate(plain)}
    parts = [sorted(part, key=order.__getitem__) for part in nx.connected_components(plain)]
    return sorted(parts, key=lambda part: (-len(part), order[part[0]]))


def _lay_out(part: nx.Graph, labels: dict[str, str]) -> dict[str, _Box]:
    widths = {name: 24.0 + 7.4 * len(labels[name]) for name in labels if name in part}
    names = [name for name in labels if name in part]
    if len(names) <= 2:
        apart = sum(widths.values()) / 2 + 110
        places = {name: (apart * i, 0.0) for i, name in enumerate(names)}
    else:
        ordered = nx.Graph()
        ordered.add_nodes_from(names)
        ordered.add_edges_from(part.edges)
        side = math.sqrt(len(names))
        unit = nx.spring_layout(ordered, seed=7, iterations=300, k=1.6 / side)
        lying = _lay_down(np.array([unit[name] for name in names]))
        places = {
            name: (float(x) * 128 * side, float(y) * 72 * side) for name, (x, y) in zip(names, lying, strict=True)
        }
    boxes = {name: _Box(*places[name], widths[name]) for name in names}
    return _push_apart(boxes)


def _lay_down(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn points [n, 2] so that they spread most from left to right: pages are wide."""
    centred = points - points.mean(0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    axis = axis if axis[np.abs(axis).argmax()] > 0 else -axis
    turned: NDArray[np.float64] = centred @ np.array([axis, [-axis[1], axis[0]]]).T
    return turned


def _push_apart(boxes: dict[str, _Box]) -> dict[str, _Box]:
    """Move overlapping boxes along the axis on which they overlap less, until none do."""
    names = list(boxes)
    for _ in range(200):
        moved = False
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                a, b = boxes[one], boxes[other]
                over_x = (a.width + b.width) / 2 + _GAP_X - abs(a.x - b.x)
                over_y = _HEIGHT + _GAP_Y - abs(a.y - b.y)
                if over_x <= 0.1 or over_y <= 0.1:
                    continue
                moved = True
                by_x = over_x < over_y
                step = (over_x if by_x else over_y) / 2
                sign = 1.0 if (a.x <= b.x if by_x else a.y <= b.y) else -1.0
                dx, dy = (sign * step, 0.0) if by_x else (0.0, sign * step)
                boxes[one] = a._replace(x=a.x - dx, y=a.y - dy)
                boxes[other] = b._replace(x=b.x + dx, y=b.y + dy)
        if not moved:
            break
    return boxes


def _shelve(parts: list[dict[str, _Box]], width: float) -> tuple[dict[str, _Box], float, float]:
    """Put the parts side by side on shelves; returns all boxes, and the right and bottom edge."""
    placed: dict[str, _Box] = {}
    x, y, shelf, right = _MARGIN, _MARGIN, 0.0, 0.0
    for boxes in parts:
        left = min(box.x - box.width / 2 for box in boxes.values())
        top = min(box.y for box in boxes.values()) - _HEIGHT / 2
        across = max(box.x + box.width / 2 for box in boxes.values()) - left
        down = max(box.y for box in boxes.values()) + _HEIGHT / 2 - top
        if x > _MARGIN and x + across > width - _MARGIN:
            x, y, shelf = _MARGIN, y + shelf + 1.6 * _GAP_Y, 0.0
        placed |= {name: box._replace(x=box.x - left + x, y=box.y - top + y) for name, box in boxes.items()}
        right, shelf = max(right, x + across), max(shelf, down)
        x += across + 1.6 * _GAP_X
    return placed, right + _MARGIN, y + shelf + _MARGIN


def _bends(edges: list[_Edge]) -> list[float]:
    """How far each edge bends, so that edges between the same two nodes lie side by side."""
    pairs: dict[frozenset[str], list[int]] = {}
    for number, (one, other, _) in enumerate(edges):
        pairs.setdefault(frozenset((one, other)), []).append(number)
    bends = [0.0] * len(edges)
    for numbers in pairs.values():
        for place, number in enumerate(numbers):
            one, other, _ = edges[number]
            bend = 44.0 * (place - (len(numbers) - 1) / 2)
            bends[number] = bend if one <= other else -bend
    return bends


def _draw_edge(a: _Box, b: _Box, data: Mapping[str, Any], bend: float, state: str, crowd: bool) -> str:
    if a == b:
        x, y = a.x, a.y - _HEIGHT / 2
        path = f"M{x - 12:.0f} {y:.0f}C{x - 34:.0f} {y - 40:.0f} {x + 34:.0f} {y - 40:.0f} {x + 12:.0f} {y:.0f}"
        label = (x, y - 32)
    else:
        dx, dy = b.x - a.x, b.y - a.y
        length = math.hypot(dx, dy) or 1.0
        middle = ((a.x + b.x) / 2 - dy / length * bend, (a.y + b.y) / 2 + dx / length * bend)
        start, end = _border(a, middle), _border(b, middle)
        path = f"M{start[0]:.0f} {start[1]:.0f}Q{middle[0]:.0f} {middle[1]:.0f} {end[0]:.0f} {end[1]:.0f}"
        label = (start[0] / 4 + middle[0] / 2 + end[0] / 4, start[1] / 4 + middle[1] / 2 + end[1] / 4)
    name = ("not " if data["negated"] else "") + data["predicate"]
    quiet = " quiet" if crowd and state != "held" else ""
    anchor, title = f"f{data['fact']}", attribute(f"{name}: {data['value']}")
    return (
        f'<a class="edge {state}{quiet}" href="#{anchor}" data-id="{anchor}" aria-label="{title}">'
        f'<title>{title}</title><path class="hit" d="{path}"/><path d="{path}" marker-end="url(#arrow)"/>'
        f'<text x="{label[0]:.0f}" y="{label[1] + 4:.0f}">{attribute(name, 20)}</text></a>'
    )


def _border(box: _Box, towards: tuple[float, float]) -> tuple[float, float]:
    """Where the line from the middle of ``box`` to a point leaves the box, with a little air."""
    dx, dy = towards[0] - box.x, towards[1] - box.y
    half_x, half_y = box.width / 2 + 3, _HEIGHT / 2 + 3
    shares = [half / abs(d) for half, d in ((half_x, dx), (half_y, dy)) if abs(d) > 1e-6]
    share = min([*shares, 1.0])
    return box.x + dx * share, box.y + dy * share


def _draw_node(anchor: str, data: Mapping[str, Any], label: str, box: _Box, is_subject: bool) -> str:
    name = attribute(data["label"])
    return (
        f'<a class="node{" root" if is_subject else ""}" href="#{anchor}" data-id="{anchor}" aria-label="{name}">'
        f'<title>{name}</title><rect x="{box.x - box.width / 2:.0f}" y="{box.y - _HEIGHT / 2:.0f}" '
        f'width="{box.width:.0f}" height="{_HEIGHT:.0f}" rx="8"/>'
        f'<text x="{box.x:.0f}" y="{box.y + 4.5:.0f}" text-anchor="middle">{attribute(label)}</text></a>'
    )
