"""Real neonize clients in a process of their own, told what to do by lines of JSON.

In: ``{"n": 1, "client": "alice", "do": "text", "to": "…", "text": "…"}``. Out: ``{"n": 1,
"value": …}`` or ``{"n": 1, "error": "…"}`` for each of those, and between them what the clients
hear: ``{"client": "alice", "heard": "message", …}``.

A process of its own because neonize keeps the first event loop it meets, aborts the process when
two threads connect at once, and leaves threads that keep a process from ending; so connecting is
serialised here and the end is ``os._exit``. Go writes to standard output too, so what is said here
goes to a copy of it, and the original leads to standard error.
"""

import asyncio
import base64
import importlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

said = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

aioze = importlib.import_module("neonize.aioze.client")
events = importlib.import_module("neonize.aioze.events")
binder = importlib.import_module("neonize._binder")
enums = importlib.import_module("neonize.utils.enum")
jids = importlib.import_module("neonize.utils.jid")
e2e = importlib.import_module("neonize.proto.waE2E.WAWebProtobufsE2E_pb2")
RECEIPT_TYPES = events.ReceiptEv.ReceiptType
ClientName, ClientType = enums.ClientName, enums.ClientType

THREADS = 64
NOTABLE = {
    "connected": "ConnectedEv",
    "disconnected": "DisconnectedEv",
    "logged_out": "LoggedOutEv",
    "replaced": "StreamReplacedEv",
    "banned": "TemporaryBanEv",
    "outdated": "ClientOutdatedEv",
    "refused": "ConnectFailureEv",
    "paired": "PairStatusEv",
    "message": "MessageEv",
    "receipt": "ReceiptEv",
    "typing": "ChatPresenceEv",
    "presence": "PresenceEv",
    "joined": "JoinedGroupEv",
    "group": "GroupInfoEv",
    "offline": "OfflineSyncCompletedEv",
}


def say(**facts: Any) -> None:
    said.write(json.dumps(facts) + "\n")


def jid(text: str) -> Any:
    """``123``, ``123:4@lid``, ``123@g.us``."""
    user, _, server = text.partition("@")
    made = jids.build_jid(user.partition(":")[0], server or "s.whatsapp.net")
    made.Device = int(user.partition(":")[2] or 0)
    return made


def spelled(address: Any) -> str:
    return f"{address.User}@{address.Server}" if address.User else ""


def facts_of(event: Any) -> dict[str, Any]:
    """What a test may want to know of an event, whichever it is."""
    kind = type(event).__name__
    if kind == "Message":
        source, message = event.Info.MessageSource, event.Message
        return {
            "id": event.Info.ID,
            "chat": spelled(source.Chat),
            "sender": spelled(source.Sender),
            "senderAlt": spelled(source.SenderAlt),
            "fromMe": source.IsFromMe,
            "name": event.Info.Pushname,
            "edited": event.IsEdit,
            "text": message.conversation or message.extendedTextMessage.text,
            "kinds": [field.name for field, _ in message.ListFields()],
            "raw": base64.b64encode(message.SerializeToString()).decode(),
            "info": base64.b64encode(event.Info.SerializeToString()).decode(),
        }
    if kind == "Receipt":
        source = event.MessageSource
        return {
            "ids": list(event.MessageIDs),
            "type": RECEIPT_TYPES.Name(event.Type),
            "chat": spelled(source.Chat),
            "sender": spelled(source.Sender),
            "fromMe": source.IsFromMe,
        }
    if kind == "ChatPresence":
        source = event.MessageSource
        return {"sender": spelled(source.Sender), "state": event.State, "media": event.Media}
    if kind == "Presence":
        return {"sender": spelled(event.From), "absent": event.Unavailable}
    if kind == "PairStatus":
        return {"jid": f"{event.ID.User}:{event.ID.Device}", "failed": event.Status}
    return {"is": str(event).replace("\n", " ")[:400]}


