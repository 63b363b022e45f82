"""The keys that content is sealed with in tests, and a ring of them."""

from typing import Final

from shared.security.sealing import Key, KeyRing

KEYS: Final = f"test:{'A' * 43}="
RING: Final = KeyRing([Key.parse(KEYS)])
