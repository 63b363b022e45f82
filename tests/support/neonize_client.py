"""A neonize client that is not connected: it keeps what it is told and answers as it was told to.

Its protobufs and its exceptions are neonize's own; what neonize makes of them is for
``tests/whatsapp_suite``. Who it is and whom it knows stands here.
"""

import gc
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from enum import Enum
from importlib import import_module
from typing import Any

from services.sessions.engines.whatsmeow.worker.shapes import (
    Device,
    Group,
    Heard,
    Jid,
    Member,
    Message,
    OneUserInfo,
    OnWhatsApp,
    Picture,
    Receipt,
    Sent,
    Uploaded,
    Vote,
)

with warnings.catch_warnings():
    # As it is loaded it asks ``uname`` which library to take, and leaves the process to whoever
    # starts the next one.
    warnings.simplefilter("ignore", ResourceWarning)
    for _part in ("utils.enum", "exc", "proto.Neonize_pb2"):
        import_module(f"neonize.{_part}")
    for _left in gc.get_objects():
        if isinstance(_left, subprocess.Popen) and _left.args == "uname -a":
            _left.communicate()

OURS, OUR_LID = "4915100000080", "100000000000080"
ADA, ADA_LID = "4915100000071", "100000000000071"
BEN, BEN_LID = "4915100000072", "100000000000072"
GROUP = "120363000000000001@g.us"


def protos() -> Any:
    """neonize's protobufs."""
    return import_module("neonize.proto.Neonize_pb2")


def jid(address: str, device: int = 0) -> Any:
    """An address; the empty one is none."""
    user, _, server = address.rpartition("@")
    return protos().JID(
        User=user, Server=server, Device=device, RawAgent=0, Integrator=0, IsEmpty=not address
    )


def source(
    *,
    sender: str = f"{ADA}@s.whatsapp.net",
    other: str = "",
    chat: str = "",
    from_me: bool = False,
    by_lid: bool | None = None,
) -> Any:
    """Where an event came from; ``other`` is the sender's other address, if it was told."""
    made = protos().MessageSource(
        Chat=jid(chat or sender),
        Sender=jid(sender, device=3),
        SenderAlt=jid(other),
        RecipientAlt=jid(""),
        BroadcastListOwner=jid(""),
        IsFromMe=from_me,
        IsGroup=(chat or sender).endswith("@g.us"),
    )
    if by_lid is not None:
        made.AddressingMode = 2 if by_lid else 1
    return made


def heard(
    said: Mapping[str, object],
    *,
    message_id: str = "3EB0AA",
    name: str = "Ada",
    at: float = 0,
    edit: str = "",
    **where: Any,
) -> Heard:
    """The event of a message with these fields; ``at`` is in seconds."""
    e2e = import_module("neonize.proto.waE2E.WAWebProtobufsE2E_pb2")
    event: Heard = protos().Message(
        Info=protos().MessageInfo(
            MessageSource=source(**where),
            ID=message_id,
            ServerID=0,
            Type="text",
            Pushname=name,
            Timestamp=int(at * 1000),
            Category="",
            Multicast=False,
            MediaType="",
            Edit=edit,
        ),
        Message=e2e.Message(**said),
        IsEphemeral=False,
        IsViewOnce=False,
        IsViewOnceV2=False,
        IsViewOnceV2Extension=False,
        IsDocumentWithCaption=False,
        IsLottieSticker=False,
        IsEdit=False,
        UnavailableRequestID="",
        RetryCount=0,
    )
    return event


def receipt(kind: str, *ids: str, at: int = 0, **where: Any) -> Receipt:
    """The event of a receipt, of a kind that is named as in ``Receipt.ReceiptType``."""
    receipts = protos().Receipt
    made: Receipt = receipts(
        MessageSource=source(**where),
        MessageIDs=ids,
        Timestamp=at,
        Type=receipts.ReceiptType.Value(kind),
    )
    return made


def raised(name: str, words: str) -> Exception:
    """One of neonize's exceptions."""
    error: Exception = getattr(import_module("neonize.exc"), name)(words)
    return error


