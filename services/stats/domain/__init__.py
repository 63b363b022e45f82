"""What is counted, and on which day. Pure rules."""
