"""Commands and events: the only coupling between services."""
