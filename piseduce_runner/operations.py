"""What people can ask of nodes: each operation checks that it makes sense, and begins a process.

All nodes of a command are checked before anything is written, in one transaction with it: either
each begins, or none does, whoever else works on the store.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from piseduce_runner import people, planner
from piseduce_runner.deployment import Request
from piseduce_runner.errors import UserError
from piseduce_runner.people import Person
from piseduce_runner.planner import Record, Status
from piseduce_runner.processes import Process
from piseduce_runner.records import from_values, to_values
from piseduce_runner.store import Deployment, NewDeployment, NodeReserved, NodeTaken, Store

# Gives the process of that name as it holds for a node with that environment ("" for none).
FindProcess = Callable[[str, str], Process]

_STOPPED = (Status.LOST, Status.CANCELLED)
# Processes that leave the system on the card as it is.
_ON_A_SYSTEM = ("reboot", "bootfiles", "capture")


@dataclass(frozen=True)
class Operations:
    """Operations in somebody's name.

    `owner` is whose nodes they are; `force` to touch somebody else's. `claim` is the driver that
    will take the nodes on until `expires` (seconds since the epoch); None leaves them to the agent.
    """

    store: Store
    find_process: FindProcess
    person: Person
    owner: str
    force: bool = False
    claim: str | None = None
    lease: float = 30.0
    clock: Callable[[], float] = time.time

    def deploy(self, request: Request, *, replace: bool, until: float | None) -> list[Record]:
        """Deploy the request's environment; a free node is reserved in the same step.

        `until` ends that reservation (None: when the node is given back). Raises `UserError`.
        """
        names = [node.name for node in request.nodes]
        with self._asked("deploy", names, request.environment.name) as held:
            records = []
            for name in names:
                deployment = held.get(name)
                if deployment is not None and _carries_system(deployment) and not replace:
                    raise UserError(
                        f"{deployment.environment} is deployed on {name}, for {deployment.owner};"
                        " --replace deploys over it"
                    )
                self._hold(name, until)
                process = self.find_process("deploy", request.environment.name)
                record = planner.begin(process, name, request.conditions)
                self._begin(record, request.environment.name, request.options)
                records.append(record)
            return records

    def redeploy(self, names: Iterable[str]) -> list[Record]:
        """Deploy again what was deployed, from the beginning, with a clean memory."""
        names = list(names)
        with self._asked("redeploy", names) as held:
            records = []
            for name in names:
                last = _needed(held, name, "deploy again; use deploy")
                if not last.environment:
                    raise UserError(f"{name}: nothing was deployed on it; use deploy")
                process = self.find_process("deploy", last.environment)
                conditions = frozenset({"update"} if last.options.get("update") else ())
                record = planner.begin(process, name, conditions)
                options = _without(last.options, "erase", "capture")
                self._begin(record, last.environment, options)
                records.append(record)
            return records

    def reboot(self, names: Iterable[str]) -> list[Record]:
        """Power-cycle: a lost node resumes its process, a deployed one has to come back."""
        names = list(names)
        with self._asked("reboot", names) as held:
            return [self._reboot(_needed(held, name, "reboot")) for name in names]

    def destroy(self, names: Iterable[str], *, erase: bool) -> list[Record]:
        """Power the nodes off, remove their boot files, and give them back."""
        names = list(names)
        with self._asked("destroy", names, "--erase" if erase else "") as held:
            records = []
            for name in names:
                last = _needed(held, name, "destroy; `cancel` ends a reservation")
                process = self.find_process("destroy", "")
                record = planner.begin(process, name, frozenset({"erase"} if erase else ()))
                options = _without(last.options, "erase") | {"erase": erase}
                self._begin(record, last.environment, options, carry_memory=True)
                records.append(record)
            return records

    def bootfiles(self, names: Iterable[str]) -> list[Record]:
        """Fetch the boot files of deployed systems again."""
        names = list(names)
        with self._asked("bootfiles", names) as held:
            records = []
            for name in names:
                last = _needed(held, name, "fetch boot files from")
                is_ours = last.process == "bootfiles" and last.status in _STOPPED
                if last.status is not Status.DEPLOYED and not is_ours:
                    raise UserError(
                        f"{name} is {last.status.value}: boot files come from a deployed system"
                    )
                process = self.find_process("bootfiles", last.environment)
                record = planner.begin(process, name, frozenset())
                self._begin(record, last.environment, last.options, carry_memory=True)
                records.append(record)
            return records

    def capture(self, name: str, folder: str) -> list[Record]:
        """Copy the card of a deployed node into `folder`; the node is its user's again then."""
        with self._asked("capture", [name]) as held:
            last = _needed(held, name, "capture")
            if last.status is not Status.DEPLOYED:
                raise UserError(
                    f"{name} is {last.status.value}: only a deployed system can be captured"
                )
            options = last.options | {"capture": {"folder": folder}}
            return [self._begin_capture(last, options, frozenset({"capture"}))]

    def boot_test(self, names: Iterable[str]) -> list[Record]:
        """Boot the deploy OS on nodes that carry no system of anybody."""
        names = list(names)
        with self._asked("boot-test", names) as held:
            records = []
            for name in names:
                last = held.get(name)
                if last is not None and last.process != "boot_test":
                    raise UserError(
                        f"{name} carries {last.environment or 'a system'} of {last.owner}, which"
                        " would lose its boot files; destroy it first"
                    )
                self._hold(name, None)
                record = planner.begin(self.find_process("boot_test", ""), name, frozenset())
                self._begin(record, "", {})
                records.append(record)
            return records

    # what they share

    @contextmanager
    def _asked(
        self, what: str, names: list[str], detail: str = ""
    ) -> Iterator[dict[str, Deployment]]:
        """A transaction in which the nodes are this person's to touch and nobody drives them."""
        try:
            with self.store.transaction():
                held = self.store.deployments()
                for name in names:
                    forced = self._check_touchable(what, name, held.get(name))
                    self.store.record_act(
                        self.person.name, what, name, self.clock(), forced=forced, detail=detail
                    )
                yield held
        except (NodeTaken, NodeReserved) as error:
            raise UserError(f"{error}; nothing was started") from error

    def _check_touchable(self, what: str, name: str, held: Deployment | None) -> bool:
        if held is not None and held.status is Status.IN_PROGRESS:
            driven = held.is_claimed(self.clock())
            way_out = (
                f"wait for it (`piseduce-run watch`), or `piseduce-run cancel {name}`"
                if driven
                else f"`piseduce-run agent --once` goes on with it, `piseduce-run cancel {name}`"
                " stops it"
            )
            by = f" by {held.claim}" if driven else ", but nobody drives it now"
            raise UserError(f"{name} is under way ({held.process}: {held.state}){by}; {way_out}")
        reservation = self.store.reservation_at(name, self.clock())
        if what != "destroy" and reservation is not None and reservation.has_ended(self.clock()):
            raise UserError(
                f"the reservation of {name} has ended, so it is about to be destroyed;"
                f" `piseduce-run extend {name} --duration ...` keeps it"
            )
        holder = reservation.owner if reservation else held.owner if held else self.owner
        return people.check_may_touch(self.person, name, holder, owner=self.owner, force=self.force)

    def _hold(self, name: str, until: float | None) -> None:
        """The node is reserved for the owner from now on, if it is not yet.

        Whose reservation has an end already cannot give another one.
        """
        now = self.clock()
        reservation = self.store.reservation_at(name, now)
        if reservation is None:
            self.store.reserve([name], self.owner, now, until, now)
        elif until is not None:
            raise UserError(
                f"{name} is reserved already, so --duration does not hold;"
                f" `piseduce-run extend {name} --duration ...` lets a reservation end later"
            )

    def _reboot(self, last: Deployment) -> Record:
        if last.status is Status.DEPLOYED or (
            last.process == "bootfiles" and last.status in _STOPPED
        ):
            process = self.find_process("reboot", last.environment)
            record = planner.begin(process, last.node, frozenset())
            self._begin(record, last.environment, last.options, carry_memory=True)
            return record
        if last.status not in _STOPPED:
            raise UserError(f"{last.node} is {last.status.value}: there is nothing to reboot")
        if last.process == "capture":
            # Nobody waits for the copy any more; the user waits for the node.
            return self._begin_capture(last, _without(last.options, "capture"), frozenset())
        process = self.find_process(last.process, last.environment)
        stopped = from_values(last.node, process, last.status, last.reason, last.record)
        record = planner.resume(stopped)
        now = self.clock()
        self.store.resume(
            last.node,
            self.claim,
            now,
            now + self.lease if self.claim else None,
            position=record.state.position,
            state=record.state.name,
            record=to_values(record),
            expected_status=last.status,
        )
        return record

    def _begin_capture(self, last: Deployment, options: dict, conditions: frozenset[str]) -> Record:
        process = self.find_process("capture", last.environment)
        record = planner.begin(process, last.node, conditions)
        self._begin(record, last.environment, options, carry_memory=True)
        return record

    def _begin(
        self, record: Record, environment: str, options: dict, *, carry_memory: bool = False
    ) -> None:
        now = self.clock()
        reservation = self.store.reservation_at(record.node, now)
        new = NewDeployment(
            node=record.node,
            process=record.process.name,
            environment=environment,
            owner=reservation.owner if reservation else self.owner,
            position=record.state.position,
            state=record.state.name,
            options=options,
            record=to_values(record),
            carry_memory=carry_memory,
        )
        self.store.begin([new], self.claim, now, now + self.lease if self.claim else None)


