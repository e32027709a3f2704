"""The ``perdure`` command: parse, call the library, print. Text for people, ``--json`` for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from . import __version__
from .errors import AgentAwakeError, BadInput, FadedError, PerdureError, StorageError

if TYPE_CHECKING:
    from .agent import Parts
    from .memory import Memory
    from .records import Answer, Event, Evidence, Hit
    from .runtime.weights import Progress as FetchProgress

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Agents that live for days.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
weights_app = typer.Typer(no_args_is_help=True, help="Model weights: which there are, fetch them, check them.")
bench_app = typer.Typer(no_args_is_help=True, help="Measure; prints a table, writes JSON.")
app.add_typer(weights_app, name="weights")
app.add_typer(bench_app, name="bench")

# Into a file or a pipe, tables are as wide as they need to be.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 180)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The agent's directory.", show_default=False)]
PlannerOption = Annotated[
    str, typer.Option("--planner", help="Catalogue name, GGUF file, folder, Hugging Face id, endpoint URL, or none.")
]
TextEncoderOption = Annotated[str, typer.Option("--text-encoder", help="all-minilm-l6-v2 or none.")]
EncoderOption = Annotated[
    str, typer.Option("--encoder", help="imagenet-bridge, an open_clip model (NAME:FILE, local-dir:DIR), or none.")
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Also write the result here as JSON.")]
AsOfOption = Annotated[str | None, typer.Option("--as-of", help="Answer with what was known then (ISO time).")]
ZoneOption = Annotated[str | None, typer.Option("--zone", help="IANA time zone; the agent's own by default.")]

DEFAULT_PLANNER = "qwen2.5-coder-0.5b-instruct-q4_k_m"
DEFAULT_ENCODER = "imagenet-bridge"
DEFAULT_TEXT_ENCODER = "all-minilm-l6-v2"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``perdure`` command. A `PerdureError` becomes one line on standard error and exit code 1."""
    try:
        app(args=None if arguments is None else list(arguments))
    except PerdureError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(1)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit


# ---------------------------------------------------------------------------- living


@app.command()
def watch(
    video: Annotated[str, typer.Argument(help="Video file, camera:0, or a stream's URL.")],
    agent: Annotated[Path, typer.Option("--agent", metavar="DIR", help="The agent's directory.")],
    encoder: EncoderOption = DEFAULT_ENCODER,
    start: Annotated[
        str | None, typer.Option(help="World time of the first frame (ISO); by default it ends now.")
    ] = None,
    again: Annotated[bool, typer.Option(help="Watch a file that has been watched.")] = False,
) -> None:
    """Watch a video; every event is durable when its line is printed. After a kill it goes on where it stopped."""
    from .agent import Agent

    parts = _parts(None, None, encoder)
    with Agent.open(agent, parts=parts) as watcher:

        def show(event: Event, last_frame: int) -> None:
            out.print(f"{event.start:%H:%M:%S} to frame {last_frame}: {escape(event.text)}")

        report = watcher.watch(video, start=_time(start), again=again, on_event=show)
    if report.stats is None:
        out.print(f"{report.source} has been watched already; --again watches it once more")
        return
    if report.truncated:
        err.print(f"[yellow]warning:[/] {escape(report.source)} breaks off early; what could be read is kept")
    resumed = f", from frame {report.resumed_from} on" if report.resumed_from else ""
    out.print(
        f"{report.events} events from {report.stats.frames_read} frames{resumed}; "
        f"{report.stats.encoded} pictures encoded, "
        f"{report.stats.frames_per_s:.0f} frames/s, at most {report.stats.queue_high_water} frames waiting, "
        f"{report.stats.peak_rss_mb:.0f} MB"
    )


@app.command()
def tell(
    directory: Directory,
    text: Annotated[str, typer.Argument(help="What to remember.")],
    speaker: Annotated[str | None, typer.Option(help="Who says it, if not the owner: then it is data only.")] = None,
    zone: ZoneOption = None,
) -> None:
    """Tell the agent something; it is durable when this returns."""
    from .agent import Agent
    from .memory import Settings
    from .records import Trust

    settings = Settings(zone=zone) if zone else None
    with Agent.open(directory, settings=settings) as listener:
        trust = Trust.OWNER if speaker is None else Trust.OTHER
        told = listener.tell(text, speaker=speaker, trust=trust)
        listener.consolidate()
        out.print(f"remembered as record {told.seq}")
        known = {fact.id: fact for fact in listener.memory.facts()}
        for fact in (known[i] for i in listener.memory.facts_of(told.seq) if i in known):
            word = "not " if fact.negated else ""
            out.print(f"  fact: {escape(fact.subject)} | {escape(fact.predicate)} | {word}{escape(fact.object)}")


