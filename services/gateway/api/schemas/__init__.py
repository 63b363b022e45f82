"""What callers send and get: the models that validate are those that document."""
