"""WhatsApp addresses: the canonical form inside, the telephone form outside."""

from hashlib import sha256

PERSON = "@s.whatsapp.net"
# WhatsApp's older form of a person's address, still written by many clients.
LEGACY_PERSON = "@c.us"
GROUP = "@g.us"


def canonical(address: str) -> str:
    """``+1 202 555 0142``, ``12025550142@c.us`` and the like as ``12025550142@s.whatsapp.net``.

    Addresses of groups and private ids are left as they are.
    """
    if "@" not in address:
        return "".join(character for character in address if character.isdigit()) + PERSON
    return (
        address.removesuffix(LEGACY_PERSON) + PERSON if address.endswith(LEGACY_PERSON) else address
    )


def digits(address: str) -> str | None:
    """The digits of a person's telephone number; ``None`` for groups and private ids."""
    form = canonical(address)
    return form.removesuffix(PERSON) if form.endswith(PERSON) else None


def public(address: str) -> str:
    """As it stands in public shapes: ``+`` and digits for persons; others as they are."""
    number = digits(address)
    return address if number is None else f"+{number}"


def fictional_number(instance_id: object) -> str:
    """Digits of a number that nobody has, always the same for one instance.

    No country has the code 999, so it can never be somebody's.
    """
    return f"999{int(sha256(str(instance_id).encode()).hexdigest(), 16) % 10**11:011d}"
