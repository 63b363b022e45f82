"""Which passwords are refused: those that are guessed first."""

from typing import Final

# Long enough for the rule about length, and still among what is tried first.
_COMMON: Final = frozenset(
    {
        "00000000", "11111111", "12341234", "12344321", "12345678", "123123123", "123456789",
        "1234567890", "12345678910", "123321123", "1q2w3e4r", "1q2w3e4r5t", "1qaz2wsx",
        "1qazxsw2", "87654321", "987654321", "9876543210", "a1b2c3d4", "abc12345", "abcd1234",
        "abcdefgh", "administrator", "admin123", "admin1234", "alexander", "asdfasdf", "asdfghjk",
        "asdfghjkl", "basketball", "blink182", "butterfly", "changeme", "changeme1", "changeme123",
        "chocolate", "computer", "corvette", "dragon123", "einstein", "elephant", "football",
        "football1", "iloveyou", "iloveyou1", "internet", "jennifer", "letmein1", "letmein123",
        "liverpool", "login123", "marlboro", "maverick", "mercedes", "metallica", "michelle",
        "monkey123", "mustang1", "p@ssw0rd", "p@ssword", "pa$$w0rd", "pa55word", "passw0rd",
        "passw0rd1", "password", "password!", "password1", "password12", "password123",
        "password1234", "password2024", "password2025", "password2026", "passwort", "princess",
        "princess1", "q1w2e3r4", "q1w2e3r4t5", "qazwsxedc", "qwer1234", "qwerasdf", "qwerty12",
        "qwerty123", "qwerty1234", "qwertyui", "qwertyuiop", "samantha", "secret123", "snowball",
        "starwars", "steelers", "sunshine", "sunshine1", "superman", "superman1", "test1234",
        "testtest", "trustno1", "victoria", "waypost1", "waypost123", "welcome1", "welcome123",
        "whatever", "whatsapp", "whatsapp1", "whatsapp123", "zaq12wsx", "zxcvbnm1", "zxcvbnm123",
    }
)  # fmt: skip


def weakness(password: str, *, email: str) -> str | None:
    """What is wrong with a password that is long enough; nothing if nothing is."""
    plain = password.strip().casefold()
    if plain in _COMMON or len(set(plain)) <= 2:
        return "is among the first that are guessed; choose another, such as four random words"
    if plain in {email.casefold(), email.partition("@")[0].casefold()}:
        return "is the e-mail address, or a part of it; choose another"
    return None
