"""What glibc's allocator has given out, and what it keeps although nobody holds it any more.

Between the two is most of what a process grows by under noise: a hundred answers at once make its
heap larger, and one small thing that lives at its end keeps it so. Elsewhere than on Linux none of
it can be asked.
"""

import ctypes
from typing import Any, Final


class _Info(ctypes.Structure):
    """``struct mallinfo2``: https://man7.org/linux/man-pages/man3/mallinfo.3.html."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    )  # fmt: skip


_LIBRARY: Final[Any] = ctypes.CDLL(None)


def held() -> int:
    """Bytes that are in use of what was asked for with ``malloc``; 0 where nobody can say."""
    if not hasattr(_LIBRARY, "mallinfo2"):
        return 0
    _LIBRARY.mallinfo2.restype = _Info
    found = _LIBRARY.mallinfo2()
    return int(found.uordblks + found.hblkhd)


def give_back() -> None:
    """Return to the system what nobody holds."""
    if hasattr(_LIBRARY, "malloc_trim"):
        _LIBRARY.malloc_trim(0)
