"""What can go wrong: one root, whose instances say what failed, where, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from claw_core.routing import Candidate


SHOWN = 20
"""Problems that one message lists; whoever sees more corrects these first."""


class ClawError(Exception):
    """A failure of claw or of a runtime, never of the command that ran.

    Args:
        message: what failed, in one sentence without a full stop at the end.
        runtime: name of the runtime concerned.
        phase: the phase of the lifecycle in which it happened.
        instance: name of the instance concerned.
        remedy: what the user can do next.
        cleaned: what was cleaned up, or is still there.
    """

    exit_code = 125

    def __init__(
        self,
        message: str,
        *,
        runtime: str | None = None,
        phase: str | None = None,
        instance: str | None = None,
        remedy: str | None = None,
        cleaned: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.runtime = runtime
        self.phase = phase
        self.instance = instance
        self.remedy = remedy
        self.cleaned = cleaned

    def __str__(self) -> str:
        where = " ".join(
            part
            for part in (self.runtime, self.phase, self.instance and f"({self.instance})")
            if part
        )
        lines = [f"{where}: {self.message}" if where else self.message]
        if self.cleaned:
            lines.append(f"cleaned up: {self.cleaned}")
        if self.remedy:
            lines.append(f"what to do: {self.remedy}")
        return "\n  ".join(lines)

    def at(
        self, *, runtime: str | None = None, phase: str | None = None, instance: str | None = None
    ) -> ClawError:
        """Fill in where it happened, as far as that is not known yet, and return the same error."""
        self.runtime = self.runtime or runtime
        self.phase = self.phase or phase
        self.instance = self.instance or instance
        return self

    def redact(self, redact: Callable[[str], str]) -> None:
        """Take out of every text what must not be said."""
        self.message = redact(self.message)
        self.remedy = self.remedy and redact(self.remedy)
        self.cleaned = self.cleaned and redact(self.cleaned)
        self.args = (self.message,)


class ConfigError(ClawError):
    """The caller asked for something that cannot be: wrong option, missing file, unknown name."""

    exit_code = 2


class ConfigProblems(ConfigError):
    """The configuration is wrong, and nothing was started.

    Attributes:
        problems: everything that is wrong, each with its file, its path there, and what is
            expected.
    """

    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, problems: Sequence[str]) -> ConfigProblems:
        """One error for all of them."""
        lines = list(problems[:SHOWN])
        if len(problems) > SHOWN:
            lines.append(f"... and {len(problems) - SHOWN} more")
        many = f"{len(problems)} problems in the configuration\n    " if len(problems) > 1 else ""
        error = cls(many + "\n    ".join(lines), cleaned="nothing was started")
        error.problems = tuple(problems)
        return error


class Untrusted(ConfigError):
    """A group's file asks for more than its owner has accepted; nothing was started."""


class PluginError(ClawError):
    """A plugin cannot be used; the message names it, its distribution and version."""


class UnknownRuntime(ConfigError):
    """No installed distribution offers a runtime of this name."""


class Unsupported(ClawError):
    """The runtime does not implement an optional hook."""


class Refused(ClawError):
    """No runtime accepts the run as it was asked for; nothing was started.

    Attributes:
        candidates: the runtimes that were asked, each with its refusal.
    """

    candidates: tuple[Candidate, ...] = ()

    def redact(self, redact: Callable[[str], str]) -> None:
        """Take out of every text what must not be said."""
        super().redact(redact)
        self.candidates = tuple(one.redacted(redact) for one in self.candidates)


class RuntimeFault(ClawError):
    """The runtime failed to do what its hook promises."""


class CapacityExhausted(RuntimeFault):
    """The machine has no room for another instance; others may make some.

    A runtime raises it from `prepare` or `start` where the machine itself says so. The run then
    goes to the end of the queue, until its time for waiting is over.
    """


class SpentInstance(RuntimeFault):
    """The instance can no longer be trusted with work; only teardown may follow."""


class ArchiveError(ClawError):
    """A file cannot be packed, or a member of an archive is unsafe and nothing of it was kept."""


class LedgerUnavailable(ClawError):
    """An intent cannot be made durable, so nothing was started."""


class WardenUnavailable(ClawError):
    """The warden cannot be started, so nothing was started."""


class Denied(ClawError):
    """An observer refused the phase."""


class DeadlineExceeded(ClawError):
    """The command, or a phase, did not end inside its deadline and was stopped."""

    exit_code = 124


class OutputLimitExceeded(ClawError):
    """A command wrote more than the caller is willing to keep in memory and was stopped."""


class NotKept(ClawError):
    """What was to be kept of an instance was not; it was torn down all the same."""


class TeardownFailed(ClawError):
    """The instance could not be torn down verifiably; it stays in the ledger and is retried."""
