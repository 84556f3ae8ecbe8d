"""Runs a module file as Ansible does on a node: a process of its own, arguments in, JSON out.

Usage: run_module.py LIBRARY/MODULE.py < arguments.json
"""

import json
import runpy
import sys
from pathlib import Path

import ansible.module_utils
from ansible.module_utils.testing import patch_module_args

module = Path(sys.argv[1]).resolve()
ansible.module_utils.__path__.append(str(module.parent.parent / "module_utils"))
with patch_module_args(json.load(sys.stdin)):
    runpy.run_path(str(module), run_name="__main__")
