"""Durable state: the only floor that knows a database."""
