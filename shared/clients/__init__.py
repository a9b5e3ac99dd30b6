"""The one way to call each service over HTTP: its paths, its deadlines, and its errors as ours.

All take an `http_client` (shared.runtime.client), which carries the token and may be shared by many of them. Every
call raises what the service answered with (shared.errors), or Unreachable, DeadlineExceeded or MalformedAnswer.
"""

from shared.clients.learner import LearnerClient
from shared.clients.rollout import RolloutClient
from shared.clients.verifier import VerifierClient

__all__ = ["LearnerClient", "RolloutClient", "VerifierClient"]
