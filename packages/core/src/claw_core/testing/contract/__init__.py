"""The conformance kit: every promise of the contract, held against one runtime.

Every check has processes of its own and a deadline of its own, so the kit ends whatever a runtime
does. `suite.RuntimeContract` is the kit for pytest, `bench.Bench` the same without it.
"""
