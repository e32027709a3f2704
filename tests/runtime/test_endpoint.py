"""An OpenAI-compatible endpoint, against a real little server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from perdure.errors import BadInput
from perdure.runtime import load_planner
from perdure.runtime.endpoint import EndpointError, EndpointPlanner

ASK = [{"role": "user", "content": "Where are the keys?"}]


class Handler(BaseHTTPRequestHandler):
    """Streams the pieces of its server's answer as vLLM and llama.cpp do."""

    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body, self.headers.get("Authorization")))
        self.send_response(self.server.status)
        self.end_headers()
        if self.server.status != 200:
            self.wfile.write(b'{"error": "no such model"}')
            return
        try:
            for piece in self.server.pieces:
                self._event({"choices": [{"delta": {"content": piece}, "finish_reason": None}]})
            self._event({"choices": [{"delta": {}, "finish_reason": self.server.reason}]})
            self._event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": len(self.server.pieces)}})
            self.wfile.write(b"data: [DONE]\n\n")
        except ConnectionError:
            self.server.broken.set()

    def _event(self, value: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pieces = ["On the ", "table."]
        self.reason, self.status = "stop", 200
        self.seen: list[tuple[str, dict[str, Any], str | None]] = []
        self.broken = threading.Event()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def planner(server: Server) -> EndpointPlanner:
    made = load_planner(f"http://127.0.0.1:{server.server_address[1]}/v1#small")
    assert isinstance(made, EndpointPlanner)
    return made


def test_an_answer_is_streamed_and_counted(server: Server) -> None:
    pieces: list[str] = []
    done = planner(server).chat(ASK, max_tokens=7, temperature=0.5, seed=3, on_text=pieces.append)
    assert done.text == "On the table."
    assert pieces == ["On the ", "table."]
    assert (done.prompt_tokens, done.new_tokens, done.stopped) == (9, 2, "end")
    path, body, _ = server.seen[0]
    assert path == "/v1/chat/completions"
    assert (body["model"], body["max_tokens"], body["seed"], body["messages"]) == ("small", 7, 3, ASK)


def test_a_schema_is_sent_and_the_answer_checked(server: Server) -> None:
    server.pieces = ['{"a"', ":1}"]
    assert json.loads(planner(server).chat(ASK, schema={"type": "object"}).text) == {"a": 1}
    assert server.seen[0][1]["response_format"]["json_schema"]["schema"] == {"type": "object"}
    server.pieces = ["sorry"]
    with pytest.raises(EndpointError, match="ignores response_format"):
        planner(server).chat(ASK, schema={"type": "object"})


def test_running_out_of_tokens_is_told(server: Server) -> None:
    server.reason = "length"
    assert planner(server).chat(ASK).stopped == "length"


def test_cancelling_closes_the_connection(server: Server) -> None:
    server.pieces, cancel = ["word " * 1000] * 2000, threading.Event()
    done = planner(server).chat(ASK, cancel=cancel, on_text=lambda text: cancel.set())
    assert done.stopped == "cancelled"
    assert server.broken.wait(10)


def test_a_key_is_sent_as_bearer(server: Server) -> None:
    EndpointPlanner(f"http://127.0.0.1:{server.server_address[1]}/v1", api_key="k").chat(ASK)
    assert server.seen[0][2] == "Bearer k"


def test_refusals_and_silence_are_told(server: Server) -> None:
    server.status = 404
    with pytest.raises(EndpointError, match=r"HTTP 404.*no such model"):
        planner(server).chat(ASK)
    with pytest.raises(EndpointError, match="is it running"):
        EndpointPlanner("http://127.0.0.1:1/v1").chat(ASK)


def test_what_the_protocol_cannot_carry_is_refused(server: Server) -> None:
    with pytest.raises(BadInput, match="Lark"):
        planner(server).chat(ASK, lark='start: "a"')
    with pytest.raises(BadInput, match="http"):
        EndpointPlanner("http://")
    with pytest.raises(BadInput, match="message"):
        planner(server).chat([])
