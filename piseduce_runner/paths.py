"""Where the Ansible content that travels with this package lies."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def ansible_dir() -> Path:
    """Folder that holds playbooks/, roles/, library/, module_utils/, filter_plugins/, ansible.cfg.

    An installed wheel carries it inside the package; in a checkout it is the project's root.
    """
    installed = _PACKAGE / "ansible"
    return installed if installed.is_dir() else _PACKAGE.parent
