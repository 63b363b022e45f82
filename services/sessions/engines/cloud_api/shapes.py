"""The shape of what Meta POSTs, as far as it is read.

Everything but ids may be missing, and more may be there than stands here: Meta adds to it without
notice. https://developers.facebook.com/docs/whatsapp/cloud-api/webhooks/components
"""

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Shape(BaseModel):
    """Part of a callback. What could not be read is not repeated in the error."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, populate_by_name=True
    )


class Named(Shape):
    """Something that has an id."""

    id: str | None = None


class Body(Shape):
    """Words."""

    body: str = ""


class File(Shape):
    """A file that somebody sent. ``sha256`` is base64."""

    id: str
    mime_type: str = "application/octet-stream"
    sha256: str | None = None
    caption: str | None = None
    filename: str | None = None
    voice: bool = False


class Place(Shape):
    """A location, in degrees."""

    latitude: float
    longitude: float
    name: str | None = None
    address: str | None = None


class CardName(Shape):
    """What a card's person is called."""

    formatted_name: str = ""


class CardPhone(Shape):
    """A number on a card."""

    phone: str | None = None
    wa_id: str | None = None


class Card(Shape):
    """A person's card."""

    name: CardName = CardName()
    phones: tuple[CardPhone, ...] = ()


class ReactionPart(Shape):
    """A reaction; without ``emoji`` it is taken back."""

    message_id: str
    emoji: str = ""


class Choice(Shape):
    """What was chosen: the words on it."""

    title: str = ""
    body: str = ""


class Interactive(Shape):
    """An answer to buttons, a list or a form."""

    button_reply: Choice | None = None
    list_reply: Choice | None = None
    nfm_reply: Choice | None = None


class Button(Shape):
    """A button of a template that was pressed: the words on it."""

    text: str = ""


class Message(Shape):
    """A message. ``type`` says which of the other fields is there."""

    id: str
    type: str
    timestamp: str = ""
    from_: str | None = Field(None, alias="from")
    from_user_id: str | None = None
    context: Named | None = None
    text: Body | None = None
    image: File | None = None
    video: File | None = None
    audio: File | None = None
    document: File | None = None
    sticker: File | None = None
    location: Place | None = None
    contacts: tuple[Card, ...] = ()
    reaction: ReactionPart | None = None
    interactive: Interactive | None = None
    button: Button | None = None


class ErrorData(Shape):
    """More about an error."""

    details: str | None = None


class Error(Shape):
    """What went wrong."""

    code: int | None = None
    title: str | None = None
    message: str | None = None
    error_data: ErrorData | None = None


class Status(Shape):
    """A receipt. ``biz_opaque_callback_data`` is what was sent along with the message."""

    id: str
    status: str
    timestamp: str = ""
    errors: tuple[Error, ...] = ()
    biz_opaque_callback_data: str | None = None


class Profile(Shape):
    """What a person calls themselves."""

    name: str | None = None


class Contact(Shape):
    """Who has written: a number (``wa_id``), Meta's id of the person for this business, or both."""

    profile: Profile = Profile()
    wa_id: str | None = None
    user_id: str | None = None


class Value(Shape):
    """What has changed. Messages and receipts are read one by one: one that cannot be read must
    not take the others along.
    """

    contacts: tuple[Contact, ...] = ()
    messages: tuple[JsonValue, ...] = ()
    statuses: tuple[JsonValue, ...] = ()


class Callback(Shape):
    """What the gateway has stored: all changes of one number that came in one POST."""

    values: tuple[JsonValue, ...]
