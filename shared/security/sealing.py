"""Bytes that the database may keep but not read: one ring of keys seals them all.

What is sealed opens only with the ring, and only in its place: for another tenant, table or row it
is so much noise, so that nobody who can write to the database moves one customer's words to
another. The order of the ring is its history: the first key seals, all of them open.
"""

import base64
import binascii
import hmac
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import PlatformError

_VERSION: Final = 2
_NONCE: Final = 12
_TAG: Final = 16
_KEY: Final = 32
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")
# Tenants whose keys are remembered: two small objects each.
_REMEMBERED: Final = 10_000

# Whose the things are that belong to no tenant, or to several at once.
NOBODY: Final = UUID(int=0)

Part = str | bytes


class Unsealable(PlatformError):
    """These bytes were sealed under a key that is not here, in another place, or were changed."""


class Place(NamedTuple):
    """Where something sealed belongs: whose it is, in which table, in which row."""

    tenant: UUID
    table: str
    row: str


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the ring. ``id`` is not secret: it stands before whatever the key has sealed."""

    id: str
    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "Key":
        """A key as operators write it, ``id:base64``; raises ``ValueError`` without showing it."""
        id_, colon, encoded = text.strip().partition(":")
        if not colon or not _ID.fullmatch(id_):
            raise ValueError(
                "must be id:base64, the id of 1 to 32 letters, digits, dots, dashes or underscores"
            )
        try:
            secret = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise ValueError(
                "is not base64 after its id; 'openssl rand -base64 32' makes one"
            ) from None
        if len(secret) != _KEY:
            raise ValueError(f"has {len(secret)} bytes after its id, and needs {_KEY}")
        return cls(id_, secret)

    @classmethod
    def new(cls, id_: str) -> "Key":
        """A key that nobody has seen."""
        return cls(id_, os.urandom(_KEY))

    def written(self) -> str:
        """The key as operators write it; not what ``str`` gives, so that no log shows it."""
        return f"{self.id}:{base64.b64encode(self.secret).decode()}"


class KeyRing:
    """Seals and opens with AES-256-GCM, under a key of its own for every tenant.

    ``keys`` newest first: the first seals, all open. Safe to share between tasks.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        if not keys:
            raise ValueError("a key ring needs a key")
        if len({key.id for key in keys}) < len(keys):
            raise ValueError("two keys of the ring have the same id")
        # HKDF (RFC 5869): extract once here, expand once per tenant.
        self._roots = {_header(key): hmac.digest(b"waypost", key.secret, "sha256") for key in keys}
        self._newest = next(iter(self._roots))
        self._ciphers: dict[tuple[bytes, UUID], AESGCM] = {}
        self._index_keys: dict[UUID, tuple[bytes, ...]] = {}

    def seal(self, plain: bytes, place: Place) -> bytes:
        """``plain``, readable only with the ring, and only in this place."""
        header = self._newest
        nonce = os.urandom(_NONCE)
        cipher = self._ciphers.get((header, place.tenant)) or self._cipher(header, place.tenant)
        return header + nonce + cipher.encrypt(nonce, plain, _associated(header, place))

    def seal_all(self, table: str, rows: Iterable[tuple[UUID, str, bytes]]) -> list[bytes]:
        """Rows of one table at once, each of a tenant: in half the time that one by one takes."""
        header, ciphers = self._newest, self._ciphers
        of_table = table.encode()
        given = list(rows)
        nonces = os.urandom(_NONCE * len(given))
        sealed = []
        for at, (tenant, row, plain) in enumerate(given):
            nonce = nonces[at * _NONCE : (at + 1) * _NONCE]
            cipher = ciphers.get((header, tenant)) or self._cipher(header, tenant)
            place = _bound(header, tenant, of_table, row)
            sealed.append(header + nonce + cipher.encrypt(nonce, plain, place))
        return sealed

    def open(self, sealed: bytes, place: Place) -> bytes:
        """What was sealed there; raises ``Unsealable`` if it was not, or the key is not known."""
        header = self._header_of(sealed)
        if header is None:
            raise Unsealable(
                "Sealed under a key that is not in ENCRYPTION_KEYS, or not sealed at all."
            )
        body = len(header) + _NONCE
        cipher = self._ciphers.get((header, place.tenant)) or self._cipher(header, place.tenant)
        try:
            return cipher.decrypt(
                sealed[len(header) : body], sealed[body:], _associated(header, place)
            )
        except InvalidTag:
            raise Unsealable("Sealed for another place, or changed since.") from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether the newest key sealed this; if not, sealing it anew rotates it."""
        return sealed.startswith(self._newest)

    @property
    def current(self) -> bytes:
        """How everything begins that the newest key has sealed, for queries that look for it."""
        return self._newest

    def bound_to(self, *known: Part) -> "KeyRing":
        """The same ring with every key mixed with what only a caller knows.

        What it seals, neither the database nor the database and the ring together can open.
        """
        bound = object.__new__(KeyRing)
        bound._roots = {
            header: _expand(root, "bound", *known) for header, root in self._roots.items()
        }
        bound._newest = self._newest
        bound._ciphers = {}
        bound._index_keys = {}
        return bound

    def index_keys(self, tenant: UUID) -> tuple[bytes, ...]:
        """A tenant's keys for indexes that must be searched and may not be read, newest first.

        What is stored is made with the first; what is looked up, with each.
        """
        keys = self._index_keys.get(tenant)
        if keys is None:
            keys = tuple(_expand(root, "index", tenant.bytes) for root in self._roots.values())
            if len(self._index_keys) >= _REMEMBERED:
                self._index_keys.clear()
            self._index_keys[tenant] = keys
        return keys

    @property
    def remembered(self) -> int:
        """How many derived keys are in memory."""
        return len(self._ciphers) + len(self._index_keys)

    def _cipher(self, header: bytes, tenant: UUID) -> AESGCM:
        cipher = AESGCM(_expand(self._roots[header], "seal", tenant.bytes))
        if len(self._ciphers) >= _REMEMBERED:
            self._ciphers.clear()
        self._ciphers[header, tenant] = cipher
        return cipher

    def _header_of(self, sealed: bytes) -> bytes | None:
        if len(sealed) < 2 or sealed[0] != _VERSION:
            return None
        header = bytes(sealed[: 2 + sealed[1]])
        whole = len(sealed) >= len(header) + _NONCE + _TAG
        return header if whole and header in self._roots else None


_TEXT: Final = "sealed:"


def seal_text(ring: KeyRing, plain: str, place: Place) -> str:
    """The same as text, for where bytes cannot stand."""
    return _TEXT + base64.b64encode(ring.seal(plain.encode(), place)).decode()


def open_text(ring: KeyRing, stored: str, place: Place) -> str:
    """What was sealed as text; what never was, as it is. Raises ``Unsealable``."""
    if not stored.startswith(_TEXT):
        return stored
    return ring.open(base64.b64decode(stored.removeprefix(_TEXT)), place).decode()


def is_current_text(ring: KeyRing, stored: str) -> bool:
    """Whether this is text that the newest key has sealed."""
    encoded = stored.removeprefix(_TEXT)
    return encoded != stored and ring.is_current(base64.b64decode(encoded))


def proxy_place(tenant_id: UUID, instance_id: UUID) -> Place:
    """Where an instance's proxy is sealed, whose URL may hold a password."""
    return Place(tenant_id, "gateway.instances", str(instance_id))


