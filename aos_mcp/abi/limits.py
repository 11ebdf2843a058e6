"""Every bound of the kernel, with the reason for the number.

What a user may want to change is in `abi.settings`; what stands here protects the kernel itself.
"""

from __future__ import annotations

# Processes -----------------------------------------------------------------------------------------------------------
PROCESS_DEPTH_MAX = 8  # A tree deeper than this has always been a loop of agents that delegate to each other.
PROCESS_LIVE_MAX = 2_000  # Two thousand agents fit in memory on two cores; more is a fork bomb.
PROCESS_CHILDREN_MAX = 256  # Of one parent, alive at once.
QUANTA_INFLIGHT_MAX = 512  # Turns under way at once in one kernel; the providers' limits are far lower.
LEASE_S = 15.0  # A kernel that is silent for this long has lost its processes.
LEASE_RENEW_S = LEASE_S / 3  # Two renewals may be lost before a lease ends.
HANG_S = 900.0  # A turn that shows no sign of life for this long is ended by the watchdog.
FINISHING_TURNS = 1  # What SIGTERM leaves an agent: one turn to finish up.
MODEL_RETRIES_MAX = 8  # Re-enqueues of one model call after faults that waiting may cure.
MODEL_RETRY_BASE_S = 0.5
MODEL_RETRY_CAP_S = 60.0
MODEL_CALL_S = 600.0  # The longest a single model call may take, first byte to last.
WAIT_S_MAX = 3_600.0  # The longest a caller may wait in one call; hosts give up long before.
WAIT_PIDS_MAX = 64
TOOL_REQUESTS_PER_TURN_MAX = 32

# Text and payloads ---------------------------------------------------------------------------------------------------
TASK_CHARS_MAX = 200_000
NAME_CHARS_MAX = 64
TEXT_CHARS_MAX = 1_000_000  # A message, a note.
PAGE_BYTES_MAX = 8 * 2**20  # One page of context; larger things belong in a workspace.
LINE_BYTES_MAX = 16 * 2**20  # One JSON-RPC line on a socket or pipe.
RESULT_TOKENS_MAX = 4_000  # What a tool result may put in front of a model; the rest is a page handle.
REPLY_CHARS_MAX = 45_000  # Hosts replace results beyond about 50,000 characters by a preview.
FILES_MAX = 64  # Files handed to one sandbox command.
FILE_BYTES_MAX = 4 * 2**20
LABELS_MAX = 16

# Lists ---------------------------------------------------------------------------------------------------------------
LIST_MAX = 200
SEARCH_MAX = 50
AUDIT_LIST_MAX = 500

# Sandbox -------------------------------------------------------------------------------------------------------------
EXEC_S_MAX = 3_600.0
EXEC_OUTPUT_BYTES_MAX = 256 * 2**10  # Kept of stdout and of stderr each; what is beyond is counted and dropped.
EXEC_MEMORY_BYTES = 512 * 2**20
EXEC_PIDS_MAX = 128
WORKSPACE_FILES_MAX = 50_000
WORKSPACE_BYTES_MAX = 2 * 2**30

# Mounts --------------------------------------------------------------------------------------------------------------
MOUNT_CALL_S = 120.0
MOUNT_START_S = 30.0
MOUNT_TOOLS_MAX = 256  # Of one downstream server.
MOUNT_LINE_BYTES_MAX = 8 * 2**20
MOUNT_BACKOFF_CAP_S = 60.0
TOOL_NAME_CHARS_MAX = 112  # `mcp__aos__` and the like are put before it, and hosts drop names beyond 128.
TOOL_DESCRIPTION_CHARS_MAX = 2_048

# Approvals and audit -------------------------------------------------------------------------------------------------
APPROVAL_TTL_S = 24 * 3_600.0
APPROVALS_PENDING_MAX = 1_000
AUDIT_SEAL_S = 0.5  # Staged records are sealed at least this often; the promise is one second.
AUDIT_SEAL_BATCH = 2_000
AUDIT_DETAIL_CHARS_MAX = 2_000

# Daemon --------------------------------------------------------------------------------------------------------------
IDLE_EXIT_S = 900.0
SHUTDOWN_S = 10.0
CONNECTIONS_MAX = 256

assert LEASE_RENEW_S * 2 < LEASE_S
assert RESULT_TOKENS_MAX * 4 <= REPLY_CHARS_MAX
assert AUDIT_SEAL_S < 1.0
