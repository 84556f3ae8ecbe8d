"""`piseduce-run deploy`: checks the request, drives the nodes, shows them, and sums up."""

import os
import queue
import signal
import socket
import time
from pathlib import Path

from piseduce_runner import deployment, planner
from piseduce_runner.deployment import BatchMaker, Request
from piseduce_runner.driver import Driver, DriverSettings
from piseduce_runner.errors import UserError
from piseduce_runner.planner import Record, Status
from piseduce_runner.processes import Process
from piseduce_runner.progress import ProgressListener
from piseduce_runner.run_folder import remove_stale_run_folders
from piseduce_runner.runner import AnsibleRunner
from piseduce_runner.runs import RunEvent
from piseduce_runner.show import driving
from piseduce_runner.site import Site
from piseduce_runner.store import Deployment, NewDeployment, NodeTaken, Store
from piseduce_runner.usage import UsageMeter


def check(
    site: Site,
    *,
    nodes: tuple[str, ...],
    environment: str,
    owner: str,
    update: bool,
    part_size: str,
    ssh_keys: tuple[Path, ...],
    password: str | None,
) -> Request:
    """Turn what the user typed into a request. Raises `UserError`; touches nothing."""
    deployment.check_owner(owner)
    chosen = site.choose_nodes(nodes)
    part_bytes = deployment.parse_part_size(part_size)
    keys = deployment.read_ssh_keys(list(ssh_keys))
    password_hash = deployment.hash_password(password) if password is not None else ""
    found = deployment.find_environment(site, environment)
    deployment.check_part_size(part_bytes, found, chosen)
    site.check_ready()
    store = Store.open_existing(site.database)
    if store is not None:
        held = store.deployments()
        store.close()
        for node in chosen:
            _check_free(held.get(node.name), owner)
    return Request(tuple(chosen), found, owner, update, part_bytes, password_hash, keys)


def _check_free(held: Deployment | None, owner: str) -> None:
    """A node that is being driven, or is somebody else's, is not deployed over."""
    if held is None:
        return
    if held.is_claimed(time.time()):
        raise UserError(
            f"{held.node} is being deployed for {held.owner} by {held.claim};"
            f" wait for it, or, if that has died, {held.claim_expires - time.time():.0f} s"
        )
    if held.owner != owner:
        raise UserError(
            f"{held.node} is held by {held.owner}: their deployment is on it;"
            f" ask them, or deploy in their name (--owner {held.owner})"
        )


def run(
    site: Site, process: Process, request: Request, *, as_json: bool, identity: Path | None
) -> int:
    """Deploy, and show it. Gives the exit status: 0 when every node is deployed, else 1.

    `identity` is the private key that the shown login line names.
    """
    remove_stale_run_folders()
    meter = UsageMeter()
    meter.start()
    events: queue.SimpleQueue[RunEvent] = queue.SimpleQueue()
    try:
        names = [node.name for node in request.nodes]
        progress = ProgressListener(site.manager_address, names, events.put)
    except OSError as error:
        raise UserError(
            f"piseduce_manager_address {site.manager_address} is no address of this machine"
            f" ({error.strerror}); run on the manager"
        ) from error
    store = Store.open(site.database)
    records = [planner.begin(process, n.name, request.conditions) for n in request.nodes]
    settings = DriverSettings()
    claim = f"piseduce-run on {socket.gethostname()}, pid {os.getpid()}"
    _claim_nodes(store, process, request, records, claim, settings)

    with driving.deployment_view(as_json, process, request) as view:
        driver = Driver(
            process,
            store,
            AnsibleRunner(site.inventory, site.roles),
            BatchMaker(site, store, request, progress.target),
            events,
            claim=claim,
            observe=view.observe,
            settings=settings,
        )
        _stop_on_signals(driver)
        try:
            ended = driver.run(records)
        finally:
            progress.close()
    held = store.deployments()
    store.close()
    usage = meter.stop()
    driving.deployment_summary(
        as_json,
        site,
        request,
        [held[name] for name in ended],
        usage,
        driver.runs_started,
        identity,
    )
    return 0 if all(r.status is Status.DEPLOYED for r in ended.values()) else 1


def _claim_nodes(
    store: Store,
    process: Process,
    request: Request,
    records: list[Record],
    claim: str,
    settings: DriverSettings,
) -> None:
    now = time.time()
    new = [
        NewDeployment(
            node=record.node,
            process=process.name,
            environment=request.environment.name,
            owner=request.owner,
            position=record.position,
            state=process.states[record.position].name,
            options=request.options,
        )
        for record in records
    ]
    try:
        store.begin(new, claim, now, now + settings.claim)
    except NodeTaken as error:
        raise UserError(f"{error}; nothing was started") from error


def _stop_on_signals(driver: Driver) -> None:
    """Ctrl-C and SIGTERM end the runs cleanly; what was under way is lost, and says so."""

    def stop(number: int, _frame) -> None:
        driver.stop(f"stopped by {signal.Signals(number).name}; deploy the node again")

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
