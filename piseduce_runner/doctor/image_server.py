"""The image server: it answers, and serves the environments as they lie in the site."""

import http.client
import urllib.parse
from pathlib import Path

from piseduce_runner.doctor.findings import Finding, not_checked, ok, problem
from piseduce_runner.environments import DESCRIPTION, Environment, list_environments

_CHECK = "image-server"
_SECONDS = 4


def check_image_server(url: str, folder: Path) -> list[Finding]:
    """The files of the environments in `folder` have over HTTP the length that they have there."""
    environments, _ = list_environments(folder)
    try:
        if not environments:
            _head(f"{url}/")
            why = "it answers, but there is no environment that it could be asked for"
            return [not_checked(_CHECK, url, why, "add one")]
        return [_check_environment(url, one) for one in environments]
    except (OSError, http.client.HTTPException, ValueError) as error:
        said = f"no image server answers there ({error}): no image can be copied"
        remedy = (
            "start nginx (its configuration is made by playbooks/manager.yml), or correct"
            " piseduce_image_url"
        )
        return [problem(_CHECK, url, said, remedy)]


def _check_environment(url: str, environment: Environment) -> Finding:
    names = (DESCRIPTION, environment.block_map, environment.image)
    for name in names:
        place = f"{url}/{environment.name}/{name}"
        status, length = _head(place)
        file = environment.folder / name
        remedy = f"let piseduce_image_url show {environment.folder.parent}, readable for the server"
        if status != http.client.OK:
            reason = http.client.responses.get(status, "")
            return problem(_CHECK, place, f"it answers {status} {reason}".rstrip(), remedy)
        size = file.stat().st_size
        if length != size:
            said = f"it would give {length} bytes, but {file} has {size}"
            return problem(_CHECK, place, said, remedy)
    return ok(_CHECK, f"{url}/{environment.name}", f"it serves {', '.join(names)}")


def _head(url: str) -> tuple[int, int | None]:
    """Status and Content-Length that the server answers to HEAD (RFC 9110, 9.3.2).

    Straight to it, whatever proxy the admin's environment names: nodes know of none.
    """
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_SECONDS)
    try:
        connection.request("HEAD", urllib.parse.quote(parts.path))
        answer = connection.getresponse()
        length = answer.getheader("Content-Length")
        return answer.status, int(length) if length else None
    finally:
        connection.close()
