"""The lab's PoE switch: ports that power boards, and what an SNMP manager sees of them.

The MIB objects are those of RFC 3621 (POWER-ETHERNET-MIB, 1.3.6.1.2.1.105) and the system group of
RFC 3418. This file knows ports and objects; `switch` speaks SNMP; neither knows what a board
is: power goes through a hook, and what a powered port detects is asked of a callback.
"""

import bisect
import functools
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import IntEnum

from pysnmp.entity.rfc3413.cmdrsp import CommandResponderBase
from pysnmp.error import PySnmpError
from pysnmp.proto.rfc1902 import (
    Gauge32,
    Integer32,
    ObjectIdentifier,
    ObjectName,
    OctetString,
    TimeTicks,
)
from pysnmp.proto.rfc1905 import endOfMibView, noSuchInstance, noSuchObject
from pysnmp.smi import error

Oid = tuple[int, ...]
VarBind = tuple[ObjectName, object]

SYSTEM: Oid = (1, 3, 6, 1, 2, 1, 1)
PORT_ENTRY: Oid = (1, 3, 6, 1, 2, 1, 105, 1, 1, 1)  # pethPsePortEntry, index group.port
MAIN_ENTRY: Oid = (1, 3, 6, 1, 2, 1, 105, 1, 3, 1, 1)  # pethMainPseEntry, index group
ADMIN: Oid = (*PORT_ENTRY, 3)  # pethPsePortAdminEnable
STATUS: Oid = (*PORT_ENTRY, 6)  # pethPsePortDetectionStatus
GROUP = 1  # "for a non-modular PSE the group index is 1"

TRUE, FALSE = 1, 2  # TruthValue, RFC 2579
WATTS_PER_PORT = 15

# Error statuses of RFC 3416 by name, as the exceptions that make pysnmp answer with them.
ERRORS = {status: kind for kind, status in CommandResponderBase.SMI_ERROR_MAP.items()}


class Detection(IntEnum):
    """Values of pethPsePortDetectionStatus."""

    DISABLED = 1  # switched off
    SEARCHING = 2  # switched on, nothing that wants power is plugged in
    DELIVERING_POWER = 3
    FAULT = 4
    TEST = 5
    OTHER_FAULT = 6


@dataclass
class Faults:
    """What the switch does wrong on purpose. May be changed at any time.

    `silent`: no datagram is heard; `drop_next`: as many datagrams are lost on their way in,
    `drop_answers`: on their way out; `delay`: seconds before a request is looked at;
    `ignore_sets`: a SET is neither done nor answered; `lie`: every port is deaf (see `PoeSwitch`);
    `max_varbinds`: more in one request is answered with tooBig (0: no limit); `refuse`: port
    number -> error status (a name of RFC 3416, such as `genErr`) that answers a SET of it,
    `refuse_all`: the same for every other port.
    """

    silent: bool = False
    drop_next: int = 0
    drop_answers: int = 0
    delay: float = 0.0
    ignore_sets: bool = False
    lie: bool = False
    max_varbinds: int = 0
    refuse: dict[int, str] = field(default_factory=dict)
    refuse_all: str = ""


@dataclass(frozen=True)
class Request:
    """A request as it reached the objects: `get`, `next` or `set`, and by whom (security name)."""

    kind: str
    names: tuple[Oid, ...]
    security_name: str


