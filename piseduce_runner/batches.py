"""Makes the batches of runs: what roles find on each node, and how long states may last."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from piseduce_runner import environments, planner
from piseduce_runner.environments import Environment
from piseduce_runner.errors import UserError
from piseduce_runner.expressions import Expression, Facts
from piseduce_runner.families import Family, find_family
from piseduce_runner.known_hosts import ssh_options, write_known_hosts
from piseduce_runner.planner import Record
from piseduce_runner.processes import Phase, State
from piseduce_runner.runs import Batch
from piseduce_runner.site import NFS_HOSTNAME, Node, Site
from piseduce_runner.store import Deployment, Store

# Processes that make no sense without their environment; the others do without it.
_NEED_ENVIRONMENT = ("deploy",)


@dataclass(frozen=True)
class BatchMaker:
    """Makes the batches of one driver, from what the store says of each node.

    `progress` gives where a node sends its percent (see progress.py).
    """

    site: Site
    store: Store
    progress: Callable[[str], dict[str, Any]]

    def __call__(self, states: tuple[State, ...], records: list[Record]) -> Batch:
        """The batch of these nodes. Expects the host keys that the store knows from now on.

        Raises `UserError` when what a node needs is not there any more.
        """
        held = self.store.deployments()
        write_known_hosts(self.site, _host_keys(held))
        variables, timeouts, logs = {}, {}, {}
        for record in records:
            deployment = held[record.node]
            node = self._node(record.node)
            environment = self._environment(deployment)
            family, phase = self._family(deployment, environment), planner.phase_of(states)
            variables[node.name] = self._connection(node, phase, family)
            variables[node.name] |= self._contract(node, deployment, environment, family)
            facts = _facts(node, deployment, environment, len(records), phase)
            timeouts[node.name] = {
                state.position: _seconds(record, state, facts) for state in states
            }
            logs[node.name] = (
                self.site.logs / node.name / f"{deployment.id:06}-{deployment.process}.log"
            )
        return Batch(states, variables, timeouts, logs)

    def _node(self, name: str) -> Node:
        if name not in self.site.nodes:
            raise UserError(f"{name} is not in the inventory any more")
        return self.site.nodes[name]

    def _environment(self, deployment: Deployment) -> Environment | None:
        if not deployment.environment:
            return None
        try:
            return environments.find(self.site.environments, deployment.environment)
        except UserError:
            if deployment.process in _NEED_ENVIRONMENT:
                raise
            return None

    def _family(self, deployment: Deployment, environment: Environment | None) -> Family | None:
        """The family of the node's system, also when its environment is gone; None if unknown."""
        name = environment.family if environment else deployment.options.get("family", "")
        if not name:
            return None
        try:
            return find_family(self.site.folder, name)
        except UserError:
            if deployment.process in _NEED_ENVIRONMENT:
                raise
            return None

    def _connection(self, node: Node, phase: Phase, family: Family | None) -> dict[str, Any]:
        deployed = phase is Phase.DEPLOYED
        system = node.name if deployed else NFS_HOSTNAME
        return {
            "ansible_host": node.address,
            "ansible_user": family.manager_login if family and deployed else "root",
            "ansible_python_interpreter": (family.python if family and deployed else None)
            or "/usr/bin/python3",
            "ansible_ssh_private_key_file": str(self.site.manager_key),
            "ansible_ssh_common_args": shlex.join(ssh_options(self.site, system)),
        }

    def _contract(
        self,
        node: Node,
        deployment: Deployment,
        environment: Environment | None,
        family: Family | None,
    ) -> dict[str, Any]:
        """The variables that docs/roles.md promises to roles."""
        name = deployment.environment
        return {
            "deployment": deployment.options
            | {
                "id": deployment.id,
                "environment": environment.variables if environment else {"name": name},
                "environment_url": f"{self.site.image_url}/{name}",
            },
            "family": family.variables if family else {},
            "node_memory": deployment.memory,
            "node_card_device": node.card_device,
            "progress": self.progress(node.name),
            "site": {
                "manager_public_key": self.site.manager_public_key(),
                "manager_key_file": str(self.site.manager_key),
                "known_hosts_file": str(self.site.known_hosts),
                "nfs_hostname": NFS_HOSTNAME,
            },
        }


def _host_keys(held: dict[str, Deployment]) -> dict[str, str]:
    """The deployed systems' own host keys, by node."""
    return {
        name: deployment.memory["host_key"]
        for name, deployment in held.items()
        if "host_key" in deployment.memory
    }


def _facts(
    node: Node, deployment: Deployment, environment: Environment | None, nodes: int, phase: Phase
) -> Facts:
    """What the timeouts of a node's states may depend on."""
    return Facts(
        image_bytes=environment.image_bytes if environment else 0,
        mapped_bytes=environment.mapped_bytes if environment else 0,
        compressed_bytes=environment.compressed_bytes if environment else 0,
        part_bytes=deployment.options.get("part_bytes", 0),
        nodes=nodes,
        model=node.model,
        phase=phase.value,
    )


def _seconds(record: Record, state: State, facts: Facts) -> float:
    """How long the state may last: the node's own table counts, others of its batch may differ."""
    timeout = record.process.states[state.position].timeout
    if not isinstance(timeout, Expression):
        return timeout
    try:
        return timeout.seconds(facts)
    except ValueError as error:
        raise UserError(f"timeout of {state.name} on {record.node}: {error}") from error
