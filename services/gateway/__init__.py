"""The gateway checks who is asking and what they want, commits it, and answers.

Owns      organizations, users with their invitations, assignments, keys and refresh tokens,
          instances, instance keys, webhook endpoints, broadcasts, stored answers (idempotency),
          uploaded media, the event log, the audit log and dead letters; inserts accepted messages,
          and callbacks of WhatsApp into sessions.callbacks.
Reads     dispatcher.messages, transmissions, pacing; sessions.session_states, handovers,
          inbound_media; webhooks.deliveries, attempts, endpoint_health; stats.daily_counters,
          hourly_counters; every service's workers.
Consumes  every event, for the event log; every dead letter; instance_answered, each replica
          under a key of its own; look_again, every replica.
Publishes dispatch (to the dispatcher); connect_instance, disconnect_instance, mark_read,
          show_presence, ask_instance, take_callbacks and the sandbox's commands (to an instance's
          shard);
          test_endpoint (to webhooks); look_again (to every gateway); security.violation,
          user.mapped, system.status. What is requeued goes to the queue it died in.
Tells     live clients, by Socket.IO, what the event log tells.
Promises  a 202 is never lost: what it answers for is committed before it is said, a callback
          before WhatsApp is answered. A dead letter
          stays until somebody has decided about it.

A credential or an instance that changes is taken note of at once by the replica that changed it,
and by the others when they hear of it, within a second. Where that is not heard, a credential
counts for five seconds at most, which is how long it is remembered, and an instance for one.
"""
