"""The Protocols between the parts. Only `wiring/` knows who implements them."""
