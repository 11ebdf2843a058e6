"""Where commands run: drivers that prove themselves, one supervisor, one egress proxy, and the workspaces.

No code here runs a command outside a sandbox; when no driver has passed its proof, nothing runs at all.
"""
