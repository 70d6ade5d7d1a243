"""What server, publisher and device need of the machine: files, clock, keys, network, console."""
