"""Virtual machines of Tart as instances of claw."""
