"""The lab's PoE switch as an SNMP agent: v2c and v3 (USM) over UDP, an asyncio component.

`async with serve(PoeSwitch(8, hook), "127.0.0.1", 161, Access()) as (address, port): ...`
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pysnmp.carrier.asyncio.dgram import udp
from pysnmp.entity import config
from pysnmp.entity.engine import SnmpEngine
from pysnmp.entity.rfc3413 import cmdrsp
from pysnmp.entity.rfc3413.context import SnmpContext
from pysnmp.proto.api import v2c
from pysnmp.smi import error
from pysnmp.smi.instrum import AbstractMibInstrumController

from piseduce_runner.lab.switch_ports import Detection, Faults, PoeSwitch

__all__ = ["Access", "Detection", "Faults", "PoeSwitch", "serve"]

AUTH_PROTOCOLS = {
    "md5": config.USM_AUTH_HMAC96_MD5,
    "sha": config.USM_AUTH_HMAC96_SHA,
    "sha256": config.USM_AUTH_HMAC192_SHA256,
    "sha512": config.USM_AUTH_HMAC384_SHA512,
}
PRIV_PROTOCOLS = {"des": config.USM_PRIV_CBC56_DES, "aes": config.USM_PRIV_CFB128_AES}

V2C, V3 = 2, 3  # security models, RFC 3411
NO_AUTH_NO_PRIV, AUTH_PRIV = 1, 3  # security levels, RFC 3411


@dataclass(frozen=True)
class Access:
    """Who may read and write. An empty community or user switches that way in off.

    Passwords of the v3 user have at least 8 characters (RFC 3414, 11.2).
    """

    read_community: str = "public"
    write_community: str = "private"
    user: str = ""
    auth_protocol: str = "sha"
    auth_password: str = ""
    priv_protocol: str = "aes"
    priv_password: str = ""


@asynccontextmanager
async def serve(
    switch: PoeSwitch, address: str, udp_port: int, access: Access
) -> AsyncIterator[tuple[str, int]]:
    """Answers SNMP requests on an IPv4 address until the block is left; yields (address, port).

    `udp_port` 0 takes a free one. OSError: the address is not ours or the port is taken.
    ValueError: an unknown protocol, or a password that is too short.
    """
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        endpoint.bind((address, udp_port))
        bound = endpoint.getsockname()
        engine = SnmpEngine()
        _admit(engine, access)
    except BaseException:
        endpoint.close()
        raise
    transport = _Transport(switch.faults)
    config.add_transport(engine, udp.SNMP_UDP_DOMAIN, transport)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: transport, sock=endpoint)
    context = SnmpContext(engine)
    context.unregister_context_name(b"")
    context.register_context_name(b"", _Objects(switch, access))
    for responder in (
        cmdrsp.GetCommandResponder,
        cmdrsp.NextCommandResponder,
        cmdrsp.BulkCommandResponder,
        _SetResponder,
    ):
        responder(engine, context)
    try:
        yield bound
    finally:
        engine.close_dispatcher()
        await transport.closed


def _admit(engine: SnmpEngine, access: Access) -> None:
    """Registers communities and the user with the engine's security models."""
    if access.read_community:
        config.add_v1_system(engine, "reader", access.read_community)
    if access.write_community:
        config.add_v1_system(engine, "writer", access.write_community)
    if not access.user:
        return
    for password in (access.auth_password, access.priv_password):
        if len(password) < 8:
            raise ValueError("SNMPv3 passwords have at least 8 characters")
    if access.auth_protocol not in AUTH_PROTOCOLS or access.priv_protocol not in PRIV_PROTOCOLS:
        raise ValueError(
            f"unknown SNMPv3 protocols {access.auth_protocol}/{access.priv_protocol}; "
            f"known: {', '.join(AUTH_PROTOCOLS)} and {', '.join(PRIV_PROTOCOLS)}"
        )
    config.add_v3_user(
        engine,
        access.user,
        AUTH_PROTOCOLS[access.auth_protocol],
        access.auth_password,
        PRIV_PROTOCOLS[access.priv_protocol],
        access.priv_password,
    )


class _Transport(udp.UdpAsyncioTransport):
    """UDP that can lose or hold back datagrams, and says when its socket is closed."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._faults = faults
        self.closed: asyncio.Future[None] = self.loop.create_future()

    def datagram_received(self, datagram, transportAddress) -> None:  # noqa: N803 (their name)
        if self._faults.silent:
            return
        if self._faults.drop_next > 0:
            self._faults.drop_next -= 1
            return
        self.loop.call_later(self._faults.delay, self._deliver, datagram, transportAddress)

    def _deliver(self, datagram, address) -> None:
        if not self.closed.done() and self._callback_function is not None:
            self._callback_function(self, address, datagram)

    def send_message(self, outgoingMessage, transportAddress) -> None:  # noqa: N803
        if self._faults.drop_answers > 0:
            self._faults.drop_answers -= 1
            return
        super().send_message(outgoingMessage, transportAddress)

    def connection_lost(self, exc) -> None:
        super().connection_lost(exc)
        self.closed.set_result(None)


class _Objects(AbstractMibInstrumController):
    """pysnmp's way to the switch's objects, and the only place that decides who may do what.

    pysnmp leaves access control to this class. One function replaces its view tables (RFC 3415):
    readers and writers differ in nothing but SET.
    """

    def __init__(self, switch: PoeSwitch, access: Access) -> None:
        self._switch = switch
        self._user = access.user

    def _requester(self, context: dict) -> str:
        """Security name of the request. AuthorizationError: not known, or not secure enough."""
        request = context["snmpEngine"].observer.get_execution_context(
            "rfc3412.receiveMessage:request"
        )
        model, level = int(request["securityModel"]), int(request["securityLevel"])
        name = str(request["securityName"])
        if model == V2C and level == NO_AUTH_NO_PRIV and name in ("reader", "writer"):
            return name
        if model == V3 and level == AUTH_PRIV and self._user and name == self._user:
            return name
        raise error.AuthorizationError(idx=0)

    def read_variables(self, *varBinds, **context):  # noqa: N803
        return self._switch.get(varBinds, self._requester(context))

    def read_next_variables(self, *varBinds, **context):  # noqa: N803
        return self._switch.get_next(varBinds, self._requester(context))

    def write_variables(self, *varBinds, **context):  # noqa: N803
        requester = self._requester(context)
        return self._switch.set(varBinds, requester, may_write=requester != "reader")


class _SetResponder(cmdrsp.SetCommandResponder):
    """Answers a refused SET with the index of the varbind that was refused (RFC 3416, 4.2.5).

    pysnmp 7.1 resets the index to 1 whenever the request has more varbinds than the index.
    """

    def handle_management_operation(self, snmpEngine, stateReference, contextName, PDU):  # noqa: N803
        try:
            super().handle_management_operation(snmpEngine, stateReference, contextName, PDU)
        except error.MibOperationError as refusal:
            status = self.SMI_ERROR_MAP[type(refusal)]
            index, var_binds = refusal["idx"] + 1, v2c.apiPDU.get_varbinds(PDU)
            if status == "tooBig":  # RFC 3416, 4.2.5: index 0, no varbinds
                index, var_binds = 0, []
            self.send_varbinds(snmpEngine, stateReference, status, index, var_binds)