def take_over(
    store: Store, find_process: FindProcess, names: Iterable[str], claim: str, lease: float
) -> list[Record]:
    """Take on the nodes that nobody drives any more, from where they were interrupted.

    A node that cannot go on (its process has changed, its environment is gone) is lost.
    """
    now = time.time()
    records = []
    for held in store.take(list(names), claim, now, now + lease):
        try:
            process = find_process(held.process, held.environment)
            stored = from_values(held.node, process, held.status, held.reason, held.record)
            record = planner.interrupted(stored)
        except UserError as error:
            store.end(held.node, claim, Status.LOST, str(error), now, held.record)
            continue
        if record.status is Status.IN_PROGRESS:
            records.append(record)
        else:
            store.end(held.node, claim, record.status, record.reason, now, to_values(record))
    return records


def _needed(held: dict[str, Deployment], name: str, what: str) -> Deployment:
    if name not in held:
        raise UserError(f"{name}: there is nothing on it to {what}")
    return held[name]


def _carries_system(deployment: Deployment) -> bool:
    """Whether somebody's system is on the node's card, be it that it does not answer now."""
    return deployment.status is Status.DEPLOYED or deployment.process in _ON_A_SYSTEM


def _without(options: dict, *names: str) -> dict:
    return {key: value for key, value in options.items() if key not in names}
