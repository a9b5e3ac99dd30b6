"""Runs code that nobody trusts.

The sandboxes, `self_test` and `service_side` run in the verifier's process, `fork_server` in a process of its own,
`jail` there and in its children.
"""
