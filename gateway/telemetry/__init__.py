"""What operators can see: metrics for a Prometheus, log lines for whatever reads them.

Neither ever holds a key, a message's text or anything else that a client made up freely.
"""