@app.command()
def ask(
    directory: Directory,
    question: Annotated[str, typer.Argument(help="In English.")],
    as_of: AsOfOption = None,
    zone: ZoneOption = None,
    planner: PlannerOption = DEFAULT_PLANNER,
    encoder: EncoderOption = DEFAULT_ENCODER,
    text_encoder: TextEncoderOption = DEFAULT_TEXT_ENCODER,
    frames: Annotated[Path | None, typer.Option(help="Write the key frames of the evidence into this folder.")] = None,
    recall: Annotated[
        bool, typer.Option(help="Look things up; --no-recall: the planner alone, after the story of this life.")
    ] = True,
    json_path: JsonOption = None,
) -> None:
    """Ask the agent; prints the answer, its evidence and the reason."""
    from .agent import Agent

    _must_exist(directory)
    parts = _parts(planner, text_encoder, encoder) if recall else _parts_of_one_mind(planner)
    with Agent.open(directory, parts=parts) as answerer:
        answer = answerer.ask(question, as_of=_time(as_of), zone=zone, recall=recall)
        saved = [_save_frame(answerer.memory, item, frames) for item in answer.evidence]
    print_answer(answer, saved)
    _write_json(json_path, {"question": question, **answer_json(answer, saved)})


@app.command()
def recall(
    directory: Directory,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Most hits.")] = 10,
    since: Annotated[str | None, typer.Option(help="Only what happened from then on (ISO time).")] = None,
    until: Annotated[str | None, typer.Option(help="Only what happened before then (ISO time).")] = None,
    encoder: EncoderOption = DEFAULT_ENCODER,
    text_encoder: TextEncoderOption = DEFAULT_TEXT_ENCODER,
    json_path: JsonOption = None,
) -> None:
    """Search memory, also while the agent lives; prints each hit with why it was found."""
    from .records import Interval

    when = Interval(_time(since), _time(until)) if since or until else None
    with _reader(directory, text_encoder, encoder) as memory:
        found = memory.recall(query, when, k)
    if found.abstained:
        out.print(f"nothing found: {escape(found.note)}")
    for hit in found.hits:
        out.print(_hit_line(hit))
    rows = [_hit_json(hit) for hit in found.hits]
    _write_json(json_path, {"query": query, "abstained": found.abstained, "note": found.note, "hits": rows})


@app.command()
def inspect(
    directory: Directory,
    export: Annotated[Path | None, typer.Option(help="Write the picture (.html) or the graph (.graphml) here.")] = None,
    about: Annotated[str | None, typer.Option(help="Only what is connected to this thing.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most nodes.")] = 200,
) -> None:
    """Look inside: counts, projections, outages; ``--export`` writes one self-contained page or GraphML."""
    from .agent.inspector import export_page
    from .memory.graph import export_graphml

    with _reader(directory, None, None) as memory:
        if export is None:
            _print_overview(memory)
        elif export.suffix in {".html", ".htm"}:
            export_page(memory, export, about=about, limit=limit)
            out.print(f"wrote {export} ({export.stat().st_size / 1024:.0f} KiB); open it in any browser")
        elif export.suffix == ".graphml":
            graph = memory.graph(about, limit=limit)
            export_graphml(graph, export)
            out.print(f"wrote {export}: {graph.number_of_nodes()} nodes, {graph.number_of_edges()} edges")
        else:
            raise BadInput(f"expected a name ending in .html or .graphml, got {export.name!r}")


@app.command()
def verify(directory: Directory) -> None:
    """Check journal, packs and projections against their checksums; exit code 1 if anything is wrong."""
    with _reader(directory, None, None) as memory:
        problems = memory.check()
        if not problems and (directory / "kv" / "pages").is_dir():
            from .memory.working.page_file import check_pages

            problems = check_pages(directory, memory.journal)
        records = memory.journal.last_seq()
    for problem in problems:
        out.print(f"{escape(problem.place)}: {escape(problem.message)}\n  -> {escape(problem.repair)}")
    if problems:
        raise typer.Exit(1)
    out.print(f"{records} records, all well")


