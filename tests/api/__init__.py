"""The HTTP surface against whatever may arrive: its own description, and noise."""
