"""A WhatsApp without phones: deterministic, durable, and shared by all session processes."""
