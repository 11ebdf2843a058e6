"""The reference monitor: pure decisions about rights, rules and approvals."""
