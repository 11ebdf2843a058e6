"""What crosses floors: frozen data, enums and the syscall table. No behaviour, no I/O."""
