"""The gRPC edge: thin servicers over synchronous functions, one interceptor for callers and errors.

Only this edge is asynchronous. Every rule and every transaction runs in a thread.
"""
