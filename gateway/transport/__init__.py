"""Where bytes meet the network: the guarded request downstream, the HTTP client upstream."""
