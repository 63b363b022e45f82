"""What testing WhatsApp needs that pip does not bring; run it to have all of it, or be told how.

python -m tests.support.whatsapp_needs
"""

import ctypes.util
import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

CONTACT: Final = Path(__file__).parents[1] / "whatsapp" / "contact"
NODE_AT_LEAST: Final = 20


class Missing(Exception):
    """Something is not there; says what and how to get it."""


def check() -> None:
    """Raise ``Missing`` if something is not there that has to be installed by hand."""
    missing = []
    if ctypes.util.find_library("magic") is None:
        missing.append("libmagic, which neonize loads. On Debian: apt-get install libmagic1")
    node = _version("node")
    if node < NODE_AT_LEAST or _version("npm") == 0:
        missing.append(
            f"Node {NODE_AT_LEAST} or newer with npm (found: {node or 'none'}), which the contact "
            "runs on. On Debian 13: apt-get install nodejs npm; elsewhere see https://nodejs.org"
        )
    if missing:
        raise Missing("WhatsApp cannot be tested here. Missing:\n  " + "\n  ".join(missing))


def install() -> None:
    """Check, and have what the contact needs in its ``node_modules``, once per lock."""
    check()
    wanted = hashlib.sha256((CONTACT / "package-lock.json").read_bytes()).hexdigest()
    stamp = CONTACT / "node_modules" / ".installed"
    # Two runs may begin at the same time.
    with (CONTACT / "package.json").open() as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        # Its packages' scripts build nothing that is used here.
        npm = ["npm", "ci", "--ignore-scripts", "--loglevel=error"]
        done = subprocess.run(npm, cwd=CONTACT, check=False, timeout=300)
        if done.returncode != 0:
            raise Missing(f"'{' '.join(npm)}' failed in {CONTACT}; it needs the npm registry")
        stamp.write_text(wanted)


def _version(program: str) -> int:
    """The major version, 0 if there is none."""
    if shutil.which(program) is None:
        return 0
    told = subprocess.run([program, "--version"], check=False, capture_output=True, text=True)
    found = re.match(r"v?(\d+)", told.stdout)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    try:
        install()
    except Missing as error:
        sys.exit(str(error))
