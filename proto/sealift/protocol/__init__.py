"""What Sealift means, without network or disk: names, documents, rules, arithmetic.

Everything here is pure. The server's submission, the publisher's signing and the device's
admission call the same functions, so that no rule stands twice.
"""
