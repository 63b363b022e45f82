"""The dispatcher's SQL, by purpose: claiming, settling, inbound rows, and upkeep."""