class NeonizeClient:
    """A client of the account ``OURS``. ``pairs`` are the private ids that the store knows.

    ``fails`` are exceptions by the name of the call that raises them.
    """

    def __init__(self, *, pairs: Mapping[str, str] | None = None, by_lid: bool = False) -> None:
        self.said: list[tuple[str, Message]] = []
        self.uploaded: list[tuple[bytes, str]] = []
        self.read: list[tuple[tuple[str, ...], str, str, str]] = []
        self.asked: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.files: dict[str, bytes] = {}
        self.votes: list[list[bytes] | Exception] = []
        self.pairs = dict(pairs or {})
        self.by_lid = by_lid

    def _calls(self, name: str) -> None:
        self.asked.append(name)
        if name in self.fails:
            raise self.fails[name]

    async def send_message(self, to: Jid, message: Message) -> Sent:
        self._calls("send_message")
        self.said.append((f"{to.User}@{to.Server}", message))
        sent: Sent = protos().SendResponse(ID=f"3EB0{len(self.said):04d}")
        return sent

    async def upload(self, binary: bytes, media_type: Enum) -> Uploaded:
        self._calls("upload")
        self.uploaded.append((binary, media_type.name))
        made: Uploaded = protos().UploadResponse(
            url="https://mmg.whatsapp.net/f",
            DirectPath="/f",
            Handle="",
            MediaKey=b"k" * 32,
            FileEncSHA256=b"e" * 32,
            FileSHA256=b"s" * 32,
            FileLength=len(binary),
        )
        return made

    async def download_media_with_path(  # noqa: PLR0917 - as neonize has it
        self,
        direct_path: str,
        enc_file_hash: bytes,
        file_hash: bytes,
        media_key: bytes,
        file_length: int,
        media_type: Enum,
        mms_type: Enum,
    ) -> bytes:
        self._calls("download_media_with_path")
        return self.files[direct_path]

    async def decrypt_poll_vote(self, message: Heard) -> Vote:
        self._calls("decrypt_poll_vote")
        chosen = self.votes.pop(0)
        if isinstance(chosen, Exception):
            raise chosen
        e2e = import_module("neonize.proto.waE2E.WAWebProtobufsE2E_pb2")
        vote: Vote = e2e.PollVoteMessage(selectedOptions=chosen)
        return vote

    async def get_pn_from_lid(self, jid: Jid) -> Jid:
        self._calls("get_pn_from_lid")
        phones = {lid: phone for phone, lid in self.pairs.items()}
        return _known(phones.get(jid.User), "s.whatsapp.net")

    async def get_lid_from_pn(self, jid: Jid) -> Jid:
        self._calls("get_lid_from_pn")
        return _known(self.pairs.get(jid.User), "lid")

    async def is_on_whatsapp(self, *numbers: str) -> Sequence[OnWhatsApp]:
        self._calls("is_on_whatsapp")
        return [
            protos().IsOnWhatsAppResponse(
                Query=number, IsIn=True, JID=_known(self.pairs.get(number.lstrip("+")), "lid")
            )
            for number in numbers
            if number.lstrip("+") in self.pairs
        ]

    async def get_user_info(self, *jid: Jid) -> Sequence[OneUserInfo]:
        self._calls("get_user_info")
        return []

    async def get_profile_picture(self, jid: Jid) -> Picture:
        self._calls("get_profile_picture")
        picture: Picture = protos().ProfilePictureInfo(URL="https://pps.whatsapp.net/p")
        return picture

    async def get_me(self) -> Device:
        self._calls("get_me")
        me: Device = protos().Device(
            JID=jid(f"{OURS}@s.whatsapp.net", device=7),
            LID=jid(f"{OUR_LID}@lid"),
            Platform="",
            BussinessName="",
            PushName="Ours",
            Initialized=True,
        )
        return me

    async def get_group_info(self, jid: Jid) -> Group:
        self._calls("get_group_info")
        return self._group()

    async def get_joined_groups(self) -> Sequence[Group]:
        self._calls("get_joined_groups")
        return [self._group()]

    async def create_group(self, name: str, participants: list[Jid]) -> Group:
        self._calls("create_group")
        return self._group()

    async def update_group_participants(
        self, jid: Jid, participants_changes: list[Jid], action: Enum
    ) -> Sequence[Member]:
        self._calls("update_group_participants")
        return [self._member(one.User, error=0) for one in participants_changes]

    async def get_group_invite_link(self, jid: Jid, revoke: bool = False) -> str:
        self._calls("get_group_invite_link")
        return "https://chat.whatsapp.com/AA"

    async def leave_group(self, jid: Jid) -> None:
        self._calls("leave_group")

    async def mark_read(self, *message_ids: str, chat: Jid, sender: Jid, receipt: Enum) -> None:
        self._calls("mark_read")
        to, by = f"{chat.User}@{chat.Server}", f"{sender.User}@{sender.Server}"
        self.read.append((message_ids, to, by, receipt.name))

    async def send_chat_presence(self, jid: Jid, state: Enum, media: Enum) -> None:
        self._calls("send_chat_presence")

    def _member(self, phone: str, *, error: int = 0, admin: bool = False) -> Any:
        number, lid = f"{phone}@s.whatsapp.net", f"{self.pairs.get(phone, '')}@lid"
        return protos().GroupParticipant(
            JID=jid(lid if self.by_lid else number),
            LID=jid(lid),
            PhoneNumber=jid(number),
            IsAdmin=admin,
            IsSuperAdmin=admin,
            DisplayName="",
            Error=error,
        )

    def _group(self) -> Group:
        nobody = jid("")
        made = protos()
        group: Group = made.GroupInfo(
            JID=jid(GROUP),
            OwnerJID=nobody,
            OwnerPN=nobody,
            GroupName=made.GroupName(Name="Tea", NameSetAt=0, NameSetBy=nobody),
            GroupTopic=made.GroupTopic(
                Topic="", TopicID="", TopicSetAt=0, TopicSetBy=nobody, TopicDeleted=False
            ),
            GroupAnnounce=made.GroupAnnounce(IsAnnounce=False, AnnounceVersionID=""),
            GroupCreated=1_790_000_000,
            Participants=[self._member(OURS, admin=True), self._member(ADA), self._member(BEN)],
        )
        return group


def _known(user: str | None, server: str) -> Jid:
    made: Jid = jid(f"{user}@{server}" if user else "")
    return made
