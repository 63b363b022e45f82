"""Stats counts what happens.

Owns      daily counters for each tenant, instance and metric; the inbox of what was counted.
Reads     gateway.organizations (in which time zone a tenant's days begin).
Consumes  message.received, message.sent, message.delivered, message.read, message.failed.
Publishes nothing: whoever asks reads ``stats.daily_counters``.
Promises  every event is counted exactly once, on the day on which it happened for its tenant,
          however often, however late and in whatever order it comes.

A tenant that moves to another time zone moves on with it: days that were counted stay as they are.
An event that is repeated more than eight days later would be counted again.
"""
