"""What past runs teach: projections of the journal."""
