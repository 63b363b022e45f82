"""Where neonize is loaded, and everything of it that is made or named here.

It is an optional part (``waypost[whatsmeow]``), loaded by name and at the first need: importing it
takes a second and fifty megabytes, and the licence of its core is a matter for whoever ships it.
"""

from collections.abc import Mapping
from enum import Enum
from functools import cache
from importlib import import_module
from types import ModuleType

from services.sessions.engines.whatsmeow.worker.shapes import Heard, Jid, Message


@cache
def errors() -> tuple[type[Exception], ...]:
    """What calls of a client raise: neonize has a class for each, and no family."""
    module = _module("neonize.exc")
    return tuple(
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Exception)
    )


def jid(address: str) -> Jid:
    """An address of ours as one of neonize's; a device's number is left out."""
    user, _, server = address.rpartition("@")
    made: Jid = _protos().JID(
        User=user.partition(":")[0],
        Server=server,
        Device=0,
        RawAgent=0,
        Integrator=0,
        IsEmpty=False,
    )
    return made


def message(fields: Mapping[str, object]) -> Message:
    """A message with these fields, named as in ``WAE2E.proto``; parts of it are mappings too."""
    made: Message = _e2e().Message(**fields)
    return made


def read_message(data: bytes) -> Message:
    """A message as it was serialized."""
    made: Message = _e2e().Message.FromString(data)
    return made


def media_type(kind: str) -> Enum:
    """Whose keys encrypt a file: those of ``Image``, ``Video``, ``Audio`` or ``Document``."""
    member: Enum = _enums().MediaType[f"Media{kind}"]
    return member


def mms_type(kind: str) -> Enum:
    """The same as a part of the address that a file is fetched from."""
    member: Enum = _enums().MediaTypeToMMS[f"Media{kind}"]
    return member


def receipt_type(*, played: bool) -> Enum:
    """The receipt that says that a message was read, or listened to."""
    member: Enum = _enums().ReceiptType["PLAYED" if played else "READ"]
    return member


def chat_presence(*, composing: bool) -> Enum:
    """Whether something is being written."""
    name = "COMPOSING" if composing else "PAUSED"
    member: Enum = _enums().ChatPresence[f"CHAT_PRESENCE_{name}"]
    return member


def chat_presence_media(*, audio: bool) -> Enum:
    """Whether it is words or a voice note."""
    name = "AUDIO" if audio else "TEXT"
    member: Enum = _enums().ChatPresenceMedia[f"CHAT_PRESENCE_MEDIA_{name}"]
    return member


def member_change(change: str) -> Enum:
    """``add``, ``remove``, ``promote`` or ``demote``."""
    member: Enum = _enums().ParticipantChange[change.upper()]
    return member


def by_other_address(event: Heard) -> Heard:
    """The same event, as if its sender had written under their other address."""
    other: Heard = _protos().Message.FromString(event.SerializeToString())
    other.Info.MessageSource.Sender.CopyFrom(event.Info.MessageSource.SenderAlt)
    return other


@cache
def mend_poll_votes() -> None:
    """Let a client decrypt votes.

    neonize 0.5.2 leaves this one function out where it tells ctypes how to read what Go returns,
    so its own caller gets a pointer where it expects bytes.
    """
    gocode = _module("neonize._binder").gocode
    if not gocode.DecryptPollVote.errcheck:
        gocode.DecryptPollVote.errcheck = gocode.BuildPollVote.errcheck


def _module(name: str) -> ModuleType:
    return import_module(name)


def _protos() -> ModuleType:
    return _module("neonize.proto.Neonize_pb2")


def _e2e() -> ModuleType:
    return _module("neonize.proto.waE2E.WAWebProtobufsE2E_pb2")


def _enums() -> ModuleType:
    return _module("neonize.utils.enum")
