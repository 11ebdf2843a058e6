"""Counters and histograms of one kernel."""
