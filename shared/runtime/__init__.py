"""How a service starts, serves and stops; the same for one service and for five in one process."""
