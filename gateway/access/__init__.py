"""Who may do what: credentials, key records, session tokens, limits."""
