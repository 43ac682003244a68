"""Model servers: one wire codec a file, and the embedded model."""