@app.command()
def rebuild(
    directory: Directory,
    names: Annotated[list[str] | None, typer.Argument(help="Projections; all by default.")] = None,
    text_encoder: TextEncoderOption = DEFAULT_TEXT_ENCODER,
    planner: PlannerOption = DEFAULT_PLANNER,
) -> None:
    """Drop projections and derive them again from the journal; ``pages`` (with the planner) only by name."""
    from .memory import Memory
    from .world_model import checking

    _must_exist(directory)
    with Memory.open(directory, encoders=_encoders(text_encoder, None), upkeep=True) as memory:
        stored = [name for name in names or () if name not in {checking.NAME, "pages"}]
        rebuilt = memory.rebuild(stored) if stored or not names else {}
        if not names or checking.NAME in names:
            rebuilt[checking.NAME] = checking.rebuild(memory)
        if names and "pages" in names:
            from .memory.working.pages import PageStore

            model: Any = _parts(planner, None, None).planner
            count = PageStore(memory.root, model).rebuild(memory.journal)
            out.print(f"pages: {count} made again")
        for name, seq in rebuilt.items():
            out.print(f"{name}: rebuilt up to record {seq}")


@app.command()
def replay(directory: Directory, text_encoder: TextEncoderOption = DEFAULT_TEXT_ENCODER) -> None:
    """Live the journal again in a private place and compare every projection; exit code 1 if one differs."""
    from .memory import Memory
    from .memory.replay import replay as relive
    from .world_model import checking

    report = relive(directory, encoders=_encoders(text_encoder, None))
    with Memory.open(directory, read_only=True) as memory:
        rows = [*report.rows, checking.compare(memory)]
    table = Table("projection", "stored", "replayed", "")
    for row in rows:
        table.add_row(row.name, row.live[:16], row.replayed[:16], "identical" if row.equal else "[red]differs[/]")
    out.print(table)
    out.print(f"{report.records} records replayed")
    if not all(row.equal for row in rows):
        raise typer.Exit(1)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the agent and what it draws go.")] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Which home: plan, looks, people, habits and hidden causes.")] = 1,
    days: Annotated[int, typer.Option(min=1, help="Days of the life.")] = 7,
    planner: PlannerOption = DEFAULT_PLANNER,
    json_path: JsonOption = None,
) -> None:
    """A robot lives a week in a simulated home, does errands, is questioned, and is compared with its rivals."""
    from .examples.home.demo import run

    fetch_missing([DEFAULT_PLANNER] if planner == DEFAULT_PLANNER else [])
    spec = None if planner == "none" else planner
    command = f"perdure demo --seed {seed} --days {days}"
    _write_json(json_path, run(folder, seed=seed, days=days, planner=spec, console=out, command=command))


@app.command()
def doctor() -> None:
    """Say what this machine has: versions, threads, CPU features, weights, disk."""
    from .agent.doctor import examine

    table = Table("what", "found", "fine?")
    findings = examine()
    for finding in findings:
        table.add_row(finding.what, escape(finding.found), "yes" if finding.fine else f"no: {escape(finding.advice)}")
    out.print(table)
    if not all(finding.fine for finding in findings):
        raise typer.Exit(1)


# --------------------------------------------------------------------------- weights


@weights_app.command("list")
def weights_list() -> None:
    """The catalogue: what there is, how large, under which licence, and whether it is here."""
    from .runtime import catalogue, locate

    table = Table("name", "MB", "licence", "here", "sha256")
    for name, entry in catalogue().items():
        path = locate(name)
        size = f"{entry.bytes / 1e6:.1f}"
        table.add_row(name, size, entry.licence, str(path) if path else "no", entry.sha256[:16])
    out.print(table)


@weights_app.command("fetch")
def weights_fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names in the catalogue; the embedded defaults if none.")
    ] = None,
    local: Annotated[Path | None, typer.Option(help="A file or folder that holds the same bytes.")] = None,
) -> None:
    """Fetch weights by content; parts that are there and verified are skipped."""
    from .runtime import DEFAULTS

    _fetch(names or list(DEFAULTS), local)


@weights_app.command("verify")
def weights_verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names in the catalogue; all that are here if none.")
    ] = None,
) -> None:
    """Hash the weights that are here; exit code 1 if one is damaged."""
    from .runtime import verify as verify_weights

    wanted: list[str | None] = list(names) if names else [None]
    found = [status for name in wanted for status in verify_weights(name)]
    for status in found:
        out.print(escape(str(status)))
    if any(status.damaged for status in found):
        raise typer.Exit(1)


# ----------------------------------------------------------------------------- bench


