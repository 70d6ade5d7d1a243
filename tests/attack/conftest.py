"""The scene that every attack begins with."""

from support.attack_scene import now, scene

__all__ = ["now", "scene"]
