"""`gateway conversations`: looks into a store, moves conversations out of it and into it.

    gateway conversations list | show | export | import | delete

Works on a SQLite file or a server while gateways use it. `lines.py` has the format.
"""
