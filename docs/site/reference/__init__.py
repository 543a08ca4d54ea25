"""The reference pages, made of what the program itself says: models, parsers, metrics, the API document."""
