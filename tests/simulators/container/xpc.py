"""Requests to the server, which goes on with them when its client has died.

There is no daemon. Each request is a process of its own, in its own session, that does the work on
the files of the machine and answers through a pipe. It plays the server: it outlives the client,
holds the server's lock, and a crash of the server is the end of all such processes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys

from simulators.container.errors import INTERRUPTED, INVALID, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from simulators.container.call import Call
    from simulators.container.mac import Mac

SERVER = "apiserver"
"""Name of the server's processes."""


def ask(call: Call, request: str, *arguments: Any, descriptors: Sequence[int | None] = ()) -> Any:
    """Make a request, and wait for its answer.

    Args:
        call: who asks.
        request: name of a function in `server`, or in another module that is named before it.
        arguments: its arguments; JSON.
        descriptors: what it gets to keep.

    Raises:
        Failure: what the server says, or that there is none.
    """
    if call.point(f"before {request}") == "skip":
        return None
    answer = send(call, request, *arguments, descriptors=descriptors)
    value = receive(call, answer, request)
    call.point(f"after {request}")
    return value


def send(call: Call, request: str, *arguments: Any, descriptors: Sequence[int | None] = ()) -> int:
    """Make a request, and return the descriptor on which its answer will come."""
    from simulators.container import endings, linux, server  # noqa: F401 - once for all requests

    state = call.mac.knob("server")
    if state == "unregistered":
        raise Failure("interrupted", INVALID)
    mine, theirs = os.pipe()
    if state == "silent":
        return mine  # the other end stays open, and nobody ever writes to it
    if not os.fork():
        try:
            _serve(call, theirs, request, arguments, descriptors)
        except BaseException:  # noqa: BLE001 - a bug of the simulator ends like a crash of the server
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)
    os.close(theirs)
    return mine


def receive(call: Call, descriptor: int, request: str = "") -> Any:
    """Read an answer to its end; a listing has only so much time.

    Raises:
        Failure: what the server says, or that it died.
    """
    data = b""
    with open(descriptor, "rb", buffering=0) as file:
        timeout = call.mac.knob("timeout_seconds") if request == "containers" else None
        if not select.select([file], [], [], timeout)[0]:
            where = "com.apple.container.apiserver/containerList"
            raise Failure("internalError", f"XPC timeout for request to {where}")
        while more := file.read(1 << 16):
            data += more
    if not data:
        raise Failure("interrupted", INTERRUPTED)
    answer = json.loads(data)
    if "failure" in answer:
        raise Failure.from_json(answer["failure"])
    return answer["value"]


def _serve(
    call: Call,
    reply: int,
    request: str,
    arguments: Sequence[Any],
    descriptors: Sequence[int | None],
) -> None:
    from simulators.container import endings, linux, server

    os.setsid()
    with open("/proc/self/comm", "w", encoding="utf-8") as file:
        file.write(SERVER)
    # Nobody can tell from a real server's process what it is doing.
    linux.rename([sys.executable, "-IS", call.mac.path("bin", "container"), ""])
    signal.set_wakeup_fd(-1)
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(one, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    log = os.open(call.mac.path("server.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    keep = {reply, log, *(one for one in descriptors if one is not None)}
    for number, mine in ((0, null), (1, null), (2, log)):
        os.dup2(mine, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            try:
                os.close(int(name))
            except OSError:
                continue  # that of the listing itself
    then = None
    try:
        call.point(f"in {request}")
        endings.wake(call.mac)
        given = [tuple(descriptors)] if descriptors else []
        module, _, function = request.rpartition(".")
        place = importlib.import_module(f"simulators.container.{module or 'server'}")
        value = getattr(place, function)(call.mac, *arguments, *given)
        if isinstance(value, server.Then):
            value, then = value.value, value.work
        answer = {"value": value}
    except Failure as error:
        answer = {"failure": error.to_json()}
    with contextlib.suppress(BrokenPipeError):  # the client has been killed
        os.write(reply, json.dumps(answer).encode())
    os.close(reply)
    if then is not None:
        then()
    os._exit(0)


def runtime(
    mac: Mac, name: str, request: dict[str, Any], descriptors: Sequence[int | None] = ()
) -> Any:
    """Ask the helper of a container.

    Raises:
        Failure: what it says, or that it is not there, or has died meanwhile.
    """
    bundle = os.open(mac.path("containers", name), os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(f"/proc/self/fd/{bundle}/helper.socket")
            given = [one for one in descriptors if one is not None]
            mask = [one is not None for one in descriptors]
            line = json.dumps({**request, "descriptors": mask}).encode()
            if given:
                socket.send_fds(connection, [line], given)
            else:
                connection.send(line)
            for one in given:
                os.close(one)
            answer = connection.recv(1 << 16)
    except OSError:
        answer = b""
    finally:
        os.close(bundle)
    if not answer:
        raise Failure("interrupted", INTERRUPTED)
    value = json.loads(answer)
    if "failure" in value:
        raise Failure.from_json(value["failure"])
    return value["value"]
