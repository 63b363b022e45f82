"""The five services. None imports another: they speak by commands, events and tables."""
