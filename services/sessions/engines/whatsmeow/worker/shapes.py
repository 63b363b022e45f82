"""The shape of what neonize hands us, as far as it is read.

neonize is an optional part and is loaded by name, so its types are not at hand when ours are
checked. These are the fields of its protobufs (``Neonize.proto`` and WhatsApp's ``WAE2E.proto``).
"""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol


class Descriptor(Protocol):
    """The name of a protobuf's type."""

    full_name: str


class Proto(Protocol):
    """Any protobuf."""

    DESCRIPTOR: Descriptor

    def HasField(self, field_name: str) -> bool: ...
    def SerializeToString(self) -> bytes: ...
    def ByteSize(self) -> int: ...


class Jid(Proto, Protocol):
    """An address: ``User``, ``:Device`` and ``@Server``; both empty if there is none."""

    User: str
    Device: int
    Server: str

    def CopyFrom(self, other: "Jid") -> None: ...


class Source(Proto, Protocol):
    """Where something came from. The ``Alt`` is the same person under the other address.

    ``AddressingMode`` is 1 for telephone numbers and 2 for private ids.
    """

    Chat: Jid
    Sender: Jid
    SenderAlt: Jid
    RecipientAlt: Jid
    IsFromMe: bool
    IsGroup: bool
    AddressingMode: int


class Info(Proto, Protocol):
    """What is known of a message beside what it says. ``Timestamp`` is in milliseconds, ``Edit``
    the stanza's attribute of that name.
    """

    MessageSource: Source
    ID: str
    Pushname: str
    Timestamp: int
    Edit: str


class Key(Proto, Protocol):
    """Which message another one is about."""

    remoteJID: str
    fromMe: bool
    ID: str
    participant: str


class Context(Proto, Protocol):
    """What a message refers to."""

    stanzaID: str
    participant: str
    mentionedJID: Sequence[str]


class File(Proto, Protocol):
    """What every message with a file tells of it; ``fileLength`` is in bytes."""

    mimetype: str
    fileSHA256: bytes
    fileEncSHA256: bytes
    fileLength: int
    mediaKey: bytes
    directPath: str
    contextInfo: Context


class CaptionedFile(File, Protocol):
    """An image."""

    caption: str


class Film(CaptionedFile, Protocol):
    """A video; ``seconds`` is how long it lasts."""

    seconds: int


class Sound(File, Protocol):
    """An audio file, or a voice note if ``PTT``."""

    seconds: int
    PTT: bool


class Paper(CaptionedFile, Protocol):
    """A document."""

    fileName: str
    title: str


class ExtendedText(Proto, Protocol):
    """Words that refer to something."""

    text: str
    matchedText: str
    contextInfo: Context


class Place(Proto, Protocol):
    """A location, in degrees."""

    degreesLatitude: float
    degreesLongitude: float
    name: str
    address: str
    contextInfo: Context


class MovingPlace(Proto, Protocol):
    """A location that is followed, in degrees."""

    degreesLatitude: float
    degreesLongitude: float
    caption: str
    contextInfo: Context


class Card(Proto, Protocol):
    """One contact, as a vCard."""

    displayName: str
    vcard: str
    contextInfo: Context


class Cards(Proto, Protocol):
    """Several contacts."""

    contacts: Sequence[Card]
    contextInfo: Context


class Option(Proto, Protocol):
    """One answer to choose."""

    optionName: str


class Creation(Proto, Protocol):
    """A poll; a ``selectableOptionsCount`` of 0 means any number."""

    name: str
    options: Sequence[Option]
    selectableOptionsCount: int
    contextInfo: Context


class Vote(Proto, Protocol):
    """A vote, decrypted: the SHA-256 of each option's name."""

    selectedOptions: Sequence[bytes]


class PollUpdate(Proto, Protocol):
    """A vote, encrypted."""

    pollCreationMessageKey: Key


class ReactionPart(Proto, Protocol):
    """A reaction; an empty ``text`` takes it back."""

    key: Key
    text: str


class Button(Proto, Protocol):
    """What a button or a list answers: the words on it."""

    selectedDisplayText: str


class ListChoice(Proto, Protocol):
    """Which row of a list was chosen."""

    title: str


class ProtocolPart(Proto, Protocol):
    """What changes or accompanies messages; ``type`` is 0 for a revocation and 14 for an edit."""

    key: Key
    type: int
    editedMessage: "Message"


class Wrapper(Proto, Protocol):
    """A message within a message."""

    message: "Message"


