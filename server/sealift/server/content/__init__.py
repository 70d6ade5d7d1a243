"""The bytes of releases: where blobs are kept, and how they come in."""
