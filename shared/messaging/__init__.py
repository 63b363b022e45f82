"""Between the broker and the tables: outbox, inbox, and consumers of one message or of many."""
