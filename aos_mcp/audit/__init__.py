"""The hash chain: linking, signing, verifying, redacting. Pure."""
