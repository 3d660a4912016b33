"""The `apple` runtime: Linux containers, each in a virtual machine, through `container`."""
