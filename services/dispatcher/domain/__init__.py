"""What the dispatcher decides, without a database, a clock or luck."""