@bench_app.command("planner")
def bench_planner_command(
    planner: Annotated[str, typer.Option(help="GGUF file or catalogue name.")] = DEFAULT_PLANNER,
    threads: Annotated[int | None, typer.Option(help="CPU threads for both; all by default.")] = None,
    repetitions: Annotated[int, typer.Option(min=1)] = 5,
    perplexity_tokens: Annotated[int, typer.Option(min=2, help="llama.cpp needs about 0.1 s for each.")] = 1500,
    json_path: JsonOption = None,
) -> None:
    """Tokens a second and perplexity beside llama.cpp on the same file and threads (needs the extra ``bench``)."""
    from .agent.defaults import located
    from .runtime.bench import bench_planner

    _report_bench(
        bench_planner(
            located(planner, None), threads=threads, repetitions=repetitions, perplexity_tokens=perplexity_tokens
        ),
        json_path,
    )


@bench_app.command("cache")
def bench_cache_command(
    planner: Annotated[str, typer.Option(help="GGUF file or catalogue name.")] = DEFAULT_PLANNER,
    tokens: Annotated[int, typer.Option(min=256, help="Length of the context.")] = 8192,
    ratio: Annotated[float, typer.Option(min=1, help="Tokens of which one slot is left.")] = 10.0,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
    repetitions: Annotated[int, typer.Option(min=1)] = 7,
    json_path: JsonOption = None,
) -> None:
    """Tokens a second, bytes and memory after a context: whole, compacted, and none."""
    from .agent.defaults import located
    from .runtime.bench_cache import bench_cache

    path = located(planner, None)
    _report_bench(bench_cache(path, tokens=tokens, ratio=ratio, threads=threads, repetitions=repetitions), json_path)


@bench_app.command("compaction")
def bench_compaction_command(
    planner: Annotated[str, typer.Option(help="GGUF file, folder or catalogue name.")] = DEFAULT_PLANNER,
    contexts: Annotated[int, typer.Option(min=1, help="Texts.")] = 8,
    tokens: Annotated[int, typer.Option(min=256, help="Of each text.")] = 8192,
    questions: Annotated[int, typer.Option(min=1, help="About each text.")] = 64,
    ratios: Annotated[str, typer.Option(help="Bytes of the whole cache over bytes left.")] = "2,5,10,20,50",
    methods: Annotated[str, typer.Option(help="Comma-separated; the usual ones by default.")] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="What is measured is kept here, so that a run goes on where it stopped.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write accuracy against ratio into this PNG.")] = None,
    json_path: JsonOption = None,
) -> None:
    """Answers, perplexity, attention, bytes and seconds of a compacted cache, by method and ratio, on one cache."""
    from .agent.defaults import located
    from .runtime.bench_compaction import DEFAULT_METHODS, bench_compaction

    result = bench_compaction(
        located(planner, None),
        contexts=contexts,
        tokens=tokens,
        questions=questions,
        ratios=[float(r) for r in ratios.split(",")],
        methods=methods.split(",") if methods else DEFAULT_METHODS,
        device=device,
        threads=threads,
        folder=folder,
        plot=plot,
        say=lambda line: err.print(escape(line)),
    )
    _report_bench(result, json_path)


