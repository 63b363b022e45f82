"""Passwords are kept as argon2id, and strangers cost as much as users."""

import pytest
from argon2 import PasswordHasher, Type, extract_parameters

from shared.security.passwords import Passwords, Verdict


def cheap(*, time_cost: int = 1) -> Passwords:
    return Passwords(time_cost=time_cost, memory_kib=8, parallelism=1)


async def test_the_right_password_is_correct_and_a_wrong_one_is_not() -> None:
    passwords = cheap()
    stored = await passwords.hash("correct horse")

    assert await passwords.verify("correct horse", stored) == Verdict(correct=True)
    assert await passwords.verify("battery staple", stored) == Verdict(correct=False)


async def test_a_hash_is_argon2id_with_its_own_salt() -> None:
    passwords = cheap()
    one, other = await passwords.hash("same"), await passwords.hash("same")

    assert extract_parameters(one).type is Type.ID
    assert one != other


async def test_without_a_user_nothing_is_correct_not_even_the_stand_in() -> None:
    assert await cheap().verify("nobody has this password", None) == Verdict(correct=False)


async def test_a_stranger_costs_one_whole_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str | bytes] = []
    genuine = PasswordHasher.verify

    def counting(self: PasswordHasher, stored: str | bytes, password: str | bytes) -> object:
        verified.append(stored)
        return genuine(self, stored, password)

    passwords = cheap(time_cost=2)
    monkeypatch.setattr(PasswordHasher, "verify", counting)
    await passwords.verify("guess", None)

    [stand_in] = verified
    assert extract_parameters(str(stand_in)).time_cost == 2


async def test_a_hash_that_cannot_be_read_is_not_correct_and_not_an_error() -> None:
    assert await cheap().verify("guess", "$2b$12$something-older") == Verdict(correct=False)
    assert await cheap().verify("guess", "") == Verdict(correct=False)


async def test_a_hash_with_outdated_parameters_is_replaced_after_a_right_password() -> None:
    stored = await cheap(time_cost=1).hash("correct horse")
    stronger = cheap(time_cost=2)

    verdict = await stronger.verify("correct horse", stored)

    assert verdict.correct
    assert verdict.replacement is not None
    assert extract_parameters(verdict.replacement).time_cost == 2
    assert await stronger.verify("correct horse", verdict.replacement) == Verdict(correct=True)
    assert await stronger.verify("wrong", stored) == Verdict(correct=False)


async def test_a_letter_typed_in_two_ways_is_one_letter() -> None:
    passwords = cheap()
    stored = await passwords.hash("caf\u00e9")

    assert (await passwords.verify("cafe\u0301", stored)).correct
