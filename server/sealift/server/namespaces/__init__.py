"""The signed state of namespaces: registering, submitting, holding, keeping it fresh, reading it.

Each public function is one synchronous transaction.
"""
