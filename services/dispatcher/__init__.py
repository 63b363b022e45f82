"""The dispatcher decides when, in what order and how fast each message goes out.

Owns      messages (status and outcome), transmissions, the pace of each instance.
Reads     gateway.instances (guard, shard), sessions.session_states (readiness), sessions.shards and
          sessions.handovers (to repeat only what has not been handed over);
          gateway.worker_orders (whether it may work).
Consumes  dispatch, transmissions_settled, receipts_reported; message.received, message.edited,
          message.revoked, instance.connected, instance.disconnected.
Publishes transmit (to the owner of the instance's shard); message.sent, message.delivered,
          message.read, message.failed: it alone, so that none repeats or goes backwards.
Promises  within a chat, messages of one priority go out in the order in which they were accepted;
          limits are never exceeded; every message has exactly one outcome.
"""
