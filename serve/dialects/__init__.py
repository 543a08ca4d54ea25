"""The HTTP APIs that are spoken here, one file each: what each takes, gives, and says of mistakes."""
