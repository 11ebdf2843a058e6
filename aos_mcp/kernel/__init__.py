"""The kernel: one door, a process table, a scheduler, a loop."""
