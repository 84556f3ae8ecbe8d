"""A small SNMP client: GET and SET of many objects in one request, v2c and v3, one deadline.

It stands on the protocol layer of pysnmp (PDUs, BER, USM ciphers) and a plain UDP socket. pysnmp's
engine is left out on purpose: it loads and compiles MIBs at every start, which costs a module that
lives for one call more CPU time than all the rest of it.

Sources: RFC 3416 (operations), RFC 1901 (v2c), RFC 3412 and 3414 (v3, in `piseduce_usm`).
"""

from __future__ import annotations

import secrets
import socket
import time

from pyasn1.codec.ber import decoder, encoder
from pyasn1.error import PyAsn1Error
from pyasn1.type.univ import Integer
from pysnmp.proto.api import v2c

# Enough for the ports of a 48-port switch, and an answer that fits an Ethernet frame (about 25
# bytes for each object): some agents answer fragments with silence rather than with tooBig.
MAX_OBJECTS = 50

# RFC 3416, 3: error-status.
STATUSES = (
    "noError", "tooBig", "noSuchName", "badValue", "readOnly", "genErr", "noAccess", "wrongType",
    "wrongLength", "wrongEncoding", "wrongValue", "noCreation", "inconsistentValue",
    "resourceUnavailable", "commitFailed", "undoFailed", "authorizationError", "notWritable",
    "inconsistentName",
)  # fmt: skip


def oid_text(oid):
    """(1, 3, 6) -> "1.3.6"."""
    return ".".join(map(str, oid))


class SnmpError(Exception):
    """One line: what failed, why, and what to do."""


class NoAnswer(SnmpError):
    """Nothing usable came back in `seconds`."""

    def __init__(self, message, seconds):
        super().__init__(message)
        self.seconds = seconds


class SecurityRefused(SnmpError):
    """The agent knows us not, or not with these passwords (SNMPv3)."""


class Refused(SnmpError):
    """The agent answered with an error status.

    `status` is its name in RFC 3416; `oid` the object it complains about, or None.
    """

    def __init__(self, operation, status, oid):
        self.operation = operation
        self.status = status
        self.oid = oid
        about = f" for {oid_text(oid)}" if oid else ""
        super().__init__(f"the switch answered {operation} with {status}{about}")


class NotOurs(Exception):
    """A datagram that does not answer our request: it is dropped."""


class SendAgain(Exception):
    """The agent told us what it needs to know; the request is to be sent anew, at once."""


def decoded(data, spec):
    """A message of the ASN.1 type `spec`. NotOurs: it is none.

    pyasn1 lets other errors than its own out when lengths in the data are absurd.
    """
    try:
        return decoder.decode(data, asn1Spec=spec)[0]
    except (PyAsn1Error, LookupError, ValueError, TypeError, ArithmeticError) as problem:
        raise NotOurs from problem


class Missing(str):
    """Stands for the value of an object that the agent does not have (RFC 3416, 4.2.1).

    `noSuchObject`: there is no such column; `noSuchInstance`: the column has no such row.
    """


class Deadline:
    """A point in monotonic time."""

    def __init__(self, seconds):
        self._end = time.monotonic() + seconds

    def left(self):
        """Seconds until then, never negative."""
        return max(0.0, self._end - time.monotonic())

    def passed(self):
        return self.left() == 0.0


class Community:
    """Messages of SNMPv2c (RFC 1901): the PDU behind a community, in clear."""

    def __init__(self, community):
        self._community = community
        self.silence = (
            "it is off or unreachable, SNMP is disabled on it or restricted to other managers, "
            "or the community is wrong (a wrong community is met with silence)"
        )
        self.who = "this community"

    def encode(self, pdu):
        message = v2c.Message()
        v2c.apiMessage.set_defaults(message)
        v2c.apiMessage.set_community(message, self._community.encode())
        v2c.apiMessage.set_pdu(message, pdu)
        return encoder.encode(message)

    def decode(self, datagram):
        message = decoded(datagram, v2c.Message())
        if int(v2c.apiMessage.get_version(message)) != 1:
            raise NotOurs
        return v2c.apiMessage.get_pdu(message)


