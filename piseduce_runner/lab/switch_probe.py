"""Asks the lab's switch for a port, in both versions of SNMP, as the deployment will."""

from pysnmp.hlapi.v3arch.asyncio import (
    CommunityData,
    ContextData,
    ObjectIdentity,
    ObjectType,
    SnmpEngine,
    UdpTransportTarget,
    UsmUserData,
    get_cmd,
    usmAesCfb128Protocol,
    usmHMACSHAAuthProtocol,
)

from piseduce_runner.lab.probe import NoAnswer
from piseduce_runner.lab.settings import Settings
from piseduce_runner.lab.switch_ports import ADMIN, GROUP


async def ask_switch(settings: Settings, access: dict[str, str], udp_port: int = 161) -> None:
    """Reads the last port's admin state by v2c and by v3. Raises NoAnswer."""
    logins = {
        "v2c": CommunityData(access["read_community"], mpModel=1),  # noqa: S508 (what switches speak)
        "v3": UsmUserData(
            access["user"],
            access["auth_password"],
            access["priv_password"],
            authProtocol=usmHMACSHAAuthProtocol,
            privProtocol=usmAesCfb128Protocol,
        ),
    }
    name = (*ADMIN, GROUP, settings.port_count)
    engine = SnmpEngine()
    try:
        for version, login in logins.items():
            target = await UdpTransportTarget.create((settings.switch_address, udp_port), 2, 2)
            wanted = ObjectType(ObjectIdentity(name))
            failure, status, _, answer = await get_cmd(
                engine, login, target, ContextData(), wanted, lookupMib=False
            )
            if failure or status or int(answer[0][1]) not in (1, 2):
                raise NoAnswer(f"the switch does not answer by SNMP {version}: {failure or status}")
    finally:
        engine.close_dispatcher()
