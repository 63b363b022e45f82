"""Tokens say who calls: access tokens by themselves, keys by what is stored about them."""

import hashlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt
import pytest

from shared.errors import Unauthenticated
from shared.security.tokens import (
    AccessClaims,
    AccessTokens,
    KeyKind,
    digest_of,
    hint_of,
    issue_key,
    kind_of,
)

SECRET = "a secret that is long enough for HS256"
OTHER = "another secret, just as long as it must be"
NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
USER, ORGANIZATION, SESSION = UUID(int=1), UUID(int=2), UUID(int=3)


def issue(tokens: AccessTokens) -> str:
    return tokens.issue(
        user_id=USER, organization_id=ORGANIZATION, role="agent", session_id=SESSION, now=NOW
    )


def forged(
    changes: dict[str, object] | None = None, *, algorithm: str = "HS256", key: str = SECRET
) -> str:
    claims: dict[str, object] = {
        "iss": "waypost",
        "aud": "waypost-api",
        "sub": str(USER),
        "org": str(ORGANIZATION),
        "role": "agent",
        "sid": str(SESSION),
        "iat": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 900,
        **(changes or {}),
    }
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm)


def test_what_was_issued_is_read_again() -> None:
    tokens = AccessTokens(secrets=[SECRET])

    assert tokens.read(issue(tokens), now=NOW) == AccessClaims(
        user_id=USER,
        organization_id=ORGANIZATION,
        role="agent",
        session_id=SESSION,
        expires_at=NOW + timedelta(minutes=15),
    )


def test_a_token_is_good_until_it_expires_by_our_clock_and_not_the_machines() -> None:
    tokens = AccessTokens(secrets=[SECRET], lifetime=timedelta(minutes=1))
    token = issue(tokens)

    assert tokens.read(token, now=NOW + timedelta(seconds=59)).user_id == USER
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.read(token, now=NOW + timedelta(seconds=60))


def test_a_token_signed_with_the_secret_before_is_still_read() -> None:
    token = issue(AccessTokens(secrets=[OTHER]))

    assert AccessTokens(secrets=[SECRET, OTHER]).read(token, now=NOW).user_id == USER
    with pytest.raises(Unauthenticated):
        AccessTokens(secrets=[SECRET]).read(token, now=NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody"},
        {"aud": "something"},
        {"sub": "not a uuid"},
        {"sub": None},
        {"org": None},
        {"org": ["list"]},
        {"role": None},
        {"sid": None},
        {"exp": None},
        {"exp": 10**30},
        {"exp": "never"},
    ],
)
def test_a_token_that_says_something_else_is_refused(changes: dict[str, object]) -> None:
    tokens = AccessTokens(secrets=[SECRET])

    assert tokens.read(forged(), now=NOW).role == "agent"
    with pytest.raises(Unauthenticated):
        tokens.read(forged(changes), now=NOW)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b.c",
        "é.é.é",
        forged(key=OTHER),
        forged(algorithm="none", key=""),
        forged(algorithm="HS512", key=SECRET * 2),
    ],
)
def test_a_token_that_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        AccessTokens(secrets=[SECRET]).read(token, now=NOW)


@pytest.mark.parametrize("secrets", [[], ["short"], [SECRET, "short"]])
def test_short_secrets_are_refused_at_the_start(secrets: list[str]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        AccessTokens(secrets=secrets)


@pytest.mark.parametrize("kind", list(KeyKind))
def test_a_key_is_known_by_its_beginning_and_found_by_its_digest(kind: KeyKind) -> None:
    key = issue_key(kind)

    assert key.text.startswith(kind.value)
    assert kind_of(key.text) is kind
    assert key.digest == hashlib.sha256(key.text.encode()).digest() == digest_of(key.text)
    assert key.text != issue_key(kind).text


def test_a_hint_shows_the_end_and_no_more() -> None:
    key = issue_key(KeyKind.INSTANCE)

    assert key.hint == f"api_…{key.text[-4:]}" == hint_of(key.text)


def test_a_new_key_does_not_show_itself_when_it_is_printed() -> None:
    key = issue_key(KeyKind.USER)

    assert key.text not in repr(key)


@pytest.mark.parametrize(
    "token", ["", "api_", "sk_short", "api_" + "x" * 44, "xk_" + "x" * 43, "é"]
)
def test_junk_is_no_kind_of_key(token: str) -> None:
    assert kind_of(token) is None