class Client:
    """Asks one agent. Use it in a `with` block, which closes its socket.

    `security` is a Community or a Usm; `timeout` (seconds) is waited for each of 1 + `retries`
    tries of a request; nothing waits beyond the `deadline`. SnmpError: the address is unusable.
    """

    def __init__(self, address, udp_port, security, timeout, retries, deadline):
        self._security = security
        self._timeout = timeout
        self._tries = 1 + retries
        self._deadline = deadline
        self._limit = MAX_OBJECTS
        self.peer = f"{address} (UDP port {udp_port})"
        self._trouble = None
        try:
            family, kind, proto, _name, place = socket.getaddrinfo(
                address, udp_port, type=socket.SOCK_DGRAM
            )[0]
            self._socket = socket.socket(family, kind, proto)
        except (OSError, UnicodeError) as problem:
            raise SnmpError(
                f"the switch's address {address!r} cannot be used: {problem}"
            ) from problem
        try:
            # A connected socket takes datagrams from this peer only, and hears of closed ports.
            self._socket.connect(place)
        except OSError as problem:
            self._socket.close()
            raise SnmpError(f"no way to the switch at {self.peer}: {problem}") from problem

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._socket.close()

    @property
    def who(self):
        """Whom the agent takes us for, in words."""
        return self._security.who

    def get(self, oids):
        """{oid: value} of all `oids`; a Missing where the agent has no such object.

        Values are ints for the integer types, else pysnmp's own. Raises NoAnswer, Refused,
        SecurityRefused.
        """
        asked = [(oid, v2c.Null("")) for oid in oids]
        answered = self._in_parts("GET", v2c.GetRequestPDU, asked)
        return {oid: _plain(value) for oid, value in answered}

    def set(self, integers):
        """Sets {oid: int}, in one request if the agent takes it.

        A return means that the agent accepted, not that it did it: read back. Raises NoAnswer,
        Refused, SecurityRefused.
        """
        asked = [(oid, v2c.Integer32(value)) for oid, value in integers.items()]
        self._in_parts("SET", v2c.SetRequestPDU, asked)

    def _in_parts(self, operation, kind, objects):
        """Sends as many objects at once as the agent takes; halves the request on tooBig."""
        answered = []
        start = 0
        while start < len(objects):
            part = objects[start : start + self._limit]
            try:
                answered += self._request(operation, kind, part)
            except Refused as refusal:
                if refusal.status != "tooBig" or len(part) == 1:
                    raise
                self._limit = len(part) // 2
                continue
            start += len(part)
        return answered

    def _request(self, operation, kind, objects):
        pdu = kind()
        v2c.apiPDU.set_defaults(pdu)
        v2c.apiPDU.set_request_id(pdu, secrets.randbits(31))
        v2c.apiPDU.set_varbinds(pdu, objects)
        answer = self._exchange(operation, pdu)
        status = int(v2c.apiPDU.get_error_status(answer))
        if status:
            index = int(answer.getComponentByPosition(2))
            name = STATUSES[status] if status < len(STATUSES) else f"error status {status}"
            oid = tuple(objects[index - 1][0]) if 1 <= index <= len(objects) else None
            raise Refused(operation, name, oid)
        varbinds = [(tuple(oid), value) for oid, value in v2c.apiPDU.get_varbinds(answer)]
        if [oid for oid, _ in varbinds] != [tuple(oid) for oid, _ in objects]:
            raise SnmpError(
                f"the switch at {self.peer} answered {operation} with other objects than it was "
                "asked for: its SNMP agent is not usable"
            )
        return varbinds

    def _exchange(self, operation, pdu):
        """Sends the PDU, with the same request-id each time, until its response comes."""
        started = time.monotonic()
        self._trouble = None
        tries = 0
        while tries < self._tries and not self._deadline.passed():
            tries += 1
            turn = Deadline(min(self._timeout, self._deadline.left()))
            self._send(pdu)
            while not turn.passed():
                datagram = self._receive(turn)
                if datagram is None:
                    continue
                try:
                    answer = self._security.decode(datagram)
                    if _answers(answer, pdu):
                        return answer
                except SendAgain:
                    self._send(pdu)
                except NotOurs:
                    continue
                except SecurityRefused as problem:
                    raise SecurityRefused(f"{self.peer}: {problem}") from problem
        raise self._no_answer(operation, tries, time.monotonic() - started)

    def _send(self, pdu):
        datagram = self._security.encode(pdu)
        for _ in range(2):  # the first attempt may only report the fate of an earlier datagram
            try:
                self._socket.send(datagram)
                return
            except OSError as problem:
                self._trouble = problem

    def _receive(self, turn):
        """A datagram, or None: then either `turn` is over or it is not worth waiting."""
        self._socket.settimeout(max(turn.left(), 0.001))
        try:
            return self._socket.recv(65535)
        except TimeoutError:
            return None
        except OSError as problem:
            self._trouble = problem
            time.sleep(turn.left())  # the port is closed, or no route: perhaps not for long
            return None

    def _no_answer(self, operation, tries, seconds):
        if not tries:
            return NoAnswer(f"no time left to ask the switch at {self.peer}", seconds)
        if isinstance(self._trouble, ConnectionRefusedError):
            why = "the host is up, but no SNMP agent listens on that port"
        elif self._trouble is not None:
            why = str(self._trouble)
        else:
            why = self._security.silence
        return NoAnswer(
            f"no answer from the switch at {self.peer} to SNMP {operation} in {seconds:.1f} s "
            f"({tries} {'try' if tries == 1 else 'tries'}): {why}",
            seconds,
        )


def _answers(answer, pdu):
    """Whether a PDU is the response to ours: anything else is a stray or late datagram."""
    return answer.tagSet == v2c.ResponsePDU.tagSet and int(
        v2c.apiPDU.get_request_id(answer)
    ) == int(v2c.apiPDU.get_request_id(pdu))


def _plain(value):
    if value.tagSet == v2c.NoSuchObject.tagSet:
        return Missing("noSuchObject")
    if value.tagSet == v2c.NoSuchInstance.tagSet:
        return Missing("noSuchInstance")
    return int(value) if isinstance(value, Integer) else value
