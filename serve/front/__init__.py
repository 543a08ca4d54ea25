"""What comes before the endpoints, from a connection's first byte on.

port            of Ray Serve's proxy, where nobody else may listen
connection      uvicorn's, with a deadline for a request's head
edge            around Ray Serve's proxy: headers that it stumbles over, answers that it has none for
every_request   in the API: ids, keys, deadlines, the log and the metrics
"""

from serve.front.every_request import Front, Observer, RequestReport, problem_response

__all__ = ["Front", "Observer", "RequestReport", "problem_response"]
