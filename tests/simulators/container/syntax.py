"""The options of every command that is simulated."""

from __future__ import annotations

from simulators.container.arguments import Option, Syntax

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simulators.container.mac import Mac


def _some(value: str, *names: str) -> Option:
    return Option(*names, value=value, repeated=True)


LOGGING = (Option("--debug"),)
FORMAT = Option("--format", value="format", choices=("json", "table", "yaml", "toml"))
ALL, QUIET = Option("-a", "--all"), Option("-q", "--quiet")
PROCESS = (
    _some("env", "-e", "--env"),
    _some("env-file", "--env-file"),
    Option("--gid", value="gid", number=True),
    Option("--uid", value="uid", number=True),
    Option("-u", "--user", value="user"),
    Option("-i", "--interactive"),
    Option("-t", "--tty"),
    Option("-w", "--workdir", "--cwd", value="dir"),
    _some("limit", "--ulimit"),
)
RESOURCE = (
    Option("-c", "--cpus", value="cpus", number=True),
    Option("-m", "--memory", value="memory"),
)
MANAGEMENT = (
    Option("-a", "--arch", value="arch"),
    Option("--cidfile", value="cidfile"),
    Option("-d", "--detach"),
    _some("ip", "--dns"),
    Option("--dns-domain", value="domain"),
    _some("option", "--dns-option"),
    _some("domain", "--dns-search"),
    Option("--no-dns"),
    Option("--entrypoint", value="cmd"),
    Option("-k", "--kernel", value="path"),
    _some("label", "-l", "--label"),
    _some("mount", "--mount"),
    Option("--name", value="name"),
    _some("network", "--network"),
    Option("--os", value="os"),
    _some("spec", "-p", "--publish"),
    Option("--platform", value="platform"),
    _some("spec", "--publish-socket"),
    Option("--rm", "--remove"),
    Option("--rosetta"),
    Option("--runtime", value="runtime"),
    Option("--ssh"),
    _some("tmpfs", "--tmpfs"),
    _some("volume", "-v", "--volume"),
    Option("--virtualization"),
)
SINCE = (
    ((0, 8), Option("--read-only")),
    ((0, 10), Option("--init")),
    ((0, 10), Option("--init-image", value="image")),
    ((0, 12), _some("cap", "--cap-add")),
    ((0, 12), _some("cap", "--cap-drop")),
    ((1, 0), Option("--shm-size", value="size")),
    ((1, 2), _some("arg", "--kernel-arg")),
    ((1, 2, 1), _some("path", "--masked-path")),
    ((1, 2, 1), _some("path", "--read-only-path")),
)
"""Options of `run` and `create`, and the version that brought them."""
_PROGRESS = Option("--progress", value="type", choices=("auto", "none", "ansi", "plain", "color"))
_FETCH = (
    Option("--scheme", value="scheme"),
    Option("--max-concurrent-downloads", value="n", number=True),
)
_PLAIN = {
    "start": ((Option("-a", "--attach"), Option("-i", "--interactive")), ("container-id",), 1, 1),
    "stop": (
        (
            ALL,
            Option("-s", "--signal", value="signal"),
            Option("-t", "--time", value="time", number=True),
        ),
        ("container-ids",),
        0,
        None,
    ),
    "kill": ((ALL, Option("-s", "--signal", value="signal")), ("container-ids",), 0, None),
    "delete": ((ALL, Option("-f", "--force")), ("container-ids",), 0, None),
    "ls": ((ALL, QUIET, FORMAT), (), 0, 0),
    "inspect": ((), ("container-ids",), 1, None),
    "logs": (
        (Option("--boot"), Option("-f", "--follow"), Option("-n", value="n", number=True)),
        ("container-id",),
        1,
        1,
    ),
    "cp": ((), ("source", "destination"), 2, 2),
    "export": ((Option("-o", "--output", value="output"),), ("id",), 1, 1),
    "image inspect": ((), ("images",), 1, None),
    "image ls": ((QUIET, FORMAT, Option("-v", "--verbose")), (), 0, 0),
    "image pull": (
        (_PROGRESS, *_FETCH, Option("--platform", value="platform")),
        ("reference",),
        1,
        1,
    ),
    "image delete": ((ALL, Option("-f", "--force")), ("images",), 0, None),
    "image tag": ((), ("source", "target"), 2, 2),
    "image load": ((Option("-i", "--input", value="input"), Option("-f", "--force")), (), 0, 0),
    "image save": (
        (Option("-o", "--output", value="output"), Option("--platform", value="platform")),
        ("references",),
        1,
        None,
    ),
    "system status": ((Option("-p", "--prefix", value="prefix"), FORMAT), (), 0, 0),
    "system version": ((FORMAT,), (), 0, 0),
    "system start": (
        (
            Option("--app-root", value="path"),
            Option("--install-root", value="path"),
            Option("--log-root", value="path"),
            Option("--enable-kernel-install"),
            Option("--disable-kernel-install"),
            Option("--timeout", value="timeout", number=True),
        ),
        (),
        0,
        0,
    ),
    "system stop": ((), (), 0, 0),
    "network inspect": ((), ("networks",), 1, None),
    "network ls": ((QUIET, FORMAT), (), 0, 0),
}


def of(mac: Mac, verb: str) -> Syntax:
    """What a command takes in the version that the machine plays."""
    if verb in {"run", "create"}:
        new = tuple(option for since, option in SINCE if mac.version >= since)
        options = (*PROCESS, *RESOURCE, *MANAGEMENT, *new, *_FETCH, *LOGGING)
        if verb == "run":
            options = (*options, _PROGRESS)
        return Syntax(verb, options, ("image",), least=1, passthrough=1)
    if verb == "exec":
        options = (*PROCESS, Option("-d", "--detach"), *LOGGING)
        words = ("container-id", "arguments")
        return Syntax(verb, options, words, least=2, passthrough=1)
    given, names, least, most = _PLAIN[verb]
    return Syntax(verb, (*given, *LOGGING), names, least=least, most=most)
