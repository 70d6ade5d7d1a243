"""The life of a device: what it follows, what it decides, what it runs."""
