"""The HTTP APIs that are spoken here, one file each: what it takes, gives, says of mistakes, and where."""
