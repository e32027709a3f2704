"""The inspector: one self-contained HTML page that shows what an agent remembers, and why.

It knows how memory looks to a person: events with their key frames, what was told, answers, acts and outages on one
time axis, things and facts below, and all about each of them beside it. It asks memory for a bounded view
(`memory.Memory.graph`) and the records in it; it does not know SQL.

    page.py      puts the page together
    details.py   what is shown of one record, thing or fact
    axis.py      where on the time axis each item stands
    drawing.py   things and facts as SVG
    pictures.py  key frames within a budget of bytes
    view.py      what all of them look at, and how they write times and links
"""

from .page import FRAME_BYTES, export_page

__all__ = ["FRAME_BYTES", "export_page"]
