"""The parts of neonize that a connection is made of; those that messages are, ``library`` knows."""

from ctypes import Structure
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Final, Protocol, cast

from services.sessions.engines.whatsmeow.worker.shapes import Client, Jid

# How a device names the browser that it says it is.
_PLATFORM: Final = "CHROME"
# ``PairStatus.Status`` of a pairing that went well.
PAIRED: Final = 2


class LogEntry(Protocol):
    """A line of whatsmeow's log. ``Name`` is where it comes from, such as ``Client/Send``."""

    Name: str
    Level: str
    Message: str


class PairStatus(Protocol):
    """What has become of a pairing: ``Status`` 2 is success. ``ID`` is the device's address."""

    ID: Jid
    BusinessName: str
    Platform: str
    Status: int
    Error: str


class LoggedOut(Protocol):
    """The device is unlinked. ``OnConnect`` if that was the answer to a login."""

    OnConnect: bool
    Reason: int


@cache
def binder() -> ModuleType:
    """The types of callbacks, and as ``gocode`` the library itself. Loading it takes a second."""
    return import_module("neonize._binder")


def client(run: str) -> Client:
    """What calls are made on. ``run`` is the name of the session within this process."""
    made = import_module("neonize.aioze.client").NewAClient(name=run, uuid=run)
    # When such an object is forgotten, it stops whichever session has its name by then.
    made._stop_finalizer.detach()
    return cast("Client", made)


def device(address: str) -> Jid:
    """A device's own address, ``<number>:<device>@<server>``."""
    user, _, server = address.rpartition("@")
    number, _, device_number = user.partition(":")
    made: Jid = _protos().JID(
        User=number,
        Device=int(device_number or 0),
        Server=server,
        RawAgent=0,
        Integrator=0,
        IsEmpty=False,
    )
    return made


def address_of(jid: Jid) -> str:
    """The same, back."""
    return f"{jid.User}:{jid.Device}@{jid.Server}" if jid.Device else f"{jid.User}@{jid.Server}"


def device_props(name: str) -> bytes:
    """How the phone lists the device. whatsmeow keeps one for the whole process."""
    props = import_module("neonize.proto.waCompanionReg.WAWebProtobufsCompanionReg_pb2").DeviceProps
    made: bytes = props(
        os=name, platformType=props.PlatformType.Value(_PLATFORM)
    ).SerializeToString()
    return made


def proxy(url: str) -> Structure:
    """Everything goes through this: http, https or socks5."""
    made: Structure = binder().ProxySettings(proxy_address=url)._to_c_struct()
    return made


def log_entry(data: bytes) -> LogEntry:
    """A line of the log."""
    made: LogEntry = _protos().LogEntry.FromString(data)
    return made


def heard(data: bytes) -> Any:
    """A message, as ``shapes.Heard``."""
    return _protos().Message.FromString(data)


def receipt(data: bytes) -> Any:
    """A receipt, as ``shapes.Receipt``."""
    return _protos().Receipt.FromString(data)


def pair_status(data: bytes) -> PairStatus:
    """What has become of a pairing."""
    made: PairStatus = _protos().PairStatus.FromString(data)
    return made


def logged_out(data: bytes) -> LoggedOut:
    """Why a device is unlinked."""
    made: LoggedOut = _protos().LoggedOut.FromString(data)
    return made


async def pairing_code(client_: Client, number: str) -> str:
    """A code for the phone with this number, in digits, to link the device by."""
    enums = import_module("neonize.utils.enum")
    made: str = await cast("Any", client_).PairPhone(
        number, True, enums.ClientName.LINUX, enums.ClientType[_PLATFORM]
    )
    return made


async def log_out(client_: Client) -> None:
    """Unlink the device at WhatsApp."""
    await cast("Any", client_).logout()


@cache
def _protos() -> ModuleType:
    return import_module("neonize.proto.Neonize_pb2")
