"""WhatsApp by linked devices: whatsmeow, through neonize, in worker processes."""
