"""Publishing in batches: written in one go, confirmed by counting.

The only module that leans on the inside of aiormq, the driver beneath aio-pika. Its own publish
costs 140 µs a message (a lock, a task, a future and a drain for each); a batch written here costs
a tenth of that. ``ConfirmChannel`` is an aiormq channel that replaces two of its methods, and
relies on this much of aiormq 7:

* ``Channel(connection, number)`` entered in ``connection.channels`` and then ``open()``-ed is a
  working channel with confirms on: that is all ``Connection.channel()`` does;
* the channel's reader calls ``_on_confirm_frame`` for each ack and nack, and ``_on_return_frame``
  for each return, whose content it has not read yet (``_get_frame`` and ``_read_content`` do);
* what is put on ``write_queue`` as one ``ChannelFrame`` is written as it is, in the order put;
* ``closing`` is done once the channel or its connection is gone;
* nobody else publishes on this channel, so delivery tags are counted here alone.

``tests/integration/test_rabbitmq.py`` holds aiormq to each of them.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Self

import aiormq
from aiormq.abc import AbstractConnection, ChannelFrame, ConfirmationFrameType
from pamqp import commands
from pamqp.header import ContentHeader
from typing_extensions import override

from shared.broker.port import Outgoing
from shared.broker.rabbitmq_frames import encode
from shared.errors import Transient

CHANNEL_NUMBER = 1  # The connection is ours alone and carries nothing else for long.


class _Batch:
    """Messages that were written together, until the broker has answered for each of them."""

    __slots__ = ("first", "last", "messages", "refused", "returned", "settled", "unanswered")

    def __init__(self, messages: Sequence[Outgoing], *, first: int) -> None:
        self.messages = messages
        self.first = first
        self.last = first + len(messages) - 1
        self.unanswered = set(range(first, self.last + 1))
        self.refused = 0
        self.returned: list[Outgoing] = []
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answer(self, tag: int, *, multiple: bool, refused: bool) -> None:
        """The broker has spoken about ``tag``, or about everything up to it."""
        before = len(self.unanswered)
        if not multiple:
            self.unanswered.discard(tag)
        elif tag >= self.last:
            self.unanswered.clear()
        else:
            self.unanswered.difference_update(range(self.first, tag + 1))
        if refused:
            self.refused += before - len(self.unanswered)

    def finish(self, failure: Exception | None = None) -> None:
        if self.settled.done():
            return  # Whoever published has stopped waiting.
        if failure is None:
            self.settled.set_result(None)
        else:
            self.settled.set_exception(failure)


class ConfirmChannel(aiormq.Channel):
    """A channel for publishing only, shared by all who publish over one connection."""

    def __init__(self, connection: AbstractConnection) -> None:
        super().__init__(connection, CHANNEL_NUMBER)
        self._frame_max = connection.connection_tune.frame_max
        self._writing = asyncio.Lock()
        self._next_tag = 1
        self._batches: deque[_Batch] = deque()

    @classmethod
    async def opened(cls, connection: AbstractConnection) -> Self:
        """A new channel on a connection that has none."""
        channel = cls(connection)
        connection.channels[channel.number] = channel
        await channel.open()
        channel.closing.add_done_callback(lambda _: channel._lose())
        return channel

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Outgoing]:
        """Return once the broker has answered for every message, with those it had no queue for.

        Raises ``Transient`` if it refuses one or the channel is lost. Has no timeout of its own.
        Cancelled while it waits, it leaves the messages on their way.
        """
        frames = encode(messages, channel=self.number, frame_max=self._frame_max)
        # The lock makes the order of delivery tags the order on the wire: ``put`` may wait, and
        # those who wait there are not served in order.
        async with self._writing:
            if self.is_closed:
                raise Transient("the connection to the broker is lost")
            await self.write_queue.put(ChannelFrame(payload=frames, should_close=False))
            # Nothing is awaited between the write and this, so no answer can come too early, and
            # a cancelled ``put`` has used up no tags.
            batch = _Batch(messages, first=self._next_tag)
            self._next_tag = batch.last + 1
            self._batches.append(batch)
        await batch.settled
        if batch.refused:
            raise Transient(f"the broker refused {batch.refused} of {len(messages)} messages")
        return batch.returned

    @override
    async def _on_confirm_frame(self, frame: ConfirmationFrameType) -> None:
        tag = frame.delivery_tag or 0
        refused = not isinstance(frame, commands.Basic.Ack)
        multiple = not isinstance(frame, commands.Basic.Reject) and frame.multiple
        for batch in self._batches:
            if batch.first > tag:
                break
            if multiple or tag <= batch.last:
                batch.answer(tag, multiple=multiple, refused=refused)
                if not batch.unanswered:
                    batch.finish()
        while self._batches and not self._batches[0].unanswered:
            self._batches.popleft()

    @override
    async def _on_return_frame(self, frame: commands.Basic.Return) -> None:
        header = await self._get_frame()
        if not isinstance(header, ContentHeader):
            raise TypeError(f"a return without a header: {header!r}")
        await self._read_content(frame, header)
        # A return has no delivery tag. It comes before the ack of its message, so the first
        # message that fits and has not been returned yet is the one.
        wanted = (frame.exchange, frame.routing_key, header.properties.message_id)
        for batch in self._batches:
            for message in batch.messages:
                known = (message.exchange, message.routing_key, message.message_id)
                if known == wanted and not any(message is gone for gone in batch.returned):
                    batch.returned.append(message)
                    return

    def _lose(self) -> None:
        for batch in self._batches:
            batch.finish(Transient("the connection was lost before the broker had confirmed"))
        self._batches.clear()
