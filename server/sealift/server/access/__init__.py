"""Who may do what. Default deny: every call names the right that it needs."""
