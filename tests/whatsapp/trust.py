"""Makes an unmodified neonize trust the local server, in memory and in this process only.

whatsmeow has the root of WhatsApp's Noise certificates compiled in (``WACertPubKey`` in
``handshake.go``). Its 32 bytes occur once in neonize's shared library, in data that a process maps
writable, so they are replaced where they lie once the library is loaded; everything that verifies
by them runs as it is. No file is touched.

It must happen in a process that production code starts, without production code knowing. So: a
folder with a ``sitecustomize``, put on that process's ``PYTHONPATH`` (``environment``), which calls
``when_loaded`` if ``WAYPOST_TEST_WHATSAPP_ROOT`` is set; and that waits for ``neonize._binder`` to
be imported. Only the standard library is used here, since any Python may come by.
"""

import ctypes
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

ROOT_VARIABLE = "WAYPOST_TEST_WHATSAPP_ROOT"
TRUSTING = Path(__file__).parent / "trusting"
BINDER = "neonize._binder"
WHATSAPPS_ROOT = bytes.fromhex("142375574d0a587166aae71ebe516437c4a28b73e3695c6ce1f7f9545da8ee6b")


def environment(
    *, noise_root_hex: str, authority: str, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The environment of a process whose neonize is to trust the server.

    Go reads its environment when the library is loaded, so it must be there from the start.
    """
    before = inherited.get("PYTHONPATH")
    return {
        **inherited,
        "PYTHONPATH": f"{TRUSTING}:{before}" if before else str(TRUSTING),
        ROOT_VARIABLE: noise_root_hex,
        "SSL_CERT_FILE": authority,
    }


def when_loaded(root: bytes) -> None:
    """Replace the root as soon as neonize's library has been loaded."""
    if BINDER in sys.modules:
        _replace(root, sys.modules[BINDER])
    else:
        sys.meta_path.insert(0, _Watch(root))


class _Watch(importlib.abc.MetaPathFinder):
    """Sees to it that what loads the binder replaces the root afterwards."""

    def __init__(self, root: bytes) -> None:
        self._root = root

    def find_spec(  # type: ignore[explicit-override] # typing_extensions is not a given here
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != BINDER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._root)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, root: bytes) -> None:
        self._loader = loader
        self._root = root

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:  # type: ignore[explicit-override]
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:  # type: ignore[explicit-override]
        self._loader.exec_module(module)
        _replace(self._root, module)


def _replace(root: bytes, binder: ModuleType) -> None:
    library = str(Path(binder.gocode._name).resolve())
    found = [
        start + at
        for start, end in _writable(library)
        for at in _occurrences(WHATSAPPS_ROOT, ctypes.string_at(start, end - start))
    ]
    if len(found) != 1:
        raise RuntimeError(f"WhatsApp's root is in {library} {len(found)} times, not once")
    ctypes.memmove(found[0], root, len(root))


def _writable(library: str) -> list[tuple[int, int]]:
    """Where a library is mapped writable."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    fields = [line.split(maxsplit=5) for line in maps]
    ranges = [f[0].split("-") for f in fields if len(f) == 6 and f[5] == library and "w" in f[1]]
    return [(int(start, 16), int(end, 16)) for start, end in ranges]


def _occurrences(wanted: bytes, data: bytes) -> list[int]:
    found = []
    at = data.find(wanted)
    while at >= 0:
        found.append(at)
        at = data.find(wanted, at + 1)
    return found
