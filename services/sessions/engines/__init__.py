"""Ways to reach WhatsApp. They know the port and not one another."""
