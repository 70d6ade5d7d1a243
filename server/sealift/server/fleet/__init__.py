"""Devices: invites, joining, reports. Nothing here decides what runs on one."""
