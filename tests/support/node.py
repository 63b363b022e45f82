"""Node, and packages of npm by their lock: for clients that are not ours."""

import fcntl
import hashlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

NODE_AT_LEAST: Final = 20


class Missing(Exception):
    """Something is not there; says what and how to get it."""


def missing() -> str | None:
    """What to do to have Node and npm; nothing if they are there."""
    node = version("node")
    if node >= NODE_AT_LEAST and version("npm") > 0:
        return None
    return (
        f"Node {NODE_AT_LEAST} or newer with npm (found: {node or 'none'}). On Debian 13: apt-get"
        " install nodejs npm; elsewhere see https://nodejs.org"
    )


def install(folder: Path) -> None:
    """Have what the lock in ``folder`` names in its ``node_modules``, once per lock."""
    absent = missing()
    if absent is not None:
        raise Missing(f"Needed here: {absent}")
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules" / ".installed"
    # Two runs may begin at the same time.
    with (folder / "package.json").open() as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        # The packages' scripts build nothing that is used here.
        npm = ["npm", "ci", "--ignore-scripts", "--loglevel=error"]
        done = subprocess.run(npm, cwd=folder, check=False, timeout=300)
        if done.returncode != 0:
            raise Missing(f"'{' '.join(npm)}' failed in {folder}; it needs the npm registry")
        stamp.write_text(wanted)


def version(program: str) -> int:
    """The major version, 0 if there is none."""
    if shutil.which(program) is None:
        return 0
    told = subprocess.run([program, "--version"], check=False, capture_output=True, text=True)
    found = re.match(r"v?(\d+)", told.stdout)
    return int(found[1]) if found else 0
