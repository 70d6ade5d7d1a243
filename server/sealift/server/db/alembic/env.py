"""Runs migrations on the connection that `Database.migrate` brings."""

from alembic import context

from sealift.server.db.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
