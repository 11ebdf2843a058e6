"""What each syscall does, one module a family."""
