"""What the suite needs beside Python: Node for the contact, libmagic for neonize."""

import pytest

from tests.support import whatsapp_needs


@pytest.fixture(scope="session")
def contacts_installed() -> None:
    """What a WhatsApp contact runs on; fails saying how to get it."""
    whatsapp_needs.install()
