"""How a home decides what to believe: the only place where signatures are checked on this side.

`fetcher` brings bytes, `scratch` keeps generations of them, `admission` holds the rules and
touches neither, `session` puts them together.
"""
