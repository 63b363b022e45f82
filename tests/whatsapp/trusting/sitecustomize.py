"""Run by Python as it starts, where a test has put this folder on ``PYTHONPATH``.

Loads ``trust.py`` by its path: the process may have nothing of this repository to import from.
"""

import os
import runpy
from pathlib import Path

if root := os.environ.get("WAYPOST_TEST_WHATSAPP_ROOT"):
    trust = runpy.run_path(str(Path(__file__).parents[1] / "trust.py"))
    trust["when_loaded"](bytes.fromhex(root))
