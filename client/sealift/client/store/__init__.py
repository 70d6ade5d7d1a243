"""The device's folder of verified releases: what is in it, who uses it, what may go."""
