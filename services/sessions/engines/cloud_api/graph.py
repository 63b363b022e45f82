"""Asking Meta's Graph API, and what its answers mean."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Final, TypeVar
from urllib.parse import quote

import orjson
from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ConnectionTimeoutError,
    MultipartWriter,
)
from aiohttp.payload import Payload
from pydantic import BaseModel, ConfigDict, ValidationError

from services.sessions.engines.cloud_api.account import Account
from services.sessions.engines.cloud_api.outgoing import Json
from services.sessions.engines.cloud_api.refusals import Fault, raised_for
from services.sessions.engines.port import Attachment, Refused, Retryable
from shared.errors import PlatformError, Transient, Unconfirmed
from shared.media.kinds import MediaTooLarge
from shared.media.store import MediaGone
from shared.security.egress import EgressClient, UrlRefused, read_at_most, was_refused

# An answer is some hundred bytes.
_ANSWER: Final = 256 * 1024
_PORTION: Final = 256 * 1024
_CALL: Final = timedelta(seconds=15)
_JSON: Final = "application/json"
_FIELDS: Final = "fields=id,display_phone_number,verified_name"


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


A = TypeVar("A", bound=_Answer)


class Number(_Answer):
    """A number at Meta. ``verified_name`` is what its owner is called."""

    id: str
    display_phone_number: str = ""
    verified_name: str | None = None

    @property
    def phone_number(self) -> str | None:
        """With ``+`` and digits."""
        digits = "".join(letter for letter in self.display_phone_number if letter.isdigit())
        return f"+{digits}" if digits else None


class _Sent(_Answer):
    class Message(_Answer):
        id: str

    messages: tuple[Message, ...]


class _Uploaded(_Answer):
    id: str


class _Media(_Answer):
    url: str
    file_size: int | None = None


class Business(_Answer):
    """What a business tells of itself."""

    about: str | None = None
    profile_picture_url: str | None = None


class _Businesses(_Answer):
    data: tuple[Business, ...] = ()


class _Error(_Answer):
    class Data(_Answer):
        details: str | None = None

    code: int | None = None
    message: str = ""
    is_transient: bool = False
    error_data: Data | str | None = None

    @property
    def words(self) -> str:
        """The most telling of what it says."""
        details = self.error_data.details if isinstance(self.error_data, _Error.Data) else None
        return details or self.message


class _Refusal(_Answer):
    error: _Error


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The Graph API at ``url``, its version included. ``largest`` is in bytes, of what is fetched.

    ``patience`` is for files on their way up and down.
    """

    web: EgressClient
    url: str
    largest: int
    patience: timedelta

    async def number(self, account: Account) -> Number:
        """The account's number, which Meta tells to nobody without a valid token."""
        said = await self._get(account, f"{account.phone_number_id}?{_FIELDS}")
        return _read(Number, said)

    async def business(self, account: Account) -> Business:
        """What others see of the account."""
        at = f"{account.phone_number_id}/whatsapp_business_profile"
        said = await self._get(account, f"{at}?fields=about,profile_picture_url")
        return next(iter(_read(_Businesses, said).data), Business())

    async def send(self, account: Account, body: Json, *, patience: timedelta = _CALL) -> str:
        """Have a message sent; Meta's id of it. Raises ``Unconfirmed`` if that is not known."""
        said = await self._call(
            "POST",
            account,
            f"{account.phone_number_id}/messages",
            json=body,
            unsure=True,
            patience=patience,
        )
        try:
            sent = _Sent.model_validate_json(said).messages[0]
        except (ValidationError, IndexError):
            raise Unconfirmed("WhatsApp answered without the message's id.") from None
        return sent.id

    async def mark(self, account: Account, body: Json) -> None:
        """Tell the other side something that may be told twice."""
        await self._call("POST", account, f"{account.phone_number_id}/messages", json=body)

    async def upload(self, account: Account, file: Attachment, *, filename: str | None) -> str:
        """Give Meta a file; Meta's id of it. Nothing is said to anybody by that."""
        with await asyncio.to_thread(file.path.open, "rb") as opened:
            form = _form(opened, mime_type=file.mime_type, filename=filename or "file")
            said = await self._call(
                "POST",
                account,
                f"{account.phone_number_id}/media",
                form=form,
                patience=self.patience,
            )
        return _read(_Uploaded, said).id

    async def fetch(self, account: Account, media_id: str, into: Path) -> None:
        """Write a file that somebody sent to ``into``. Raises ``MediaGone`` if Meta has it not."""
        at = f"{quote(media_id, safe='')}?phone_number_id={account.phone_number_id}"
        try:
            found = _read(_Media, await self._get(account, at))
        except Refused as error:
            raise MediaGone(f"WhatsApp does not have the file any more. {error.message}") from error
        self._bound(found.file_size or 0)
        async with self._answer("GET", account, found.url, patience=self.patience) as response:
            if response.status in {404, 410}:
                raise MediaGone("WhatsApp does not have the file any more.")
            if response.status != 200:
                raise raised_for(Fault(status=response.status), unsure=False)
            with await asyncio.to_thread(into.open, "xb") as file:
                await self._write(response, file)

    async def _write(self, response: ClientResponse, file: IO[bytes]) -> None:
        size = 0
        async for portion in response.content.iter_chunked(_PORTION):
            size += len(portion)
            self._bound(size)
            await asyncio.to_thread(file.write, portion)

    def _bound(self, size: int) -> None:
        if size > self.largest:
            raise MediaTooLarge(f"The file is larger than {self.largest} bytes.")

    async def _get(self, account: Account, at: str) -> bytes:
        return await self._call("GET", account, at)

    async def _call(
        self,
        method: str,
        account: Account,
        at: str,
        *,
        json: Json | None = None,
        form: Payload | None = None,
        unsure: bool = False,
        patience: timedelta = _CALL,
    ) -> bytes:
        """What is answered to a request; raises what its refusal means."""
        body: bytes | Payload | None = form if json is None else orjson.dumps(json)
        headers = {} if json is None else {"Content-Type": _JSON}
        async with self._answer(
            method,
            account,
            f"{self.url}/{at}",
            body=body,
            headers=headers,
            unsure=unsure,
            patience=patience,
        ) as response:
            said = await read_at_most(response, _ANSWER)
            if response.status == 200:
                return said
            raise raised_for(_fault(response, said), unsure=unsure)

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        account: Account,
        url: str,
        *,
        body: bytes | Payload | None = None,
        headers: Mapping[str, str] | None = None,
        unsure: bool = False,
        patience: timedelta,
    ) -> AsyncIterator[ClientResponse]:
        """An answer, whatever it is; what fails on the way is what it means to the message."""
        told = {
            "Authorization": f"Bearer {account.access_token}",
            "Accept-Encoding": "identity",
            **(headers or {}),
        }
        try:
            async with self.web.request(
                method, url, body=body, headers=told, timeout=patience
            ) as response:
                yield response
        except PlatformError as error:
            if isinstance(error, UrlRefused):
                raise Transient(f"The Cloud API may not be called. {error.message}") from error
            raise
        except (ClientConnectorError, ConnectionTimeoutError) as error:
            why = "leads to a private address" if was_refused(error) else "cannot be reached"
            raise Retryable(f"The Cloud API {why}.") from error
        except (ClientError, TimeoutError, OSError) as error:
            if unsure:
                raise Unconfirmed("WhatsApp has not answered to the message.") from error
            raise Retryable("The connection to the Cloud API has failed.") from error


def _form(file: IO[bytes], *, mime_type: str, filename: str) -> MultipartWriter:
    form = MultipartWriter("form-data")
    for name, value in (("messaging_product", "whatsapp"), ("type", mime_type)):
        form.append(value).set_content_disposition("form-data", name=name)
    part = form.append(file, {"Content-Type": mime_type})
    part.set_content_disposition("form-data", name="file", filename=filename)
    return form


def _fault(response: ClientResponse, said: bytes) -> Fault:
    after = response.headers.get("Retry-After", "")
    wait = timedelta(seconds=int(after)) if after.isascii() and after[:6].isdigit() else None
    try:
        error = _Refusal.model_validate_json(said).error
    except ValidationError:
        return Fault(status=response.status, retry_after=wait)
    return Fault(
        status=response.status,
        code=error.code,
        message=error.words,
        transient=error.is_transient,
        retry_after=wait,
    )


def _read(model: type[A], said: bytes) -> A:
    try:
        return model.model_validate_json(said)
    except ValidationError:
        raise Retryable("WhatsApp answered in a way that nobody knows.") from None
