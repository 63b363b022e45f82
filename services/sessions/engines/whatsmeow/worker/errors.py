"""whatsmeow's errors as ours: told apart by their words, which is all that neonize hands on.

The words are those of whatsmeow's ``errors.go``, ``send.go``, ``request.go``, ``upload.go`` and
``download.go`` (the version that neonize 0.5.2 pins, 2026-08-06), where Go wraps one error into
another by putting words in front of it, so they are looked for, not compared.

What matters most is whether a message was written to the socket. ``SendMessage`` looks up the
recipient, encrypts, writes, and waits for an acknowledgement: what fails before the write was
certainly not sent, what fails while waiting may have been, and an acknowledgement with an error
says that it was refused.
"""

import re
from datetime import timedelta
from typing import Final

from services.sessions.engines.port import NotOnWhatsApp, Refused, Retryable, SessionDown
from shared.errors import (
    Forbidden,
    NotFound,
    PlatformError,
    Rejected,
    Throttled,
    Transient,
    Unconfirmed,
)

SLOW_DOWN: Final = timedelta(seconds=60)

_ACK = re.compile(r"server returned error (\d+)")
_IQ = re.compile(r"info query returned status (\d+)")
_DOWNLOAD = re.compile(r"download failed with status code (\d+)")
_UPLOAD = re.compile(r"upload failed with status code (\d+)")

_NO_CONNECTION: Final = (
    "websocket not connected",
    "frame socket is closed",
    "the store doesn't contain a device JID",
    "client is nil",
)
# These two are also what whatsmeow says when it could not repeat, after a reconnect, something
# that it had written before (``retryFrame``). Only behind other words do they mean that nothing
# was written.
_AMBIGUOUS: Final = frozenset({"websocket not connected", "frame socket is closed"})
# What fails before anything of the message was written.
_BEFORE: Final = (
    "failed to get LID for PN",
    "failed to get user info for",
    "failed to get group members",
    "failed to get device list",
    "failed to fetch LID mappings",
    "failed to prefetch sessions",
    "failed to save cached sessions",
    "failed to clear untrusted identity",
    "failed to process prekey bundle",
    "failed to create sender key distribution message",
    "failed to marshal",
    "failed to encrypt",
    "cipher encryption failed",
    "no signal session established",
    "info query timed out",
    "websocket disconnected before info query",
)
_NEVER: Final = {
    "can't send message to unknown server": "WhatsApp has no such address.",
    "must be a user JID": "WhatsApp has no such address.",
    "frame too large": "This message is too long.",
}

# What an acknowledgement's error means, as far as it is known; WhatsApp documents none of them.
# whatsmeow's and Baileys's issues: https://github.com/tulir/whatsmeow/issues/679 (403),
# https://github.com/tulir/whatsmeow/issues/922 (479, passes by itself),
# https://github.com/WhiskeySockets/Baileys/issues/2441 (463).
_FOR_GOOD: Final = {
    400: "WhatsApp cannot read this message.",
    401: "WhatsApp does not let this account write there.",
    403: "WhatsApp does not let this account write there.",
    404: "WhatsApp does not know this chat.",
    405: "WhatsApp does not allow this in this chat.",
    406: "WhatsApp does not accept this message.",
    410: "This chat is gone.",
    463: "WhatsApp does not let this account begin new chats at present: it is restricted.",
}
_TOO_MUCH: Final = frozenset({419, 420, 429})


def of_sending(error: Exception) -> PlatformError:
    """What became of a message whose ``send_message`` raised this."""
    words = str(error)
    if refusal := _ACK.search(words):
        return _refused(int(refusal[1]))
    if "no LID found for" in words:
        return NotOnWhatsApp("This number is not on WhatsApp.")
    for known, sentence in _NEVER.items():
        if known in words:
            return Refused(sentence)
    if words not in _AMBIGUOUS and any(known in words for known in _NO_CONNECTION):
        return SessionDown("The session is not connected.")
    if any(known in words for known in _BEFORE):
        return _of_group(words) or _before(words)
    # No acknowledgement came, or the write failed half-way. Nobody knows, so nobody repeats it.
    return Unconfirmed("WhatsApp did not acknowledge the message.")