class PoeSwitch:
    """Ports, their power, and the objects that show them.

    `hook(port, on)` is called whenever the power of a port changes, from within the request that
    changed it: it must return at once. `detect(port)` says what a powered port sees (default: it
    delivers power). Ports are numbered from 1; their SNMP index starts at `first_index` (some
    switches count their PoE ports from 49).

    Broken ports accept a SET and show the new admin state, but: in `stuck_off` the power never
    comes on, in `stuck_on` power that is on never goes off. A `deaf` port accepts the SET and does
    not even show it. A port in `reluctant` shows that it is on, and gives power only after as many
    vain tries as stand there; and so again the next time. All of these and `faults` may be changed
    while the switch is serving.
    """

    def __init__(
        self,
        port_count: int,
        hook: Callable[[int, bool], None],
        *,
        stuck_off: Collection[int] = (),
        stuck_on: Collection[int] = (),
        deaf: Collection[int] = (),
        name: str = "poe-switch",
        detect: Callable[[int], Detection] | None = None,
        first_index: int = 1,
    ) -> None:
        if not 1 <= port_count <= 1000:
            raise ValueError(f"a switch has 1 to 1000 ports, not {port_count}")
        self.port_count = port_count
        self.name = name
        self.stuck_off = set(stuck_off)
        self.stuck_on = set(stuck_on)
        self.deaf = set(deaf)
        self.reluctant: dict[int, int] = {}
        self.faults = Faults()
        self.recent: deque[Request] = deque(maxlen=256)
        self._hook = hook
        self._detect = detect or (lambda port: Detection.DELIVERING_POWER)
        self._first_index = first_index
        self._started = time.monotonic()
        ports = range(1, port_count + 1)
        self._admin = dict.fromkeys(ports, False)
        self._power = dict.fromkeys(ports, False)
        self._vain_tries = dict.fromkeys(ports, 0)
        self._objects = self._make_objects()
        self._order = sorted(self._objects)
        # What the instances belong to: a column has two index numbers, everything else has one.
        self._object_types = {
            name[:-2] if name[:-2] in (ADMIN, STATUS) else name[:-1] for name in self._order
        }

    # Ports

    @property
    def admin(self) -> dict[int, bool]:
        """What was asked of each port, as the switch tells it (a copy)."""
        return dict(self._admin)

    @property
    def power(self) -> dict[int, bool]:
        """Whether power is on each port's pins (a copy)."""
        return dict(self._power)

    @property
    def status(self) -> dict[int, Detection]:
        """pethPsePortDetectionStatus of each port."""
        return {port: self._status(port) for port in self._admin}

    def _status(self, port: int) -> Detection:
        if self._power[port]:
            return Detection(self._detect(port))
        return Detection.SEARCHING if self._admin[port] else Detection.DISABLED

    def set_port(self, port: int, on: bool) -> None:
        """Switches a port, as a SET of pethPsePortAdminEnable does. KeyError: no such port."""
        if port not in self._admin:
            raise KeyError(port)
        if port in self.deaf or self.faults.lie:
            return
        self._admin[port] = on
        if on and not self._power[port]:
            if self._vain_tries[port] < self.reluctant.get(port, 0):
                self._vain_tries[port] += 1
                return
            self._vain_tries[port] = 0
        self.settle(port)

    def settle(self, port: int) -> None:
        """Gives a port the power that was asked for, unless it is stuck: after it was repaired."""
        on = self._admin[port]
        stuck = self.stuck_off if on else self.stuck_on
        if self._power[port] != on and port not in stuck:
            self._power[port] = on
            self._hook(port, on)

    # Objects

    def _make_objects(self) -> dict[Oid, Callable[[], object]]:
        """Every object instance and how to read it."""
        system = {
            1: lambda: OctetString("PiSeduce lab PoE switch"),  # sysDescr
            2: lambda: ObjectIdentifier((0, 0)),  # sysObjectID: nobody's product
            3: self._uptime,  # sysUpTime
            4: lambda: OctetString(""),  # sysContact
            5: lambda: OctetString(self.name),  # sysName
            6: lambda: OctetString(""),  # sysLocation
            7: lambda: Integer32(2),  # sysServices: a bridge
        }
        main = {
            2: lambda: Gauge32(WATTS_PER_PORT * self.port_count),  # pethMainPsePower
            3: lambda: Integer32(1),  # pethMainPseOperStatus: on
            4: lambda: Gauge32(4 * sum(self._power.values())),  # pethMainPseConsumptionPower
        }
        objects: dict[Oid, Callable[[], object]] = {}
        objects.update({(*SYSTEM, column, 0): read for column, read in system.items()})
        objects.update({(*MAIN_ENTRY, column, GROUP): read for column, read in main.items()})
        for port in range(1, self.port_count + 1):
            index = (GROUP, self._first_index + port - 1)
            objects[(*ADMIN, *index)] = functools.partial(self._admin_value, port)
            objects[(*STATUS, *index)] = functools.partial(self._status_value, port)
        return objects

    def _uptime(self) -> TimeTicks:
        return TimeTicks(int((time.monotonic() - self._started) * 100) % 2**32)

    def _admin_value(self, port: int) -> Integer32:
        return Integer32(TRUE if self._admin[port] else FALSE)

    def _status_value(self, port: int) -> Integer32:
        return Integer32(int(self._status(port)))

    def _port_of(self, name: Oid) -> int | None:
        """The port whose pethPsePortAdminEnable has this name."""
        if name[:-1] != (*ADMIN, GROUP) or name not in self._objects:
            return None
        return name[-1] - self._first_index + 1

    def _is_object(self, name: Oid) -> bool:
        return any(name[: len(known)] == known for known in self._object_types)

    def _check_size(self, names: tuple[Oid, ...]) -> None:
        if self.faults.max_varbinds and len(names) > self.faults.max_varbinds:
            raise error.TooBigError(idx=0)

    # Operations (RFC 3416, 4.2)

    def get(self, var_binds: list[VarBind], security_name: str) -> list[VarBind]:
        """GetRequest: a value, noSuchInstance or noSuchObject for each name."""
        names = tuple(tuple(name) for name, _ in var_binds)
        self.recent.append(Request("get", names, security_name))
        self._check_size(names)
        answer = []
        for name in names:
            if name in self._objects:
                value = self._objects[name]()
            else:
                value = noSuchInstance if self._is_object(name) else noSuchObject
            answer.append((ObjectName(name), value))
        return answer

    def get_next(self, var_binds: list[VarBind], security_name: str) -> list[VarBind]:
        """GetNextRequest: the next object in lexicographic order, or endOfMibView."""
        names = tuple(tuple(name) for name, _ in var_binds)
        self.recent.append(Request("next", names, security_name))
        answer = []
        for name in names:
            place = bisect.bisect_right(self._order, name)
            if place == len(self._order):
                answer.append((ObjectName(name), endOfMibView))
            else:
                following = self._order[place]
                answer.append((ObjectName(following), self._objects[following]()))
        return answer

    def set(self, var_binds: list[VarBind], security_name: str, may_write: bool) -> list[VarBind]:
        """SetRequest: all of it or nothing. Raises a pysnmp.smi.error with the index in `idx`."""
        names = tuple(tuple(name) for name, _ in var_binds)
        self.recent.append(Request("set", names, security_name))
        if self.faults.ignore_sets:
            raise PySnmpError("ignored")  # pysnmp drops a request that ends so
        self._check_size(names)
        changes = [
            self._checked(index, name, value, may_write)
            for index, (name, (_, value)) in enumerate(zip(names, var_binds, strict=True))
        ]
        for port, on in changes:
            self.set_port(port, on)
        return var_binds

    def _checked(self, index: int, name: Oid, value: object, may_write: bool) -> tuple[int, bool]:
        """The (port, on) that one varbind of a SET asks for. The order is RFC 3416's, 4.2.5."""
        if not may_write:
            raise error.NoAccessError(name=name, idx=index)
        port = self._port_of(name)
        if port is None:
            if name[: len(ADMIN)] == ADMIN:
                raise error.NoCreationError(name=name, idx=index)
            raise error.NotWritableError(name=name, idx=index)
        if value.tagSet != Integer32.tagSet:
            raise error.WrongTypeError(name=name, idx=index)
        if int(value) not in (TRUE, FALSE):
            raise error.WrongValueError(name=name, idx=index)
        if status := self.faults.refuse.get(port, self.faults.refuse_all):
            raise ERRORS[status](name=name, idx=index)
        return port, int(value) == TRUE
