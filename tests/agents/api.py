"""A small server that answers as the APIs of Anthropic and OpenAI do, in a process of its own.

    python api.py HOST DIRECTORY

What it does stands in the directory, so that it can also be used from outside of the network that
it is in: `refuse` has a status to answer with, while `hold` exists only the first part of an answer
is given, and `asked.jsonl` gets every request.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs

PIECES = ("The answer ", "is 42.")


@attrs.frozen
class Api:
    """A running server, seen from a test."""

    url: str
    directory: Path

    def refuse(self, status: int) -> None:
        """Answer with a status instead of 200 from now on."""
        (self.directory / "refuse").write_text(str(status))

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Give only the first part of answers until the block ends."""
        hold = self.directory / "hold"
        hold.touch()
        try:
            yield
        finally:
            hold.unlink()

    def prompts(self) -> list[str]:
        """What users said in the last request, one text each."""
        *_, last = (self.directory / "asked.jsonl").read_text().splitlines()
        return list(_said(json.loads(last)))


@contextlib.contextmanager
def serving(directory: Path, host: str = "127.0.0.1", inside: Sequence[str] = ()) -> Iterator[Api]:
    """Serve until the block ends.

    Args:
        directory: an empty one.
        host: address to listen on.
        inside: what to start the server with, for instance `nsenter` and its arguments.
    """
    command = [*inside, sys.executable, __file__, host, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Api(f"http://{host}:{int(process.stdout.readline())}", directory)
        finally:
            process.kill()


def _said(body: Any) -> Iterator[str]:
    """Every text that a user said in a request."""
    for message in body.get("messages") or body.get("input") or ():
        if message.get("role") == "user":
            content = message["content"]
            parts = [{"text": content}] if isinstance(content, str) else content
            yield from (part["text"] for part in parts if "text" in part)


class Server(ThreadingHTTPServer):
    """The server; handlers find the directory there."""

    def __init__(self, host: str, directory: Path) -> None:
        self.directory = directory
        super().__init__((host, 0), Handler)


class Handler(BaseHTTPRequestHandler):
    """Answers requests for an answer, and nothing else."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Say nothing."""

    def do_GET(self) -> None:
        self._json(404, {"error": {"type": "not_found_error", "message": "there is nothing here"}})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        streams = {"/v1/messages": anthropic, "/v1/responses": openai}
        stream = streams.get(self.path.partition("?")[0])
        refuse = self.server.directory / "refuse"
        if stream is None:
            self.do_GET()
        elif refuse.exists():
            kind = {"type": "authentication_error", "message": "invalid x-api-key"}
            self._json(int(refuse.read_text()), {"type": "error", "error": kind})
        else:
            with (self.server.directory / "asked.jsonl").open("ab") as file:
                file.write(text.replace(b"\n", b" ") + b"\n")
            self._stream(stream(json.loads(text), self._pieces()))

    def _pieces(self) -> Iterator[str]:
        first, *rest = PIECES
        yield first
        while (self.server.directory / "hold").exists():
            time.sleep(0.01)
        yield from rest

    def _json(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _stream(self, events: Iterator[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in events:
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
        self.close_connection = True


def anthropic(body: dict[str, Any], pieces: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The events of a message as the Messages API streams it."""
    message = {
        "id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "content": [],
        "model": body["model"], "stop_reason": None, "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 1},
    }  # fmt: skip
    yield {"type": "message_start", "message": message}
    block = {"type": "text", "text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for piece in pieces:
        delta = {"type": "text_delta", "text": piece}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 5}}
    yield {"type": "message_stop"}


def openai(body: dict[str, Any], pieces: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The events of a response as the Responses API streams it."""
    item = {"type": "message", "id": f"msg_{uuid.uuid4().hex}", "role": "assistant"}
    response = {"id": f"resp_{uuid.uuid4().hex}", "object": "response", "model": body["model"]}
    yield {"type": "response.created", "response": {**response, "status": "in_progress"}}
    begun = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": begun}
    whole = ""
    for piece in pieces:
        whole += piece
        where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        yield {"type": "response.output_text.delta", **where, "delta": piece}
    text = {"type": "output_text", "text": whole, "annotations": []}
    done = {**item, "status": "completed", "content": [text]}
    yield {"type": "response.output_item.done", "output_index": 0, "item": done}
    usage = {
        "input_tokens": 10, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 15,
    }  # fmt: skip
    ended = {**response, "status": "completed", "output": [done], "usage": usage}
    yield {"type": "response.completed", "response": ended}


if __name__ == "__main__":
    with Server(sys.argv[1], Path(sys.argv[2])) as server:
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()