class Client:
    """One neonize client."""

    connecting = asyncio.Lock()

    def __init__(self, name: str) -> None:
        self._name = name
        self._client: Any = None
        self._task: asyncio.Task[Any] | None = None

    async def open(self, *, store: str, proxy: str, device: str = "") -> None:
        """Connect: as a linked device (``number:device``), or to be paired."""
        self._client = aioze.NewAClient(
            store, jid=jid(device) if device else None, uuid=self._name, new_device=not device
        )
        for name, event in NOTABLE.items():
            self._listen(name, getattr(events, event))

        @self._client.event.qr  # type: ignore[untyped-decorator]
        async def _(_: Any, data: bytes) -> None:
            say(client=self._name, heard="qr", qr=data.decode())

        async with self.connecting:
            self._task = await self._client.connect(binder.ProxySettings(proxy_address=proxy))
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        async with self.connecting:
            await self._client.stop()
        self._client._stop_finalizer.detach()

    async def logout(self) -> None:
        await self._client.logout()

    async def pair_by_code(self, *, phone: str) -> str:
        code = await self._client.PairPhone(phone, True, ClientName.LINUX, ClientType.CHROME)
        return str(code)

    async def text(self, *, to: str, text: str) -> str:
        return str((await self._client.send_message(jid(to), text)).ID)

    async def edit(self, *, to: str, id: str, text: str) -> str:  # noqa: A002
        changed = e2e.Message(conversation=text)
        return str((await self._client.edit_message(jid(to), id, changed)).ID)

    async def revoke(self, *, to: str, me: str, id: str) -> str:  # noqa: A002
        return str((await self._client.revoke_message(jid(to), jid(me), id)).ID)

    async def react(self, *, to: str, sender: str, id: str, emoji: str) -> str:  # noqa: A002
        reaction = await self._client.build_reaction(jid(to), jid(sender), id, emoji)
        return str((await self._client.send_message(jid(to), reaction)).ID)

    async def poll(self, *, to: str, question: str, options: list[str]) -> str:
        poll = await self._client.build_poll_vote_creation(question, options, enums.VoteType.SINGLE)
        return str((await self._client.send_message(jid(to), poll)).ID)

    async def document(self, *, to: str, data: str, filename: str) -> str:
        sent = await self._client.send_document(
            jid(to), data.encode(), filename=filename, mimetype="text/plain"
        )
        return str(sent.ID)

    async def download(self, *, raw: str) -> str:
        message = e2e.Message.FromString(base64.b64decode(raw))
        return bytes(await self._client.download_any(message)).decode()

    async def read(self, *, chat: str, sender: str, id: str) -> None:  # noqa: A002
        await self._client.mark_read(
            id, chat=jid(chat), sender=jid(sender), receipt=enums.ReceiptType.READ
        )

    async def typing(self, *, to: str) -> None:
        await self._client.send_chat_presence(
            jid(to),
            enums.ChatPresence.CHAT_PRESENCE_COMPOSING,
            enums.ChatPresenceMedia.CHAT_PRESENCE_MEDIA_AUDIO,
        )

    async def available(self) -> None:
        await self._client.send_presence(enums.Presence.AVAILABLE)

    async def watch(self, *, contact: str) -> None:
        await self._client.subscribe_presence(jid(contact))

    async def rename(self, *, name: str) -> None:
        await self._client.set_profile_name(name)

    async def on_whatsapp(self, *, numbers: list[str]) -> dict[str, bool]:
        found = await self._client.is_on_whatsapp(*numbers)
        return {entry.Query.lstrip("+"): entry.IsIn for entry in found}

    async def create_group(self, *, subject: str, members: list[str]) -> str:
        made = await self._client.create_group(subject, [jid(member) for member in members])
        return spelled(made.JID)

    async def groups(self) -> list[str]:
        return [spelled(group.JID) for group in await self._client.get_joined_groups()]

    async def members(self, *, group: str) -> list[str]:
        info = await self._client.get_group_info(jid(group))
        return [spelled(member.PhoneNumber) for member in info.Participants]

    async def change_members(self, *, group: str, members: list[str], change: str) -> None:
        await self._client.update_group_participants(
            jid(group), [jid(member) for member in members], enums.ParticipantChange[change]
        )

    async def invite(self, *, group: str, reset: bool = False) -> str:
        return str(await self._client.get_group_invite_link(jid(group), reset))

    async def join(self, *, link: str) -> str:
        return spelled(await self._client.join_group_with_link(link))

    async def subject(self, *, group: str, subject: str) -> None:
        await self._client.set_group_name(jid(group), subject)

    async def leave(self, *, group: str) -> None:
        await self._client.leave_group(jid(group))

    async def about(self, *, text: str) -> None:
        await self._client.set_status_message(text)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """A first connection that fails is no event: the task of the client ends with it."""
        if error := task.exception():
            say(client=self._name, heard="failed", error=str(error))

    def _listen(self, name: str, event: Any) -> None:
        async def heard(_: Any, event: Any) -> None:
            say(client=self._name, heard=name, **facts_of(event))

        self._client.event(event)(heard)


async def main(make: Callable[[str], Client] = Client) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS))
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    clients: dict[str, Client] = {}
    running: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        order = json.loads(line)
        number, name = order.pop("n"), order.pop("client")
        client = clients.setdefault(name, make(name))
        task = asyncio.create_task(_obey(number, getattr(client, order.pop("do")), order))
        running.add(task)
        task.add_done_callback(running.discard)


async def _obey(number: int, do: Callable[..., Awaitable[Any]], order: dict[str, Any]) -> None:
    try:
        say(n=number, value=await do(**order))
    except Exception as error:  # noqa: BLE001 - whatever neonize raises is the answer
        say(n=number, error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)
