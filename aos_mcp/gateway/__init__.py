"""The gateway: Chat Completions and Messages on loopback, for programs that make their model calls through the kernel.

Translates two dialects into one call, `generate`, and its answer back. Holds no logic of its own: who may call, what it
costs and when it runs is the kernel's, behind its one door.
"""
