"""Sessions: owns the WhatsApp connections, each by exactly one process.

Owns: shard leases, session states, handovers, inbound de-duplication, callbacks until they are
taken, files on their way in, what is known of numbers, the sandbox's world.
Reads: ``gateway.instances`` (which connections should exist, and with which settings),
``gateway.media`` (which files messages name, and which are gone), of ``gateway.organizations``
for how long messages are kept, and ``gateway.worker_orders`` (whether it may work).
Both services put files into the media store.
Consumes: ``transmit``, ``connect_instance``, ``disconnect_instance``, ``ask_instance``,
``mark_read``, ``show_presence``, ``take_callbacks`` and the sandbox's commands, from the queue of
each shard that it owns.
Publishes: to the dispatcher ``transmissions_settled`` and ``receipts_reported``; to whoever has
asked ``instance_answered``; to everybody ``message.received``, ``.edited``, ``.revoked``,
``.reaction``, ``instance.*``, ``connection.update`` and ``session.degraded``.
Promises: no instance is connected twice; a transmission is handed to an engine at most once; what
WhatsApp delivers is committed before it is acknowledged, so no event is dropped.

Read next: ``app`` (what exists), ``consumers`` (what happens), ``ownership`` (who may), ``domain``
(why).
"""
