"""What testing WhatsApp needs that pip does not bring; run it to have all of it, or be told how.

python -m tests.support.whatsapp_needs
"""

import ctypes.util
import sys
from pathlib import Path
from typing import Final

from tests.support import node
from tests.support.node import Missing

CONTACT: Final = Path(__file__).parents[1] / "whatsapp" / "contact"


def check() -> None:
    """Raise ``Missing`` if something is not there that has to be installed by hand."""
    missing = []
    if ctypes.util.find_library("magic") is None:
        missing.append("libmagic, which neonize loads. On Debian: apt-get install libmagic1")
    absent = node.missing()
    if absent is not None:
        missing.append(f"for the contact: {absent}")
    if missing:
        raise Missing("WhatsApp cannot be tested here. Missing:\n  " + "\n  ".join(missing))


def install() -> None:
    """Check, and have what the contact needs in its ``node_modules``, once per lock."""
    check()
    node.install(CONTACT)


if __name__ == "__main__":
    try:
        install()
    except Missing as error:
        sys.exit(str(error))
