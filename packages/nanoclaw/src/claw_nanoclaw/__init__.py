"""NanoClaw on claw: an installation of it, read-only, and its groups on the runtimes of claw."""