class Message(Proto, Protocol):
    """What is said: one of these fields, seldom more."""

    conversation: str
    extendedTextMessage: ExtendedText
    imageMessage: CaptionedFile
    videoMessage: Film
    ptvMessage: Film
    audioMessage: Sound
    documentMessage: Paper
    stickerMessage: File
    locationMessage: Place
    liveLocationMessage: MovingPlace
    contactMessage: Card
    contactsArrayMessage: Cards
    pollCreationMessage: Creation
    pollCreationMessageV2: Creation
    pollCreationMessageV3: Creation
    pollCreationMessageV5: Creation
    pollCreationMessageV6: Creation
    pollUpdateMessage: PollUpdate
    reactionMessage: ReactionPart
    buttonsResponseMessage: Button
    templateButtonReplyMessage: Button
    listResponseMessage: ListChoice
    protocolMessage: ProtocolPart


class Heard(Proto, Protocol):
    """neonize's event of a message, ours or somebody's."""

    Info: Info
    Message: Message
    UnavailableRequestID: str


class Receipt(Proto, Protocol):
    """neonize's event of a receipt; ``Timestamp`` is in seconds."""

    MessageSource: Source
    MessageIDs: Sequence[str]
    Timestamp: int
    Type: int


class Sent(Proto, Protocol):
    """What WhatsApp answers to a message."""

    ID: str


class Uploaded(Proto, Protocol):
    """Where a file is that was uploaded, and how it is encrypted."""

    url: str
    DirectPath: str
    MediaKey: bytes
    FileEncSHA256: bytes
    FileSHA256: bytes
    FileLength: int


class OnWhatsApp(Proto, Protocol):
    """Whether a number is there; its ``JID`` is the private id if there is one."""

    Query: str
    JID: Jid
    IsIn: bool


class UserInfo(Proto, Protocol):
    """What somebody shows to others."""

    Status: str


class OneUserInfo(Proto, Protocol):
    """Whose that is."""

    JID: Jid
    UserInfo: UserInfo


class Device(Proto, Protocol):
    """The account itself."""

    JID: Jid
    LID: Jid
    PushName: str


class Picture(Proto, Protocol):
    """Where somebody's picture is."""

    URL: str


class Member(Proto, Protocol):
    """Somebody in a group. ``Error`` is not 0 if they could not be added."""

    JID: Jid
    LID: Jid
    PhoneNumber: Jid
    IsAdmin: bool
    IsSuperAdmin: bool
    Error: int


class GroupName(Proto, Protocol):
    Name: str


class GroupTopic(Proto, Protocol):
    Topic: str


class GroupAnnounce(Proto, Protocol):
    IsAnnounce: bool


class Group(Proto, Protocol):
    """A group. ``GroupCreated`` is in seconds, and within about a minute: it is a 32-bit float."""

    JID: Jid
    GroupName: GroupName
    GroupTopic: GroupTopic
    GroupAnnounce: GroupAnnounce
    GroupCreated: float
    Participants: Sequence[Member]


class Client(Protocol):
    """``neonize.aioze.client.NewAClient``, as far as it is used once it is connected.

    Every call may raise one of ``neonize.exc``'s exceptions, whose text is that of whatsmeow's
    error; ``errors`` knows them.
    """

    async def send_message(self, to: Jid, message: Message) -> Sent: ...
    async def upload(self, binary: bytes, media_type: Enum) -> Uploaded: ...
    async def download_media_with_path(
        self,
        direct_path: str,
        enc_file_hash: bytes,
        file_hash: bytes,
        media_key: bytes,
        file_length: int,
        media_type: Enum,
        mms_type: Enum,
    ) -> bytes: ...
    async def decrypt_poll_vote(self, message: Heard) -> Vote: ...
    async def get_pn_from_lid(self, jid: Jid) -> Jid: ...
    async def get_lid_from_pn(self, jid: Jid) -> Jid: ...
    async def is_on_whatsapp(self, *numbers: str) -> Sequence[OnWhatsApp]: ...
    async def get_user_info(self, *jid: Jid) -> Sequence[OneUserInfo]: ...
    async def get_profile_picture(self, jid: Jid) -> Picture: ...
    async def get_me(self) -> Device: ...
    async def get_group_info(self, jid: Jid) -> Group: ...
    async def get_joined_groups(self) -> Sequence[Group]: ...
    async def create_group(self, name: str, participants: list[Jid]) -> Group: ...
    async def update_group_participants(
        self, jid: Jid, participants_changes: list[Jid], action: Enum
    ) -> Sequence[Member]: ...
    async def get_group_invite_link(self, jid: Jid, revoke: bool = False) -> str: ...
    async def leave_group(self, jid: Jid) -> None: ...
    async def mark_read(self, *message_ids: str, chat: Jid, sender: Jid, receipt: Enum) -> None: ...
    async def send_chat_presence(self, jid: Jid, state: Enum, media: Enum) -> None: ...
