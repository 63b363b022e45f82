"""What WhatsApp itself calls."""

from collections.abc import Sequence

from services.gateway.api.callbacks import Callbacks
from services.gateway.api.schemas.callbacks import CallbackQuery, CallbackTaken, WhatsAppCallback
from shared.web.routes import Raw, Route

_TAG = "Inbound"
_PATH = "/api/webhooks/whatsapp"


def routes(callbacks: Callbacks) -> Sequence[Route]:
    """Meta's Cloud API: what its webhooks are pointed at."""
    return (
        Route(
            method="GET",
            path=_PATH,
            handler=callbacks.verify,
            summary="Prove to Meta that the URL is ours",
            description="Asked when the URL is entered in the app at Meta. The challenge is "
            "answered as text if the token is `verifyToken` of an instance, or the platform's.",
            tag=_TAG,
            permission=None,
            query=CallbackQuery,
            raw={"text/plain": Raw(description="The challenge.", example="1158201444")},
            limited=True,
            errors=("WEBHOOK_VERIFICATION_FAILED",),
        ),
        Route(
            method="POST",
            path=_PATH,
            handler=callbacks.receive,
            summary="Take what WhatsApp tells: messages and receipts",
            description="Signed by Meta: `X-Hub-Signature-256` is `sha256=` and the HMAC-SHA256 of "
            "the raw body, keyed with `appSecret` of an instance whose `phoneNumberId` it names. "
            "What is not is answered 403, and nothing of it is processed. It is answered when it "
            "is stored and processed afterwards; the same body again is stored once.",
            tag=_TAG,
            permission=None,
            request=WhatsAppCallback,
            response=CallbackTaken,
            limited=True,
            errors=("WEBHOOK_VERIFICATION_FAILED",),
        ),
    )
