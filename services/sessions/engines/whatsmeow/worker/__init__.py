"""The process that holds the connections, and what it says, hears and asks there."""