def of_uploading(error: Exception) -> PlatformError:
    """What became of a file that was to be sent. A message whose file failed was never sent."""
    words = str(error)
    if any(known in words for known in _NO_CONNECTION):
        return SessionDown("The session is not connected.")
    if refusal := _UPLOAD.search(words):
        status = int(refusal[1])
        if status == 413:
            return Rejected("WhatsApp does not take files this large.", code="MEDIA_TOO_LARGE")
        if status == 415:
            return Rejected("WhatsApp does not take files of this type.", code="MEDIA_TYPE")
        if status == 429:
            return Throttled("WhatsApp asks to slow down.", retry_after=SLOW_DOWN)
    return Retryable("WhatsApp did not take the file.")


def of_fetching(error: Exception) -> PlatformError:
    """What became of a file that somebody sent.

    403, 404 and 410 mean that WhatsApp has deleted it, as it does after some weeks; a phone could
    upload it again if asked, but neonize hands on no answer to that. What does not match its
    hashes was damaged by whoever sent it, and stays so.
    """
    words = str(error)
    if refusal := _DOWNLOAD.search(words):
        if int(refusal[1]) in {403, 404, 410}:
            return Rejected("WhatsApp does not have this file any more.", code="MEDIA_GONE")
        return Retryable("WhatsApp did not hand out the file.")
    damaged = (
        "hash of media",
        "hash of unencrypted media",
        "invalid media hmac",
        "file too short",
        "failed to decrypt file",
        "does not start with slash",
    )
    if any(known in words for known in damaged):
        return Rejected("This file arrived damaged.", code="MEDIA_GONE")
    if any(known in words for known in _NO_CONNECTION):
        return SessionDown("The session is not connected.")
    return Retryable("WhatsApp did not hand out the file.")


def of_asking(error: Exception, *, changes: bool) -> PlatformError:
    """What became of a question; ``changes`` if asking it changes something."""
    words = str(error)
    if known := _of_group(words) or _of_query(words):
        return known
    if any(lost in words for lost in _NO_CONNECTION) and not (changes and words in _AMBIGUOUS):
        return SessionDown("The session is not connected.")
    if changes:
        return Unconfirmed("WhatsApp did not answer.")
    return Transient("WhatsApp did not answer.")


def _refused(code: int) -> PlatformError:
    if code in _TOO_MUCH:
        return Throttled("WhatsApp asks to slow down.", retry_after=SLOW_DOWN)
    if code in _FOR_GOOD:
        return Refused(f"{_FOR_GOOD[code]} (error {code})", data={"error": code})
    return Retryable(
        f"WhatsApp has refused this message for the moment. (error {code})", data={"error": code}
    )


def _before(words: str) -> PlatformError:
    refusal = _IQ.search(words)
    if refusal and int(refusal[1]) in _TOO_MUCH:
        return Throttled("WhatsApp asks to slow down.", retry_after=SLOW_DOWN)
    return Retryable("The recipient could not be looked up.")


def _of_group(words: str) -> PlatformError | None:
    if "not participating in that group" in words:
        return Forbidden("The account is not in this group.")
    if "that group does not exist" in words:
        return NotFound("There is no such group.")
    if "don't have the permission to get the group's invite link" in words:
        return Forbidden("Only an administrator of the group may see its invite link.")
    return None


def _of_query(words: str) -> PlatformError | None:
    refusal = _IQ.search(words)
    if refusal is None:
        return None
    code = int(refusal[1])
    if code in _TOO_MUCH:
        return Throttled("WhatsApp asks to slow down.", retry_after=SLOW_DOWN)
    if code in {401, 403}:
        return Forbidden("WhatsApp does not let this account do that.")
    if code == 404:
        return NotFound("WhatsApp does not know what was asked about.")
    if 400 <= code < 500:
        return Rejected(f"WhatsApp has refused this. (error {code})", data={"error": code})
    return Transient("WhatsApp could not answer.")
