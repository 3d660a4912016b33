"""Decides whether a command line of `docker` is about a container of NanoClaw.

`executable.py` copies this file into what it writes, which is started before every command of a
service. So it imports what the interpreter has loaded anyway, and whatever is not NanoClaw's is on
its way to the real command after a few comparisons.
"""

import os
import sys

PREFIXES = ("nanoclaw-", "ncl-")
INSTALL = "nanoclaw-install="
OPERANDS = {"stop", "kill", "rm", "inspect", "exec", "logs", "wait", "start", "attach"}


def ours(tool: str, words: list[str]) -> bool:
    """Whether claw answers; everything else is the real command's.

    Args:
        tool: `docker`, or `container` of Apple.
        words: what stands behind it.
    """
    verb = words[0] if words else ""
    if verb in {"run", "create"}:
        for before, word in zip(words, words[1:], strict=False):  # noqa: RUF007 - an import more
            option, _, value = word.partition("=")
            if before == "--name" and word.startswith(PREFIXES):
                return True
            if option == "--name" and value.startswith(PREFIXES):
                return True
            if before in {"--label", "-l"} and word.startswith(INSTALL):
                return True
            if option == "--label" and value.startswith(INSTALL):
                return True
        return False
    if verb in OPERANDS:
        return any(word.startswith(PREFIXES) for word in words[1:])
    if verb == "ps":
        return any("name=nanoclaw-" in word or f"label={INSTALL[:-1]}" in word for word in words)
    return tool == "container" and verb in {"ls", "list"}


def behind(tool: str, itself: str, path: str) -> str:
    """The next command of this name on the path; empty where there is none."""
    folders = [folder for folder in path.split(":") if folder]
    own = os.path.dirname(itself)
    for index, folder in enumerate(folders):
        if same(folder, own):
            folders = folders[index + 1 :]
            break
    for folder in folders:
        found = f"{folder}/{tool}"
        if os.access(found, os.X_OK) and os.path.isfile(found) and not same(found, itself):
            return found
    return ""


def same(one: str, other: str) -> bool:
    """Whether two paths lead to the same file or directory."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def main(python: str, root: str, config: str) -> None:
    """Become the real command, or claw.

    Args:
        python: the interpreter that has claw.
        root: the directory of the NanoClaw installation.
        config: the `claw.toml` to use; empty is the user's own.
    """
    itself = os.path.abspath(sys.argv[0])
    tool, words = os.path.basename(itself), sys.argv[1:]
    real = behind(tool, itself, os.environ.get("PATH", os.defpath))
    if real and not ours(tool, words):
        os.execv(real, [real, *words])
    os.execv(
        python,
        [python, "-P", "-m", "claw_nanoclaw.shim", tool, real, root, config, *words],
    )
