"""The embedded `local` runtime: sandboxes made from nothing but the Linux kernel."""
