"""Stats counts what happens.

Owns      counters by day and by hour for each tenant, instance and metric; the inbox of what was
          counted; which chats wait for an answer.
Reads     gateway.organizations (in which time zone a tenant's days begin); dispatcher.messages
          (when what was delivered had been sent); gateway.worker_orders (whether to restart).
Consumes  message.received, message.sent, message.delivered, message.read, message.failed.
Publishes nothing: whoever asks reads ``stats.daily_counters`` and ``stats.hourly_counters``.
Promises  every event is counted exactly once, on the day on which it happened for its tenant,
          however often, however late and in whatever order it comes.

A tenant that moves to another time zone moves on with it: days that were counted stay as they are.
An event that is repeated more than eight days later would be counted again.
"""
