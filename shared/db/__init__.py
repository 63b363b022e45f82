"""PostgreSQL: the truth. Tables by owner, visible transactions, batches in one statement."""
