"""The `docker` runtime: containers of an engine, through its HTTP API."""
