"""The HTTP API: one module for each resource (parse, call, present), and the table of routes."""