@bench_app.command("pages")
def bench_pages_command(
    planner: Annotated[str, typer.Option(help="GGUF file or catalogue name.")] = DEFAULT_PLANNER,
    questions: Annotated[int, typer.Option(min=1, help="About long events; half as many about short ones.")] = 200,
    ratios: Annotated[str, typer.Option(help="Tokens of which a page keeps one key.")] = "4,10",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the first set of events.")] = 1,
    json_path: JsonOption = None,
) -> None:
    """Question to first token with ten recalled events, long and short: pages against reading their text."""
    from .agent.defaults import located
    from .memory.working.bench_pages import bench_pages
    from .runtime import load_planner

    model: Any = load_planner(located(planner, None), threads=threads, context_tokens=4096)
    wanted = [float(x) for x in ratios.split(",")]
    rows = []
    for tokens, facts, count, some in ((300, 5, questions, wanted), (45, 1, max(1, questions // 2), wanted[:1])):
        rows += bench_pages(
            model,
            questions=count,
            tokens=tokens,
            facts=facts,
            ratios=some,
            seed=seed,
            say=lambda line: err.print(escape(line)),
        )
    command = f"perdure bench pages --questions {questions} --ratios {ratios} --seed {seed}"
    _report_bench(bench_report(command, rows), json_path)


@bench_app.command("drift")
def bench_drift_command(
    compactions: Annotated[int, typer.Option(min=1, help="Chunks that leave the tail.")] = 1000,
    check_every: Annotated[int, typer.Option(min=1, help="Compactions between two fresh readings.")] = 50,
    context: Annotated[int, typer.Option(help="Tokens of a fresh reading.")] = 8192,
    planner: Annotated[str, typer.Option(help="GGUF file or catalogue name.")] = DEFAULT_PLANNER,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the made-up life.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Also draw a PNG here.")] = None,
    json_path: JsonOption = None,
) -> None:
    """A long life in a small working memory: the error of each compaction, and the distance from a fresh reading."""
    from .agent.defaults import located
    from .memory.working import bench as drift
    from .runtime import load_planner

    model: Any = load_planner(located(planner, None), threads=threads)
    with Progress(TextColumn("{task.description}"), BarColumn(), console=err) as bar:
        task = bar.add_task("compactions", total=compactions)
        found = drift.bench_drift(
            model,
            compactions=compactions,
            check_every=check_every,
            context=context,
            seed=seed,
            on_progress=lambda done: bar.update(task, completed=done),
        )
    if plot is not None:
        drift.draw(found, plot)
    command = f"perdure bench drift --compactions {compactions} --check-every {check_every} --context {context}"
    _report_bench(bench_report(command, drift.rows(found)) | {"series": drift.series(found)}, json_path)


@bench_app.command("perception")
def bench_perception_command(
    video: Annotated[str, typer.Argument(help="Video file.")],
    encoder: EncoderOption = DEFAULT_ENCODER,
    json_path: JsonOption = None,
) -> None:
    """Sustained frames a second, encodes and memory of watching a video."""
    from .perception import bench_perception

    rows = bench_perception(video, _parts(None, None, encoder).image_encoder)
    _report_bench(bench_report(f"perdure bench perception {video}", rows), json_path)


@bench_app.command("life")
def bench_life_command(
    days: Annotated[int, typer.Option(min=2, help="Days of the life.")] = 30,
    seed: Annotated[int, typer.Option(help="Which home.")] = 1,
    folder: Annotated[Path, typer.Option(help="Where the agent lives.")] = Path("demo-output"),
    json_path: JsonOption = None,
) -> None:
    """What a long life costs: step times, memory and disk per day; thinly: no planner, no rivals."""
    from .examples.home.demo import bench_life

    command = f"perdure bench life --days {days} --seed {seed}"
    _report_bench(bench_life(folder, seed=seed, days=days, console=out, command=command), json_path)


# ---------------------------------------------------------------------------- inside


def print_answer(answer: Answer, saved: Sequence[Path | None] = ()) -> None:
    """Print an answer with its evidence for people."""
    out.print(f"[bold]{escape(answer.text)}[/]")
    out.print(f"  because: {escape(answer.reason)} (confidence {answer.confidence:.2f})")
    for item, path in zip(answer.evidence, saved or [None] * len(answer.evidence), strict=True):
        picture = f" -> {path}" if path else ""
        out.print(f"  record {item.seq}, {item.time:%Y-%m-%d %H:%M:%S}Z: {escape(item.text[:120])}{picture}")


def answer_json(answer: Answer, saved: Sequence[Path | None] = ()) -> dict[str, Any]:
    """An answer as JSON values."""
    paths = saved or [None] * len(answer.evidence)
    evidence = [
        {**asdict(item), "frame_file": str(path) if path else None}
        for item, path in zip(answer.evidence, paths, strict=True)
    ]
    value = asdict(answer)
    value["evidence"] = evidence
    return value


def fetch_missing(names: Sequence[str]) -> None:
    """Fetch weights that are not here yet."""
    from .runtime import locate

    _fetch([name for name in names if locate(name) is None], None)


def _fetch(names: Sequence[str], local: Path | None) -> None:
    from .runtime import fetch

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    for name in names:
        with Progress(*columns, console=err) as bar:
            task = bar.add_task(name, total=None)
            got = fetch(name, local=local, progress=_shown_on(bar, task))
        out.print(
            f"{name}: {got.path} ({got.bytes / 1e6:.1f} MB, from {got.source}, sha256 {got.sha256[:16]} verified)"
        )


def _shown_on(bar: Progress, task: TaskID) -> Callable[[FetchProgress], None]:
    def show(state: FetchProgress) -> None:
        bar.update(task, completed=state.done, total=state.total, description=f"{state.name}: {state.doing}")

    return show


def _parts(planner: str | None, text_encoder: str | None, encoder: str | None) -> Parts:
    from .agent import default_parts

    return default_parts(
        planner=None if planner in {None, "none"} else planner,
        text_encoder=None if text_encoder in {None, "none"} else text_encoder,
        image_encoder=None if encoder in {None, "none"} else encoder,
    )


def _parts_of_one_mind(planner: str | None) -> Parts:
    """A planner with a working memory, and nothing to look things up with."""
    from .memory.working.stream import Policy

    return replace(_parts(planner, None, None), working=Policy())


def _encoders(text_encoder: str | None, encoder: str | None) -> Any:
    from .memory import Encoders

    parts = _parts(None, text_encoder, encoder)
    return Encoders(text=parts.text_encoder, picture_text=parts.image_encoder)


@contextmanager
def _reader(directory: Path, text_encoder: str | None, encoder: str | None) -> Iterator[Memory]:
    """Memory for looking only: level if the agent sleeps (it is caught up first), read-only if it is awake."""
    from .memory import Memory

    _must_exist(directory)
    encoders = _encoders(text_encoder, encoder)
    # A living agent catches up itself; what is damaged, or on a read-only disk, is looked at as it is.
    with suppress(AgentAwakeError, StorageError), Memory.open(directory, encoders=encoders, upkeep=True) as memory:
        memory.catch_up()
    with Memory.open(directory, encoders=encoders, read_only=True) as memory:
        yield memory


def _must_exist(directory: Path) -> None:
    from .memory.directory import read_settings

    read_settings(directory)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput(f"expected a time such as 2026-11-23T14:00:00+01:00, got {text!r}") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _save_frame(memory: Memory, item: Evidence, folder: Path | None) -> Path | None:
    if folder is None or item.frame is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"record-{item.seq}.jpg"
    try:
        path.write_bytes(memory.read_blob(item.frame))
    except FadedError as error:
        err.print(f"[yellow]note:[/] {escape(str(error))}")
        return None
    return path


def _hit_line(hit: Hit) -> str:
    why = ", ".join(f"{r.list} #{r.rank}{f' ({r.detail})' if r.detail else ''}" for r in hit.reasons)
    head = f"record {hit.record.seq}, {hit.record.start:%Y-%m-%d %H:%M:%S}Z, {hit.record.kind}"
    return f"{head}: {escape(hit.text[:160])}\n  why: {escape(why)}"


def _hit_json(hit: Hit) -> dict[str, Any]:
    return {
        "seq": hit.record.seq,
        "kind": hit.record.kind,
        "start": hit.record.start,
        "end": hit.record.end,
        "text": hit.text,
        "score": hit.score,
        "reasons": [asdict(reason) for reason in hit.reasons],
    }


def _print_overview(memory: Memory) -> None:
    counts: dict[str, int] = {}
    for record in memory.journal.read():
        counts[record.kind] = counts.get(record.kind, 0) + 1
    table = Table("what", "count")
    for kind, count in sorted(counts.items()):
        table.add_row(kind, str(count))
    out.print(table)
    last = memory.journal.last_seq()
    for name in memory.projections:
        reached = memory.reflects(name)
        out.print(f"{name}: " + ("must be rebuilt" if reached < 0 else f"record {reached} of {last}"))
    for gap in memory.outages():
        start, end = gap.interval.start, gap.interval.end
        out.print(f"{'closed' if gap.clean else 'outage'}: {start:%Y-%m-%d %H:%M:%S}Z to {end:%Y-%m-%d %H:%M:%S}Z")


def bench_report(command: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON object of a benchmark (docs/design.md, section 8)."""
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    return {"machine": f"cpu{os.cpu_count()}", "commit": commit, "command": command, "rows": rows}


def _report_bench(result: dict[str, Any], path: Path | None) -> None:
    table = Table("case", "metric", "value", "unit", "spread", "peer", "peer value", "ratio")
    for row in result["rows"]:
        cells = [row[key] for key in ("case", "metric", "value", "unit", "spread", "peer", "peer_value", "ratio")]
        table.add_row(*(f"{c:.3g}" if isinstance(c, float) else "" if c is None else str(c) for c in cells))
    out.print(table)
    _write_json(path, result)


def _write_json(path: Path | None, value: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(value, indent=1, default=_plain) + "\n", "utf-8")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)  # type: ignore[call-overload]
    return str(value)
