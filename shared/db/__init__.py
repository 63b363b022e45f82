"""PostgreSQL: the truth. Tables by owner, transactions that can be seen, batches in one statement."""
