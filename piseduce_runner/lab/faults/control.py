"""The way from a command to the running supervisor: a Unix socket, one JSON object per line.

A request is {"do": "set", "fault", "words"} or {"do": "clear", "fault", "target"} (both may be
null) or {"do": "list"}. The answer is {"faults": [...]}: what was set, what was cleared, or all
that is set; or {"error", "mistake"}: one line, and whether it is the user's mistake.
"""

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from piseduce_runner.errors import UserError
from piseduce_runner.lab.faults.faults_set import FaultsSet
from piseduce_runner.lab.faults.words import check_target, known_fault, read_wish
from piseduce_runner.lab.folder import LabFolder
from piseduce_runner.lab.settings import Settings

log = logging.getLogger("control")

SOCKET = "control.socket"
ANSWER_WITHIN = 60.0  # seconds


class NotDone(Exception):
    """The supervisor could not do what it was asked; one line."""


@asynccontextmanager
async def serve(lab: LabFolder, faults: FaultsSet, settings: Settings) -> AsyncIterator[None]:
    """Answers requests about the faults of a lab within the block. OSError: no socket."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async for line in reader:
                answer = await _answer(line, faults, settings)
                await asyncio.sleep(0)  # the status is written before the command goes on
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError) as error:  # gone, or a line without end
            log.info("a command has hung up: %s", error)
        finally:
            writer.close()

    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short_name(lab) as name:
        listening.bind(name)
    (lab.path / SOCKET).chmod(0o600)
    server = await asyncio.start_unix_server(talk, sock=listening)
    try:
        yield
    finally:
        server.close()


async def _answer(line: bytes, faults: FaultsSet, settings: Settings) -> dict:
    try:
        return {"faults": await _do(json.loads(line), faults, settings)}
    except UserError as error:
        return {"error": str(error), "mistake": True}
    except (OSError, RuntimeError) as error:
        log.error("%s: %s", line.decode("utf-8", "replace").strip(), error)
        return {"error": " ".join(str(error).split()), "mistake": False}
    except (ValueError, TypeError, KeyError) as error:
        return {"error": f"not understood: {error!r}", "mistake": False}


async def _do(request: dict, faults: FaultsSet, settings: Settings) -> list[dict]:
    match request["do"]:
        case "set":
            return await faults.set(read_wish(request["fault"], request["words"], settings))
        case "clear":
            name, target = request["fault"], request["target"]
            fault = known_fault(name) if name else None
            if target:
                check_target(fault, target, settings)
            return await faults.clear(name, target)
        case "list":
            return faults.listing()
    raise ValueError(request["do"])


def ask(lab: LabFolder, request: dict) -> list[dict]:
    """What the lab's supervisor answers. UserError: a mistake, or no lab. NotDone: it failed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_WITHIN)
        try:
            with _short_name(lab) as name:
                connection.connect(name)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
        except PermissionError as error:
            raise UserError("faults are set and cleared as root (sudo)") from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise UserError(
                f"lab {lab.name} is not up; start it with: piseduce-run lab up"
            ) from error
        except TimeoutError as error:
            raise NotDone(f"lab {lab.name} does not answer: see {lab.supervisor_log}") from error
    if not line:
        raise NotDone(f"lab {lab.name} went down meanwhile")
    answer = json.loads(line)
    if "error" in answer:
        raise (UserError if answer["mistake"] else NotDone)(answer["error"])
    return answer["faults"]


@contextmanager
def _short_name(lab: LabFolder) -> Iterator[str]:
    """A name of the socket that fits into a socket's address (unix(7): 107 bytes)."""
    folder = os.open(lab.path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)
