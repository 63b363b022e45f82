"""What schemathesis is told about this API that a description cannot say. Loaded by its runs."""

import atexit
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import requests
import schemathesis

# They end the very login that everything else is asked with, so each gets one of its own.
_ENDING = {"/api/auth/logout", "/api/auth/change-password", "/api/auth/deactivate"}
_COUNTED: Counter[str] = Counter()
_SURFACE = json.loads(os.environ["WAYPOST_TEST_SURFACE"])


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Show another login where the caller's would end; whoever shows none, or another, stays."""
    shown = _SURFACE["headers"].get("Authorization")
    ends = case.operation.path in _ENDING and shown is not None
    if ends and (case.headers or {}).get("Authorization") == shown:
        login = requests.post(
            f"{_SURFACE['url']}/api/auth/login", json=_SURFACE["spare"], timeout=10
        )
        case.headers["Authorization"] = f"Bearer {login.json()['data']['token']}"


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Count what was asked: in which phase, and whether the description allows it."""
    phase, mode = case.meta.phase.name.value, case.meta.generation.mode.value
    _COUNTED[f"{phase}, {mode}"] += 1


@atexit.register
def _tell() -> None:
    Path(_SURFACE["counted"]).write_text(json.dumps(_COUNTED))
