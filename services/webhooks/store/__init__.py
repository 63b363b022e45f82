"""SQL of the webhook service: functions of a hot connection, all of them over arrays."""
