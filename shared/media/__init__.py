"""Files of tenants: where their bytes are kept, and which of them WhatsApp takes."""
