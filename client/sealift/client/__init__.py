"""The machine of a publisher or a device: what it trusts, fetches, keeps and shows."""
