"""The HTTP edge: what stock TUF clients, mirrors and browsers read. It writes nothing."""
