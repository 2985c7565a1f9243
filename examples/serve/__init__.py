"""A service: texts over HTTP, answered by replicas of a model under Ray Serve."""
