"""Writes ``docs/benchmarks/README.md`` from the JSON files beside it: ``python -P docs/benchmarks/page.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COLUMNS = ("case", "metric", "value", "unit", "spread", "peer", "peer_value", "ratio")


def page() -> str:
    """The page as Markdown; a test compares it with what is committed."""
    parts = [
        "# Benchmarks\n\nMade from the JSON files in this folder by `page.py`. A ratio above 1: Perdure is ahead.\n"
    ]
    for path in sorted(HERE.glob("*.json")):
        found = json.loads(path.read_text("utf-8"))
        parts.append(
            f"## {path.stem}\n\nMachine `{found['machine']}`, commit `{found['commit']}`: `{found['command']}`\n"
        )
        if "torch" in found:
            parts.append(f"torch {found['torch']}, triton {found['triton']}\n")
        if "note" in found:
            parts.append(f"{found['note']}\n")
        several = len({row["bench"] for row in found["rows"]}) > 1
        columns = ("bench", *COLUMNS) if several else COLUMNS
        titles = "| " + " | ".join(name.replace("_", " ") for name in columns) + " |\n|" + " --- |" * len(columns)
        rows = ["| " + " | ".join(_cell(row[name]) for name in columns) + " |" for row in found["rows"]]
        parts.append("\n".join([titles, *rows]) + "\n")
    return "\n".join(parts)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


if __name__ == "__main__":
    (HERE / "README.md").write_text(page(), "utf-8")