def setting_place(tenant_id: UUID, instance_id: UUID, name: str) -> Place:
    """Where a secret setting of an instance is sealed."""
    return Place(tenant_id, "gateway.instances.settings", f"{instance_id}/{name}")


def open_settings(
    ring: KeyRing, settings: Mapping[str, object], tenant_id: UUID, instance_id: UUID
) -> dict[str, object]:
    """An instance's settings with its secrets in the clear. Raises ``Unsealable``."""
    return {
        name: open_text(ring, value, setting_place(tenant_id, instance_id, name))
        if isinstance(value, str)
        else value
        for name, value in settings.items()
    }


def lookup_digests(ring: KeyRing, secret: str) -> list[str]:
    """By what a secret of any tenant's is found again without being readable, newest first.

    What is stored is the first; what is looked up may be any of them.
    """
    return [
        hmac.digest(key, secret.encode("utf-8", "surrogatepass"), "sha256").hex()
        for key in ring.index_keys(NOBODY)
    ]


def is_sealed(stored: bytes) -> bool:
    """Whether these bytes are sealed, where JSON from before there was a ring may stand as well."""
    return stored[:1] == bytes([_VERSION])


def _header(key: Key) -> bytes:
    """The version and the key's id with its length: what stands before everything it seals."""
    id_ = key.id.encode()
    return bytes([_VERSION, len(id_)]) + id_


def _associated(header: bytes, place: Place) -> bytes:
    return _bound(header, place.tenant, place.table.encode(), place.row)


def _bound(header: bytes, tenant: UUID, table: bytes, row: str) -> bytes:
    # No table's name has a NUL, so no two places look the same.
    return b"%b%b%b\0%b" % (header, tenant.bytes, table, row.encode())


def _expand(root: bytes, *info: Part) -> bytes:
    # 32 bytes are one block of SHA-256, so HKDF's expansion is its first round: info, then 0x01.
    return hmac.digest(root, _unambiguous(info) + b"\x01", "sha256")


def _unambiguous(parts: Sequence[Part]) -> bytes:
    """The parts with their lengths, so that ("ab", "c") and ("a", "bc") are different."""
    encoded = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
