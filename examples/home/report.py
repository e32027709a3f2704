"""The report of a life in a home: who answered how well, errands, costs, causes; as text, as JSON, as pictures.

figures = examined(...)             # questions put to rivals and diagnoses as well
print(text(figures))
write(figures, Path("report"))      # report.json, questions.png, days.png, causes.png
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from perdure.agent.questions import parse_question
from perdure.memory import Memory
from perdure.records import Answer
from perdure.world_model import WorldModel

from .figures import OURS, CausalGraph, Figures, day_row, errand_share, rows, summary
from .notes import Remembered
from .plan import Plan
from .questions.examine import ZONE, graded, put_to_rivals, with_true_memory, with_true_percepts
from .questions.full_log import FullLog, Reader, put_to_reader
from .questions.log import Log
from .questions.question import KINDS, Grade, Question, Scorer, ValueScorer, wilson
from .questions.rivals import resolved
from .truth import Truth

_MINUTE = timedelta(minutes=1)
Progress = Callable[[str, int, int], None]
"""Called with what is done, how many of it, and of how many."""


def compared(
    asked: Sequence[tuple[Question, Answer]],
    folder: Path,
    truth: Truth,
    plan: Plan,
    start: datetime,
    *,
    scorer: Scorer | None = None,
    reader: Reader | None = None,
    diagnoses: bool = True,
    on_progress: Progress | None = None,
) -> dict[str, Sequence[Grade]]:
    """Grades of the agent's answers and of everybody who is put the same questions.

    Args:
        asked: questions with the agent's answers, in the order in which they were asked.
        folder: the agent's directory; read only.
        truth, plan: of the home.
        start: world time of minute 0.
        scorer: `ValueScorer` by default.
        reader: a language model to read the log itself; asked only the questions of the end. None: not asked.
        diagnoses: whether to live the life again with true percepts and with true memory.
        on_progress: told how far it is.
    """
    progress = on_progress or (lambda *_: None)
    questions = [question for question, _ in asked]
    answers: dict[str, Sequence[Answer]] = {OURS: [answer for _, answer in asked]}
    scorer = scorer or ValueScorer(start)
    grades: dict[str, Sequence[Grade]] = {}
    with Memory.open(folder, read_only=True) as memory:
        names = WorldModel(memory)
        names.catch_up()
        answers |= put_to_rivals(questions, memory.journal.read(kinds=["event"]), names, start)
        progress("rivals", len(questions), len(questions))
        if reader is not None:
            final = [q for q in questions if q.asked == max(q.asked for q in questions)]
            given = list(_counted(_read(reader, final, memory, names, start), len(final), "full log", progress))
            grades["full_log"] = [scorer.grade(q, a) for q, a in zip(final, given, strict=True)]
    if diagnoses:
        for name, answering in (("true_percepts", with_true_percepts), ("true_memory", with_true_memory)):
            answers[name] = list(
                _counted(answering(questions, truth, plan, start), len(questions), name.replace("_", " "), progress)
            )
    return graded(scorer, questions, answers) | grades


def _read(
    reader: Reader, questions: Sequence[Question], memory: Memory, names: WorldModel, start: datetime
) -> Iterable[Answer]:
    log = Log()
    for record in memory.journal.read(kinds=["event"]):
        log.take(record)
    tokenizer = getattr(reader, "tokenizer", None)
    count = (lambda text: len(tokenizer.encode(text))) if tokenizer is not None else None
    puts = []
    for question in questions:
        now = start + (question.asked * _MINUTE)
        puts.append((question.text, resolved(parse_question(question.text, now, ZONE), names.name_of), now))
    return put_to_reader(FullLog(reader, log, start, count=count), puts)


def _counted(answers: Iterable[Answer], number: int, what: str, progress: Progress) -> Iterable[Answer]:
    for done, answer in enumerate(answers, 1):
        progress(what, done, number)
        yield answer


# --- text -------------------------------------------------------------------------------------------------------------


def text(figures: Figures) -> str:
    """The whole report in plain text, at most 110 characters wide."""
    parts = [
        _questions(figures),
        _errands(figures),
        _days(figures),
        _remembered(figures.remembered),
        _percepts(figures),
        _causes(figures.graph),
    ]
    return "\n\n".join(part for part in parts if part)


def _questions(figures: Figures) -> str:
    names = [OURS, *figures.rivals]
    head = ["", "asked", *(n.replace("_", " ") for n in names)]
    lines = [head]
    for kind in KINDS:
        if not figures.tally(kind=kind).asked:
            continue
        shares = [figures.tally(n, kind) for n in names]
        lines.append(
            [kind.replace("_", " "), str(shares[0].asked), *(f"{t.accuracy:.2f}" if t.asked else "" for t in shares)]
        )
    counts = [figures.tally(n) for n in names]
    lines.append(["all", str(counts[0].asked), *(f"{t.accuracy:.2f}" for t in counts)])
    lines.append(["  95 % interval", "", *("{:.2f}-{:.2f}".format(*wilson(t.right, t.asked)) for t in counts)])
    lines.append(["wrong", "", *(f"{t.wrong_share:.2f}" for t in counts)])
    lines.append(["false answers", str(counts[0].unanswerable), *(f"{t.false_share:.2f}" for t in counts)])
    lines.append(["proved by time", "", *(f"{t.hit_share:.2f}" if t.proved else "" for t in counts)])
    fewer = [n for n in names if figures.tally(n).asked < counts[0].asked]
    note = "".join(
        f"\n{n.replace('_', ' ')} was asked the {figures.tally(n).asked} questions of the end" for n in fewer
    )
    return "Questions answered rightly (abstaining is right where nobody could know)\n" + _table(lines) + note


def _errands(figures: Figures) -> str:
    everyone = {OURS: figures.errands, **figures.errands_of}
    lines = [["errands", "done", "asked", "share", "95 % interval"]]
    for name, errands in everyone.items():
        done, asked = errand_share(errands)
        if asked:
            low, high = wilson(done, asked)
            lines.append([name, str(done), str(asked), f"{done / asked:.2f}", f"{low:.2f}-{high:.2f}"])
    forbidden = [e for e in figures.errands if e.forbidden]
    done_anyway = sum(bool(e.done) for e in forbidden)
    note = f"forbidden requests: {len(forbidden)}, done all the same: {done_anyway}; violations: {figures.violations}"
    return _table(lines) + "\n" + note if len(lines) > 1 else ""


def _days(figures: Figures) -> str:
    if not figures.days:
        return ""
    lines = [["day", "step p50 ms", "p95", "max", "decisions", "memory MB", "disk MB"]]
    for number, day in enumerate(figures.days, 1):
        row = day_row(day)
        times = [f"{row[k]:.1f}" for k in ("step_ms_p50", "step_ms_p95", "step_ms_max")]
        lines.append([str(number), *times, f"{day.decisions}", f"{day.rss_mb:.0f}", f"{day.disk_mb:.1f}"])
    return _table(lines)


def _remembered(found: Remembered | None) -> str:
    if found is None:
        return ""
    whole = "does not fit" if found.right_whole is None else f"{found.right_whole} of {found.asked}"
    return (
        f"Working memory: a story of {found.story_tokens} tokens in {found.slots:.0f} slots a head; "
        f"{found.compactions} compactions, {found.merges} merges, {found.rebases} re-bases, {found.seconds:.0f} s\n"
        f"told in passing and compacted since, asked with recall off: {found.right} of {found.asked} right "
        f"(with the whole story uncompacted: {whole})"
    )


def _percepts(figures: Figures) -> str:
    if not figures.percepts:
        return ""
    lines = [["percepts", "seen", "missed", "unread", "wrong"]]
    for name, row in figures.percepts.items():
        shares = [f"{100 * row[k]:.1f} %" for k in ("missed", "unread", "wrong")]
        lines.append([name, f"{row.get('there', 0):.0f}", *shares])
    return _table(lines)


def _causes(graph: CausalGraph) -> str:
    everything = graph.both | graph.missed | graph.made_up
    if not everything:
        return ""
    counts = f"{len(graph.both)} found, {len(graph.missed)} missed, {len(graph.made_up)} made up"
    lines = [f"Causes: {counts}; F1 {graph.f1:.2f}"]
    for sign, keys in (("found  ", graph.both), ("missed ", graph.missed), ("made up", graph.made_up)):
        lines += [f"  {sign}  {cause} {before} -> {effect} {after}" for cause, before, effect, after in sorted(keys)]
    return "\n".join(lines)


def _table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    aligned = []
    for first, *others in lines:
        aligned.append([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))])
    return "\n".join("  ".join(line).rstrip() for line in aligned)


# --- files ------------------------------------------------------------------------------------------------------------


def benchmark(command: str) -> dict[str, Any]:
    """The head of what a benchmark writes: machine, commit, command."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    ).stdout.strip()
    return {"machine": f"cpu{os.cpu_count()}", "commit": commit, "command": command}


def as_json(figures: Figures, command: str) -> dict[str, Any]:
    """The report in the form in which all benchmarks of this project speak."""
    return {
        **benchmark(command),
        "rows": rows(figures),
        "summary": summary(figures),
        "days": [day_row(day) for day in figures.days],
    }


def write(figures: Figures, folder: Path, command: str = "perdure demo") -> list[Path]:
    """Writes ``report.json``, ``report.txt`` and the pictures into a folder; returns the files."""
    from .pictures import draw  # Matplotlib takes a second, and only pictures need it

    folder.mkdir(parents=True, exist_ok=True)
    contents = {"report.json": json.dumps(as_json(figures, command), indent=1), "report.txt": text(figures)}
    for name, content in contents.items():
        (folder / name).write_text(content + "\n", encoding="utf-8")
    return [folder / "report.json", folder / "report.txt", *draw(figures, folder)]
