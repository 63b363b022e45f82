"""What the gateway does by itself, a noun to a module."""
