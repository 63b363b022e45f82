"""The handshake, against a client's side of it that is written out here; and what it rests on."""

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.whatsapp import protobuf
from tests.whatsapp.certificates import (
    DETAILS,
    INTERMEDIATE,
    ISSUER_SERIAL,
    KEY,
    LEAF,
    SERIAL,
    SIGNATURE,
    noise_chain,
)
from tests.whatsapp.keys import KeyPair, derive, verified
from tests.whatsapp.noise import PATTERN, PROLOGUE, Handshake, Refused


class Client:
    """The other side, step by step as in the Noise specification."""

    def __init__(self) -> None:
        self.ephemeral = KeyPair()
        self.static = KeyPair()
        self.hash = hashlib.sha256(PATTERN + PROLOGUE).digest()
        self.salt = self.key = PATTERN
        self.count = 0

    def hello(self) -> bytes:
        self.authenticate(self.ephemeral.public)
        return protobuf.write({2: protobuf.write({1: self.ephemeral.public})})

    def finish(self, hello: bytes, payload: bytes) -> tuple[bytes, bytes, bytes]:
        """The certificates, the server's static key, and the last message."""
        server_hello = protobuf.read(protobuf.inner(protobuf.read(hello), 3))
        theirs = protobuf.inner(server_hello, 1)
        self.authenticate(theirs)
        self.mix(self.ephemeral.agree(theirs))
        static = self.open(protobuf.inner(server_hello, 2))
        self.mix(self.ephemeral.agree(static))
        certificates = self.open(protobuf.inner(server_hello, 3))
        sealed_static = self.seal(self.static.public)
        self.mix(self.static.agree(theirs))
        finish = protobuf.write({1: sealed_static, 2: self.seal(payload)})
        return certificates, static, protobuf.write({4: finish})

    def authenticate(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def mix(self, secret: bytes) -> None:
        keys = derive(secret, salt=self.salt, length=64)
        self.salt, self.key, self.count = keys[:32], keys[32:], 0

    def seal(self, plain: bytes) -> bytes:
        sealed = AESGCM(self.key).encrypt(self.nonce(), plain, self.hash)
        self.authenticate(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        plain = AESGCM(self.key).decrypt(self.nonce(), sealed, self.hash)
        self.authenticate(sealed)
        return plain

    def nonce(self) -> bytes:
        self.count += 1
        return bytes(8) + (self.count - 1).to_bytes(4, "big")


def test_both_sides_end_with_the_same_keys() -> None:
    static, client = KeyPair(), Client()
    handshake = Handshake(static, b"certificates")
    certificates, their_static, last = client.finish(handshake.hello(client.hello()), b"a wish")
    assert (certificates, their_static) == (b"certificates", static.public)
    payload, reading, writing = handshake.finish(last)
    assert payload == b"a wish"
    keys = derive(b"", salt=client.salt, length=64)
    for count, words in enumerate([b"one", b"two"]):
        nonce = bytes(8) + count.to_bytes(4, "big")
        assert reading.decrypt(AESGCM(keys[:32]).encrypt(nonce, words, None)) == words
        assert AESGCM(keys[32:]).decrypt(nonce, writing.encrypt(words), None) == words


def test_a_client_that_seals_with_another_key_is_refused() -> None:
    handshake, client = Handshake(KeyPair(), b""), Client()
    hello = handshake.hello(client.hello())
    client.static.agree = lambda public: bytes(32)  # type: ignore[method-assign]
    _, _, last = client.finish(hello, b"a wish")
    with pytest.raises(Refused):
        handshake.finish(last)


def test_a_client_without_a_key_is_refused() -> None:
    with pytest.raises(Refused):
        Handshake(KeyPair(), b"").hello(protobuf.write({2: b""}))


def test_the_root_vouches_for_the_static_key() -> None:
    root, static = KeyPair(), KeyPair()
    chain = protobuf.read(noise_chain(root, static.public))
    upper = protobuf.read(protobuf.inner(chain, INTERMEDIATE))
    lower = protobuf.read(protobuf.inner(chain, LEAF))
    upper_details = protobuf.read(protobuf.inner(upper, DETAILS))
    lower_details = protobuf.read(protobuf.inner(lower, DETAILS))
    intermediate = protobuf.inner(upper_details, KEY)
    for signer, certificate in ((root.public, upper), (intermediate, lower)):
        details = protobuf.inner(certificate, DETAILS)
        signature = protobuf.inner(certificate, SIGNATURE)
        assert verified(signer, details, signature)
        assert not verified(signer, details + b"!", signature)
    assert upper_details[ISSUER_SERIAL] == 0
    assert lower_details[ISSUER_SERIAL] == upper_details[SERIAL]
    assert lower_details[KEY] == static.public


def test_two_pairs_agree_on_a_secret() -> None:
    ours, theirs = KeyPair(), KeyPair()
    assert ours.agree(theirs.public) == theirs.agree(ours.public)
    assert KeyPair(ours.private).public == ours.public


def test_protobuf_fields_are_read_as_written() -> None:
    fields: dict[int, int | bytes] = {1: 0, 2: 300, 3: b"", 18: b"bytes", 1000: 2**63}
    assert protobuf.read(protobuf.write(fields)) == fields


def test_protobuf_fields_of_fixed_size_are_passed_over() -> None:
    """``ClientPayload.sessionID`` is one."""
    assert protobuf.read(b"\x4d\x01\x02\x03\x04\x10\x05") == {9: b"\x01\x02\x03\x04", 2: 5}
