"""A small server that answers as the APIs of Anthropic and OpenAI do, on loopback."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs


@attrs.define(eq=False)
class Api:
    """What the server was asked, and how it answers.

    Attributes:
        url: where it listens.
        refuse: status of every answer instead of 200, for instance 401.
        pieces: the text that it gives, in the pieces in which it comes.
        hold: waited for, once, after the first piece; then the rest comes.
        asked: bodies of the requests for an answer, in their order.
    """

    url: str = ""
    refuse: int | None = None
    pieces: tuple[str, ...] = ("The answer ", "is 42.")
    hold: threading.Event | None = None
    asked: list[dict[str, Any]] = attrs.field(factory=list)

    @property
    def prompts(self) -> list[str]:
        """What users said in the last request, one text each."""
        return list(_said(self.asked[-1]))


def _said(body: Any) -> Iterator[str]:
    """Every text that a user said, however deep it lies."""
    for message in body.get("messages") or body.get("input") or ():
        if message.get("role") != "user":
            continue
        content = message["content"]
        for part in [{"text": content}] if isinstance(content, str) else content:
            if "text" in part:
                yield part["text"]


@contextlib.contextmanager
def serving() -> Iterator[Api]:
    """Serve until the block ends."""
    api = Api()

    class Handler(_Handler):
        served = api

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield api
        finally:
            if api.hold is not None:
                api.hold.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Api

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Say nothing."""

    def do_GET(self) -> None:
        self._json(404, {"error": {"type": "not_found_error", "message": "there is nothing here"}})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        streams = {"/v1/messages": _anthropic, "/v1/responses": _openai}
        if path not in streams:
            self.do_GET()
        elif self.served.refuse is not None:
            kind = {"type": "authentication_error", "message": "invalid x-api-key"}
            self._json(self.served.refuse, {"type": "error", "error": kind})
        else:
            body = json.loads(text)
            self.served.asked.append(body)
            self._stream(streams[path](body, self.served))

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
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
            self.wfile.write(data.encode())
            self.wfile.flush()
        self.close_connection = True


def _pieces(api: Api) -> Iterator[str]:
    first, *rest = api.pieces
    yield first
    if api.hold is not None:
        api.hold.wait(60)
    yield from rest


def _anthropic(body: dict[str, Any], api: Api) -> Iterator[dict[str, Any]]:
    """The events of a message as the Messages API streams it."""
    message = {
        "id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "content": [],
        "model": body["model"], "stop_reason": None, "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 1},
    }  # fmt: skip
    yield {"type": "message_start", "message": message}
    block = {"type": "text", "text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for piece in _pieces(api):
        delta = {"type": "text_delta", "text": piece}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 5}}
    yield {"type": "message_stop"}


def _openai(body: dict[str, Any], api: Api) -> Iterator[dict[str, Any]]:
    """The events of a response as the Responses API streams it."""
    identity = f"resp_{uuid.uuid4().hex}"
    item = {"type": "message", "id": f"msg_{uuid.uuid4().hex}", "role": "assistant"}
    response = {"id": identity, "object": "response", "model": body["model"], "output": []}
    yield {"type": "response.created", "response": {**response, "status": "in_progress"}}
    begun = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": begun}
    for piece in _pieces(api):
        yield {
            "type": "response.output_text.delta", "item_id": item["id"], "output_index": 0,
            "content_index": 0, "delta": piece,
        }  # fmt: skip
    text = {"type": "output_text", "text": "".join(api.pieces), "annotations": []}
    done = {**item, "status": "completed", "content": [text]}
    yield {"type": "response.output_item.done", "output_index": 0, "item": done}
    usage = {
        "input_tokens": 10, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 15,
    }  # fmt: skip
    ended = {**response, "status": "completed", "output": [done], "usage": usage}
    yield {"type": "response.completed", "response": ended}
