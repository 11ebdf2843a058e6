"""Public fakes and contract checks for drivers and for programs that use the kernel."""
