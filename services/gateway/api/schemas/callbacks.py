"""What WhatsApp POSTs, as far as it takes to know whom it is for."""

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from shared.web.schemas import ApiView


class _Lenient(BaseModel):
    """Meta adds to it without notice, and what is sent again and again for seven days because we
    do not take it is lost in the end.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class WhatsAppChange(_Lenient):
    """Something that has changed with a number, or with the business account."""

    field: str = Field(default="", examples=["messages"])
    value: dict[str, JsonValue] = Field(
        default={},
        examples=[{"messaging_product": "whatsapp", "metadata": {"phone_number_id": "10627540"}}],
    )

    @property
    def phone_number_id(self) -> str | None:
        """Meta's id of the number that it is about, if it is about one."""
        metadata = self.value.get("metadata")
        named = metadata.get("phone_number_id") if isinstance(metadata, dict) else None
        return named if isinstance(named, str) and "\x00" not in named else None


class WhatsAppEntry(_Lenient):
    """What has changed with one business account."""

    id: str = Field(default="", examples=["102290129340398"])
    changes: list[WhatsAppChange] = []


class WhatsAppCallback(_Lenient):
    """What WhatsApp POSTs."""

    object: str = Field(examples=["whatsapp_business_account"])
    entry: list[WhatsAppEntry]


class CallbackQuery(BaseModel):
    """What Meta asks with when the URL is entered there."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    mode: str = Field(default="", alias="hub.mode", description="`subscribe`.")
    verify_token: str = Field(
        default="", alias="hub.verify_token", description="One that an instance has."
    )
    challenge: str = Field(
        default="", alias="hub.challenge", max_length=1024, description="What is answered."
    )


class CallbackTaken(ApiView):
    """For how many instances it was stored; one that has come before is not stored again."""

    stored: int
