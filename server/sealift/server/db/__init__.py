"""The database: tables, engine and transactions. Synchronous; called from threads."""
