"""From a group and what is asked for to a decision, step by step; nothing is started here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from claw_core.config.config import Config, Group
from claw_core.config.settings import Merged, Source, merge
from claw_core.config.sources import RUNTIME_SECRETS
from claw_core.errors import ClawError, ConfigProblems
from claw_core.model import Mount, Spec
from claw_core.mounts import MountPolicy, NotGranted
from claw_core.redaction import Redactor
from claw_core.request import folder_mount, granted_of, needed_by, spec_for, workspace_mount
from claw_core.routing import Route, choose
from claw_core.tasks import in_thread
from claw_core.trust import TrustStore

if TYPE_CHECKING:
    from claw_core.agents import Agent
    from claw_core.ledger import Ledger
    from claw_core.registry import Registry
    from claw_core.relay import Relay


@attrs.frozen
class Plan:
    """A run before its runtime is chosen.

    Attributes:
        name: of the group, which is only a label where no files are configured.
        group: the group as its files stand now, where it has any.
        merged: every setting with its origin.
    """

    name: str | None
    group: Group | None
    merged: Merged


@attrs.define(eq=False)
class Planner:
    """Plans runs of one router; what it found out once it keeps for as long as that holds."""

    config: Config
    registry: Registry
    _ledger: Ledger
    _redact: Redactor
    _policy: MountPolicy = attrs.field(init=False)
    _folders: dict[str, tuple[Group, Mount]] = attrs.field(init=False, factory=dict)
    _relays: dict[tuple[str, str], Relay | ClawError] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        policy = self.config.policy
        state = str(self._ledger.state)
        self._policy = attrs.evolve(policy, protected=(*policy.protected, state))

    async def plan(self, name: str | None, asked: Source, agent: Agent | None = None) -> Plan:
        """Join all settings, and learn the secrets that they name before anything is said.

        Args:
            name: of the group.
            asked: what the caller asks for.
            agent: what it needs counts where nobody else says anything.

        Raises:
            ConfigProblems: all that is wrong in the configuration.
        """
        group = None
        if name is not None:
            # Reading the group's file is work only where it has changed.
            group = self.config.known_group(name) or await in_thread(self.config.group, name)
        merged = self.config.merged(asked, group, self.registry.names)
        if agent is not None:
            needed = needed_by(agent, self.config.secrets, merged.settings.env)
            merged = merge(merged, needed)
        names = (*merged.settings.secrets, *sum(RUNTIME_SECRETS.values(), ()))
        available = self.config.secrets
        self._redact.learn({name: available[name] for name in names if name in available})
        return Plan(name, group if self.config.root is not None else None, merged)

    def spec(self, plan: Plan, workspace: Path | None = None, *, folder: bool = True) -> Spec:
        """Return what exactly the instance shall be.

        Args:
            plan: the run.
            workspace: directory to be seen at `/workspace`, where no group is.
            folder: whether the folder of the group is to be seen.

        Raises:
            ConfigProblems: mounts that are not granted, variables that cannot be.
        """
        implicit = None
        if plan.group is not None:
            implicit = self._folder(plan.group) if folder else None
        elif workspace is not None:
            implicit = workspace_mount(self._policy, workspace, plan.merged)
        return spec_for(self._policy, plan.merged, plan.name, implicit)

    async def trusted_spec(
        self, plan: Plan, workspace: Path | None = None, *, folder: bool = True
    ) -> Spec:
        """Return the same, when the group's own file asks for nothing that was not accepted.

        Raises:
            Untrusted: what it asks for beyond that.
            ConfigProblems: as `spec`.
        """
        trust = self.trust()
        if plan.group is None or trust is None:
            return self.spec(plan, workspace, folder=folder)
        try:
            spec = self.spec(plan, workspace, folder=folder)
        except ConfigProblems:
            await in_thread(trust.check, plan.group)  # what was not accepted says more
            raise
        await in_thread(trust.check, plan.group, granted_of(plan.group, plan.merged, spec))
        return spec

    async def remember(self, plan: Plan, spec: Spec) -> None:
        """Take a first use of the group's own file for accepted.

        Raises:
            Untrusted: another process was first, and accepted less.
        """
        trust = self.trust()
        if plan.group is not None and trust is not None:
            granted = granted_of(plan.group, plan.merged, spec)
            await in_thread(trust.remember, plan.group, granted)

    async def pending(self, plan: Plan) -> list[str] | None:
        """Return what the group's file asks for beyond what was accepted; None if never used."""
        trust = self.trust()
        if plan.group is None or trust is None:
            return None
        return await in_thread(trust.pending, plan.group)

    async def decide(
        self, plan: Plan, spec: Spec, needs: Sequence[str] = ()
    ) -> tuple[Route, Relay]:
        """Choose a runtime, and keep secrets out of what the runtimes said.

        Args:
            plan: the run.
            spec: what exactly the instance shall be.
            needs: optional hooks that the runtime must have.

        Raises:
            Refused: no runtime accepts the run.
        """
        route, relay = await choose(self._relay, spec, plan.merged, needs)
        if route.others or route.assessment.notes:
            notes = tuple(map(self._redact, route.assessment.notes))
            route = attrs.evolve(
                route,
                assessment=attrs.evolve(route.assessment, notes=notes),
                others=tuple(one.redacted(self._redact) for one in route.others),
            )
        return route, relay

    def trust(self) -> TrustStore | None:
        """What was accepted of the groups' own files; None where groups are only labels."""
        if self.config.root is None:
            return None
        return TrustStore(self._ledger.state, self._ledger.install, self.config.root)

    def _folder(self, group: Group) -> Mount:
        """The mount of a group's folder, granted once for as long as the group stays the same."""
        known = self._folders.get(group.name)
        if known is None or known[0] is not group:
            try:
                known = group, self._policy.resolve(folder_mount(group))
            except NotGranted as error:
                problem = f"groups/{group.name}: {error} ({error.remedy})"
                raise ConfigProblems.of([problem]) from None
            self._folders[group.name] = known
        return known[1]

    def _relay(self, name: str, settings: Mapping[str, Any]) -> Relay:
        """The relay of a runtime, made once for the same settings."""
        key = name, json.dumps(settings, sort_keys=True, default=repr) if settings else ""
        known = self._relays.get(key)
        if known is None:
            try:
                known = self.registry.resolve(name, settings)
            except ClawError as error:
                known = error  # what is not installed now is not installed for the next run either
            self._relays[key] = known
        if isinstance(known, ClawError):
            raise known.with_traceback(None)
        return known
