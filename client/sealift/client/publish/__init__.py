"""What a publisher does: keys, releases, channels, holds, invites."""
