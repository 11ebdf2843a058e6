"""Virtual memory for context: pure decisions about pages, layout and tokens."""
