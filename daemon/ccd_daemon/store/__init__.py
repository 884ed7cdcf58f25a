"""What the daemon remembers: conversations on disk and answers in memory."""
