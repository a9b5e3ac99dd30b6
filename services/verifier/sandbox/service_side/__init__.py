"""The service's side of the sandbox: runs in the verifier's process."""
