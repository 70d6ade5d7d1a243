"""Bytes of releases, from wherever they are to the device's store; verified before they land."""
