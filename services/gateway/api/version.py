"""What is running here."""

from typing import Final

from aiohttp import web
from pydantic import Field

from shared.web.envelope import respond
from shared.web.schemas import ApiView

VERSION: Final = "0.1.0"
# Changes when clients may want to know; fields are only ever added.
REVISION: Final = "2026-01"


class VersionView(ApiView):
    """The program's version, the commit it was built from, and the revision of this API."""

    version: str = Field(examples=[VERSION])
    commit: str = Field(examples=["0123abc"])
    api_revision: str = Field(examples=[REVISION])


class Versions:
    """``/api/version``."""

    def __init__(self, *, commit: str) -> None:
        self._view = VersionView(version=VERSION, commit=commit, api_revision=REVISION)

    async def get(self, request: web.Request) -> web.StreamResponse:
        return respond(self._view)
