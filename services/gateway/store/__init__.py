"""The gateway's SQL, by what it is about. Functions of a transaction, one statement where possible."""
