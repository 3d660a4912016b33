"""A `docker` for NanoClaw: its containers become instances of the runtimes of their groups."""
