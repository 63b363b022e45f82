"""What schemathesis is told about this API that a description cannot say. Loaded by its runs."""

import json
import os
from typing import Any

import requests
import schemathesis

# They end the very login that everything else is asked with, so each gets one of its own.
_ENDING = {"/api/auth/logout", "/api/auth/change-password", "/api/auth/deactivate"}
_SURFACE = json.loads(os.environ["WAYPOST_TEST_SURFACE"])


@schemathesis.auth(refresh_interval=None)
class Credential:
    """The one that the run calls with."""

    def get(self, case: Any, context: Any) -> dict[str, str]:
        """The header that shows it."""
        shown: dict[str, str] = _SURFACE["headers"]
        if case.operation.path not in _ENDING or "Authorization" not in shown:
            return shown
        login = requests.post(
            f"{_SURFACE['url']}/api/auth/login", json=_SURFACE["spare"], timeout=10
        )
        return {"Authorization": f"Bearer {login.json()['data']['token']}"}

    def set(self, case: Any, data: dict[str, str], context: Any) -> None:
        """Show it."""
        case.headers = {**(case.headers or {}), **data}
