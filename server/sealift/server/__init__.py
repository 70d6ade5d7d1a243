"""The server: takes signed sets from publishers, keeps and serves them, and decides nothing that a
device believes.

`namespaces` keeps the signed state, `content` the blobs, `access` says who may, `fleet` knows the
devices, `db` is where it all lies; `api` and `web` are the edges, `app` puts them together.
"""
