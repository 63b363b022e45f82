"""SQL of the webhook service: functions of a connection. All of it over arrays, on hot connections."""
