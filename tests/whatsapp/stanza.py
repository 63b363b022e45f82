"""A stanza: an element with attributes and, inside it, nothing, bytes or further elements.

It is XML without the text: what would be text is bytes, and an attribute is a string or an address.
"""

from collections.abc import Iterator, Mapping, Sequence

from typing_extensions import override

from tests.whatsapp.jid import Jid

Attribute = str | Jid
Attributes = Mapping[str, Attribute | int | None]
Content = bytes | list["Stanza"] | None


class Stanza:
    """One element. Attributes given as ``None`` are left out, numbers become their digits."""

    __slots__ = ("attributes", "content", "tag")

    def __init__(
        self,
        tag: str,
        attributes: Attributes | None = None,
        content: bytes | Sequence["Stanza"] | None = None,
    ) -> None:
        self.tag = tag
        self.attributes: dict[str, Attribute] = {
            name: str(value) if isinstance(value, int) else value
            for name, value in (attributes or {}).items()
            if value is not None
        }
        self.content: Content = (
            content if isinstance(content, bytes) or content is None else list(content)
        )

    @property
    def children(self) -> list["Stanza"]:
        """The elements inside; none if there are bytes or nothing."""
        return self.content if isinstance(self.content, list) else []

    @property
    def data(self) -> bytes:
        """The bytes inside; none if there are elements or nothing."""
        return self.content if isinstance(self.content, bytes) else b""

    def named(self, tag: str) -> Iterator["Stanza"]:
        """The elements inside that are called ``tag``."""
        return (child for child in self.children if child.tag == tag)

    def every(self, tag: str) -> Iterator["Stanza"]:
        """The elements called ``tag``, however deep inside."""
        for child in self.children:
            if child.tag == tag:
                yield child
            yield from child.every(tag)

    def find(self, *path: str) -> "Stanza | None":
        """The first element inside at the end of a path of tags."""
        found: Stanza | None = self
        for tag in path:
            found = next(found.named(tag), None) if found else None
        return found

    def child(self, *path: str) -> "Stanza":
        """Like ``find``, for what the protocol promises to be there."""
        found = self.find(*path)
        if found is None:
            raise Malformed(f"no {'/'.join(path)} in {self}")
        return found

    def text(self, name: str, default: str = "") -> str:
        """An attribute as text."""
        return str(self.attributes.get(name, default))

    def jid(self, name: str) -> Jid:
        """An attribute that must be an address."""
        value = self.attributes.get(name)
        if value is None:
            raise Malformed(f"no {name} in {self}")
        return value if isinstance(value, Jid) else Jid.parse(value)

    def find_jid(self, name: str) -> Jid | None:
        """An attribute that may be an address."""
        return self.jid(name) if name in self.attributes else None

    def saying(self, **attributes: Attribute | int | None) -> "Stanza":
        """The same element with further attributes."""
        return Stanza(self.tag, {**self.attributes, **attributes}, self.content)

    @override
    def __str__(self) -> str:
        start = "".join([self.tag, *(f' {name}="{v}"' for name, v in self.attributes.items())])
        if self.content is None:
            return f"<{start}/>"
        if isinstance(self.content, bytes):
            return f"<{start}>[{len(self.content)} bytes]</{self.tag}>"
        return f"<{start}>{''.join(map(str, self.content))}</{self.tag}>"

    __repr__ = __str__


class Malformed(ValueError):
    """A client's stanza lacks what the protocol demands."""
