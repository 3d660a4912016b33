"""A runtime for claw that drives bubblewrap: every command in a sandbox of its own."""
