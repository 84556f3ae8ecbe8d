#!/usr/bin/env python3
"""A PoE port table for net-snmp's snmpd, as a pass_persist program (snmpd.conf(5)).

    pass_persist_ports.py STATE_FILE

STATE_FILE is JSON, read at every request and written at every SET: {"admin": {"1": 2, ...},
"status": {"1": 1, ...}, "refuse": [ports], "deaf": [ports], "sets": [[port, value], ...]}.
snmpd hands over a SET object by object: the agent is not atomic.
"""

import json
import sys
from pathlib import Path

ADMIN = ".1.3.6.1.2.1.105.1.1.1.3.1"
STATUS = ".1.3.6.1.2.1.105.1.1.1.6.1"


def value_of(state: dict, oid: str) -> int | None:
    column, _, port = oid.rpartition(".")
    table = {ADMIN: state["admin"], STATUS: state["status"]}.get(column, {})
    return table.get(port)


def key(oid: str) -> list[int]:
    return [int(number) for number in oid.strip(".").split(".")]


def following(state: dict, oid: str) -> str | None:
    every = [f"{column}.{port}" for column in (ADMIN, STATUS) for port in state["admin"]]
    return next((name for name in sorted(every, key=key) if key(name) > key(oid)), None)


def show(state: dict, oid: str | None) -> None:
    value = value_of(state, oid) if oid else None
    print("NONE" if value is None else f"{oid}\ninteger\n{value}")


def assign(path: Path, state: dict, oid: str, kind: str, value: str) -> str:
    """snmpd's words for what became of a SET."""
    column, _, port = oid.rpartition(".")
    if column != ADMIN or port not in state["admin"]:
        return "not-writable"
    if kind != "integer":
        return "wrong-type"
    if value not in ("1", "2"):
        return "wrong-value"
    if int(port) in state["refuse"]:
        return "inconsistent-value"
    state["sets"].append([int(port), int(value)])
    if int(port) not in state["deaf"]:
        state["admin"][port] = int(value)
        state["status"][port] = 3 if value == "1" else 1
    path.write_text(json.dumps(state))
    return "DONE"


def main() -> None:
    path = Path(sys.argv[1])
    while line := sys.stdin.readline():
        state = json.loads(path.read_text())
        command = line.strip()  # empty after each SET: snmpd ends its value with two newlines
        if command == "PING":
            print("PONG")
        elif command == "get":
            show(state, sys.stdin.readline().strip())
        elif command == "getnext":
            show(state, following(state, sys.stdin.readline().strip()))
        elif command == "set":
            oid = sys.stdin.readline().strip()
            kind, _, value = sys.stdin.readline().strip().partition(" ")
            print(assign(path, state, oid, kind, value.strip('"')))
        sys.stdout.flush()


main()
