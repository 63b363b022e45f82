"""The gateway's SQL, by what it is about: functions of a transaction."""
