"""Power over Ethernet ports of a switch: read them, switch them, and prove that it happened.

Columns of pethPsePortTable, RFC 3621 (POWER-ETHERNET-MIB): pethPsePortAdminEnable is what was asked
of a port, pethPsePortDetectionStatus is what becomes of it. A port is proven

* off when it is disabled and the status is neither deliveringPower nor test;
* on when it is enabled and the status is deliveringPower.

A switch without a usable status column is taken by its word.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ansible.module_utils.piseduce_snmp import Missing, NoAnswer, Refused, SnmpError, oid_text

ADMIN = {1: "on", 2: "off"}  # TruthValue, RFC 2579
STATUS = {
    1: "disabled",
    2: "searching",
    3: "deliveringPower",
    4: "fault",
    5: "test",
    6: "otherFault",
}
# A last look that the deadline cut shorter than this does not prove that the switch fell silent.
SILENCE_SECONDS = 0.5
POWERED = ("deliveringPower", "test")  # a test may power the port
STATUS_REASONS = {  # why a port with the right admin state is not proven
    "disabled": "enabled, but the status stays `disabled`: the switch withholds power, look at "
    "its PoE budget and the port's PoE settings",
    "searching": "enabled, but the switch finds nothing that wants power (`searching`): look at "
    "the cable and the node's PoE HAT",
    "deliveringPower": "disabled, but the switch still delivers power (`deliveringPower`): it "
    "keeps PoE up by itself (perpetual PoE?), or the port is broken",
    "fault": "the switch reports a `fault` of the port: look at its log",
    "test": "the switch has the port in `test` mode: end the test on the switch",
    "otherFault": "the switch reports `otherFault` (an error condition such as overload or short "
    "circuit): look at its log, the cable and the node",
}

ACCESS_STATUSES = ("noAccess", "notWritable", "readOnly", "authorizationError", "noSuchName")


class PowerError(Exception):
    """One line: which port is not as asked, why, and what to do."""


class Misconfigured(PowerError):
    """The same, and no retry can help: the switch or its description has to be changed."""


@dataclass(frozen=True)
class PortState:
    """`admin` is "on" or "off"; `status` a name of RFC 3621, or "" if the switch has no status."""

    admin: str
    status: str

    def proves(self, wanted):
        """Whether the port is `wanted` ("on" or "off") beyond its word."""
        if self.admin != wanted:
            return False
        if not self.status:
            return True
        if wanted == "on":
            return self.status == "deliveringPower"
        return self.status not in POWERED


class PortTable:
    """The ports of one switch, through a Client.

    Port n has the object `<oid>.<offset + n>` in both columns; an empty `status_oid` says that the
    switch has no such column.
    """

    def __init__(self, client, admin_oid, status_oid, offset):
        self._client = client
        self._admin_oid = admin_oid
        self._status_oid = status_oid
        self._offset = offset

    def _names(self, ports, oid):
        return {port: (*oid, self._offset + port) for port in ports}

    def read(self, ports):
        """{port: PortState}. SnmpError, or PowerError if the switch has no such port or column."""
        admin = self._names(ports, self._admin_oid)
        status = self._names(ports, self._status_oid) if self._status_oid else {}
        try:
            values = self._client.get([*admin.values(), *status.values()])
        except Refused as refusal:
            raise Misconfigured(
                f"the switch at {self._client.peer} does not let {self._client.who} read its ports "
                f"({refusal.status}): give it a view of the columns on the switch"
            ) from refusal
        return {
            port: PortState(
                self._value(port, admin[port], values, ADMIN, "admin_oid"),
                self._value(port, status[port], values, STATUS, "status_oid") if status else "",
            )
            for port in ports
        }

    def _value(self, port, oid, values, names, option):
        value = values[oid]
        if value == "noSuchInstance":
            raise Misconfigured(
                f"port {port} does not exist on the switch at {self._client.peer}: it has no "
                f"object {oid_text(oid)} (port_offset {self._offset} + port {port}); compare port, "
                "port_offset and port_count with a walk of the column"
            )
        if isinstance(value, Missing):
            hint = " or set it to the empty string" if option == "status_oid" else ""
            raise Misconfigured(
                f"the switch at {self._client.peer} has no column {oid_text(oid[:-1])}, or hides "
                f"it from {self._client.who}: correct {option}{hint}"
            )
        if value not in names:
            raise Misconfigured(
                f"port {port}: the switch at {self._client.peer} answers {value} for "
                f"{oid_text(oid)}, where RFC 3621 has {min(names)} to {max(names)}: "
                f"correct {option}"
            )
        return names[value]

    def switch(self, ports, wanted):
        """Asks for the ports to be "on" or "off", all in one request. SnmpError, PowerError."""
        code = next(code for code, name in ADMIN.items() if name == wanted)
        names = self._names(ports, self._admin_oid)
        try:
            self._client.set(dict.fromkeys(names.values(), code))
        except Refused as refusal:
            port = next((port for port, oid in names.items() if oid == refusal.oid), None)
            kind = Misconfigured if refusal.status in ACCESS_STATUSES else PowerError
            raise kind(self._refusal(refusal, port, wanted)) from refusal

    def _refusal(self, refusal, port, wanted):
        which = f"port {port}" if port is not None else "the ports"
        if refusal.status in ACCESS_STATUSES:
            hint = f": {self._client.who} may read but not write; use one with write access"
        elif refusal.status in ("genErr", "resourceUnavailable", "commitFailed", "undoFailed"):
            hint = ": the switch could not do it; look at its log and its power budget"
        else:
            hint = ": admin_oid may not be pethPsePortAdminEnable (RFC 3621) of this switch"
        return (
            f"the switch at {self._client.peer} refused to switch {which} {wanted} "
            f"({refusal.status}){hint}"
        )


class PowerChange:
    """Brings ports of a PortTable to `wanted` ("on" or "off"): plan(), then carry_out().

    `before` and `after` are {port: PortState}, None as long as they are not known; `differing` are
    the ports that have to be switched. Nothing goes on beyond `deadline`; `poll_interval` (seconds)
    lies between two looks at the ports, `hold_seconds` is how long a proven state must last.
    """

    def __init__(self, table, ports, wanted, *, deadline, poll_interval, hold_seconds):
        self._table = table
        self._ports = ports
        self._wanted = wanted
        self._deadline = deadline
        self._poll_interval = poll_interval
        self._hold_seconds = hold_seconds
        self.before = None
        self.after = None
        self.differing = []

    def plan(self):
        """Reads the ports and compares. SnmpError, PowerError."""
        self.before = self.after = self._table.read(self._ports)
        self.differing = [p for p in self._ports if self.before[p].admin != self._wanted]

    def carry_out(self):
        """Switches what differs, then waits until all of it is proven. SnmpError, PowerError."""
        if self._wanted == "on":
            self._wait_until_unpowered()
        self._wait_until_proven(self._switch())
        if self._hold_seconds:
            self._hold()

    def _wait_until_unpowered(self):
        """What is to be switched on must be off before: no power may linger on it."""
        while True:
            powered = [p for p in self.differing if self.after[p].status in POWERED]
            if not powered:
                return
            if self._no_time_to_poll():
                raise PowerError(
                    f"{_ports(powered)} disabled, but still `{self.after[powered[0]].status}`: not "
                    "switched on, because a port must be proven off first"
                )
            time.sleep(self._poll_interval)
            try:
                self.after = self._table.read(self._ports)
            except NoAnswer as problem:
                if problem.seconds >= SILENCE_SECONDS:
                    raise

    def _switch(self):
        """Returns the NoAnswer to the SET, if there was none: the switch may have heard it."""
        if not self.differing:
            return None
        self.after = None
        try:
            self._table.switch(self.differing, self._wanted)
        except NoAnswer as silence:
            return silence
        except PowerError:
            self._look()
            raise
        return None

    def _look(self):
        """What became of the ports, for the report of an error that is being raised."""
        try:
            self.after = self._table.read(self._ports)
        except (SnmpError, PowerError):
            self.after = None

    def _wait_until_proven(self, unanswered):
        seen, silence = None, None
        while True:
            try:
                seen = self.after = self._table.read(self._ports)
            except NoAnswer as problem:
                if seen is None or problem.seconds >= SILENCE_SECONDS:
                    silence, self.after = problem, None
            else:
                silence = None
                if all(state.proves(self._wanted) for state in seen.values()):
                    return
            if self._no_time_to_poll():
                raise PowerError(self._shortfall(seen, silence, unanswered))
            time.sleep(self._poll_interval)

    def _hold(self):
        if self._hold_seconds >= self._deadline.left():
            raise PowerError(
                f"{_ports(self._ports)} {self._wanted}, but seen so late that the rest of "
                f"{self._hold_seconds:g} s does not fit into confirm_timeout: raise it"
            )
        self.after = None
        time.sleep(self._hold_seconds)
        self.after = self._table.read(self._ports)
        moved = [p for p, state in self.after.items() if not state.proves(self._wanted)]
        if moved:
            raise PowerError(
                f"{_ports(moved)} did not stay {self._wanted} for {self._hold_seconds:g} s: "
                "something else switches it too"
            )

    def _no_time_to_poll(self):
        return self._deadline.left() <= self._poll_interval

    def _shortfall(self, seen, silence, unanswered):
        """Why the ports are not proven, in one line; the same reason is said once."""
        if seen is None:
            return (
                f"{silence}; whether {_ports(self._ports)} went {self._wanted} is not known: "
                "the switch was asked to, and then fell silent"
            )
        reasons = {}
        for port, state in seen.items():
            if not state.proves(self._wanted):
                reason = self._reason(state, unanswered)
                reasons.setdefault(reason, []).append(port)
        text = "; ".join(f"{_ports(ports)}: {reason}" for reason, ports in reasons.items())
        return f"{text}; this was the last that was seen: {silence}" if silence else text

    def _reason(self, state, unanswered):
        if state.admin == self._wanted:
            return STATUS_REASONS[state.status]
        if unanswered:
            return f"still {state.admin}; {unanswered}"
        return (
            f"the switch accepted `{self._wanted}` but still says `{state.admin}`: its "
            "configuration may be locked, or its SNMP agent does not do what it says"
        )


def _ports(ports):
    return f"port {ports[0]}" if len(ports) == 1 else f"ports {', '.join(map(str, ports))}"
