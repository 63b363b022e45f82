"""Who gets what, when it is tried again, and when an endpoint is given up. Pure rules."""
