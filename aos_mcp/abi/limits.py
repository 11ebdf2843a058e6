"""Every bound of the kernel, with the reason for the number.

What a user may want to change is in `abi.settings`; what stands here protects the kernel itself.
"""

from __future__ import annotations

# Processes -----------------------------------------------------------------------------------------------------------
PROCESS_DEPTH_MAX = 8  # A tree deeper than this has always been a loop of agents that delegate to each other.
PROCESS_LIVE_MAX = 2_000  # Two thousand agents fit in memory on two cores; more is a fork bomb.
PROCESS_CHILDREN_MAX = 256  # Of one parent, alive at once.
QUANTA_INFLIGHT_MAX = 512  # Turns under way at once in one kernel; the providers' limits are far lower.
RECOVERED_PER_COMMIT = 200  # Processes taken over in one transaction at boot; a death in it repeats no more than this.
LEASE_S = 15.0  # A kernel that is silent for this long has lost its processes.
LEASE_RENEW_S = LEASE_S / 3  # Two renewals may be lost before a lease ends.
PICKS_KEPT = 20_000  # Decisions of the scheduler on record, for the timeline: a few MB, hours of common use.
PICKS_SHOWN_MAX = 5_000  # On one timeline; more lines than that are a smear.
SCHEDULES_MAX = 200  # Of one owner; each may spend while nobody looks.
SCHEDULE_EVERY_S_MIN = 10.0  # Between two runs: a shorter interval is a loop, which an agent does better.
HANG_S = 900.0  # A turn that shows no sign of life for this long is ended by the watchdog.
MODEL_RETRIES_MAX = 8  # Re-enqueues of one model call after faults that waiting may cure.
MODEL_RETRY_BASE_S = 0.5
MODEL_RETRY_CAP_S = 60.0
PREEMPTIONS_MAX = 3  # Of one generation; then it runs to its end, so that none goes back and forth for ever.
COMPLETE_PATIENCE_S = 600.0  # How long a single call of a host is tried again; agents wait as long as their budget.
FALLBACK_AFTER_TRIES = 3  # Faults in a row on one model, until an agent with a chain goes on with the next.
FALLBACK_WAIT_S = 30.0  # A provider that asks for a longer wait is left for the next model of the chain at once.
TOOL_CALLS_AT_ONCE = 32  # At one downstream server, or in sandboxes: a slow one never holds up the others.
MODEL_CALL_S = 600.0  # The longest a single model call may take, first byte to last.
WAIT_S_MAX = 3_600.0  # The longest a caller may wait in one call; hosts give up long before.
WAIT_PIDS_MAX = 64
TOOL_REQUESTS_PER_TURN_MAX = 32

GUEST_CALLS_MAX = 64  # Of one guest, under way at once; a lane lets fewer out at a time.
GUEST_KEYS_MAX = 16  # Of one guest, not revoked: one for each place it runs in.
GATEWAY_PING_S = 10.0  # A stream that says nothing for longer looks dead to clients and to what is between.
GUEST_TURNS_MAX = 10_000  # Of one prompt; no window holds more.
GUEST_STOPS_MAX = 16  # Texts at which an answer ends; most providers take four.
GUEST_TOOLS_MAX = 512  # Of one prompt; hosts with many servers offer some hundreds.

MODEL_CONNECT_S = 10.0  # A provider that does not accept a connection in this time is down.
MODEL_PROBE_S = 0.5  # A local model server answers at once or is not there.
MODEL_KEEPALIVE_MAX = 32  # Idle connections kept; each costs about 16 microseconds of CPU at every call.
MODEL_CACHE_BREAKPOINTS_MAX = 4  # More than this many cache marks in a request are refused by the Messages dialect.
KEY_COMMAND_S = 30.0  # A `cmd:` key reference may ask a person to unlock a vault.
RECORDING_BYTES_MAX = 64 * 2**20  # A recording is held in memory while it is played.

# Text and payloads ---------------------------------------------------------------------------------------------------
TASK_CHARS_MAX = 200_000
NAME_CHARS_MAX = 64
CONTEXTS_WARM_MAX = 64  # Page tables kept between turns: a megabyte or two each, and reading one anew is no loss.
COUNT_PORTION_CHARS = 2**16  # Counted at once: a run without a break takes some seventy bytes of memory a character.
COUNT_PIECES_KEPT_MAX = 2**14  # Words whose tokens are remembered; they are texts of somebody, so not many, not long.
LABELS_MAX = 16  # Given to one page by whoever writes it.
TEXT_CHARS_MAX = 1_000_000  # A message, a note.
USD_MAX = 1e6  # Of one budget. A bound is also what keeps infinity out, which JSON has no word for.
PAGE_BYTES_MAX = 8 * 2**20  # One page of context; larger things belong in a workspace.
FORKS_MAX = 16  # Of one moment in one call, each with a budget of its own.
FORK_MAIL_MAX = 1_000  # Messages that wait for an agent, and for what is forked from it.
PAGE_LINEAGE_MAX = 64  # Forks of forks: each is one more place to look a page up in.
LINE_BYTES_MAX = 16 * 2**20  # One JSON-RPC line on a socket or pipe.
RESULT_TOKENS_MAX = 4_000  # What a tool result may put in front of a model; the rest is a page handle.
REPLY_CHARS_MAX = 45_000  # Hosts replace results beyond about 50,000 characters by a preview.
ATTACHMENT_BYTES_MAX = 8 * 2**20  # One image or PDF in a prompt; in base64 it still fits one line.
ATTACHMENTS_MAX = 20  # Images and files of one message: the least that a provider takes.
SCHEMA_STEPS_MAX = 50_000  # Of one check of a value against a schema: a third of a second at worst.
FILES_MAX = 64  # Files handed to one sandbox command.
FILE_BYTES_MAX = 4 * 2**20

# Lists ---------------------------------------------------------------------------------------------------------------
LIST_MAX = 200
SEARCH_MAX = 50
REPLAY_STEPS = 1_000  # Of a journal, read at once while it is made again.
AUDIT_LIST_MAX = 500

# Store ---------------------------------------------------------------------------------------------------------------
STORE_GROUP_MAX = 256  # Units in one commit: the flush is shared, and the first waits for the last.
STORE_READ_GROUP_MAX = 16  # Reads on one snapshot: a search among them keeps no more than these from their answers.
STORE_QUEUE_MAX = 4_096  # Units that wait for the writer, or a reader; more callers are held back one by one.
STORE_READERS = 4  # Snapshots at once; more threads than that only contend for two cores.
STORE_BRIEF_GROUP_MAX = 64  # Brief units in one commit in the event loop's thread: some milliseconds of it.
STORE_BRIEF_COMMITS = 256  # So many there in a row; the next is a thread's, which also copies the log into the file.
BRIEF_ROWS = 64  # Rows that brief work reads or writes at most, where their number is not fixed,
BRIEF_CHARS = 65_536  # and of a text: longer ones are packed and indexed elsewhere.
STORE_STALL_S = 0.05  # What should have been brief and took so long has met a slow disk:
STORE_STALLED_S = 10.0  # for so long all units go to threads, and hold nobody up.
SEARCH_TEXT_CHARS_MAX = 2**20  # Of one page; what is beyond is not indexed.
SEARCH_WORD_CHARS_MAX = 64  # Longer words are encoded data, which nobody searches and which swell the index.
SEARCH_WORDS_MAX = 48  # Of one query; the rest would only slow it.
SEARCH_CANDIDATES = 200  # By words and by vectors each.
SEARCH_LENDING = 150  # Of them: the best, whose neighbours are looked up.
SEARCH_SMALL = 8_000  # Pages: of so few all matches are ranked, in 12 ms at worst.
SEARCH_RANKED = 1_000  # Matches ranked for one query, about 2 ms: in a larger store its commonest words are left out.
SEARCH_WIDTH = 300  # The best matches of the whole store; only when too few are within bounds is more looked at.
VECTOR_LOAD = 4_096  # Vectors read in one statement: about 6 MB.
EMBED_CALL_S = 60.0  # One batch, the loading of the model included; search goes by words meanwhile.
EMBED_QUERY_S = 5.0  # What a search waits for the vector of its query; then it goes by words alone.
EMBED_BATCH = 8  # Texts in one pass: more is hardly faster, and a query waits for a pass under way.
EMBED_THREADS = 2  # Texts of pages, and a query meanwhile.
EMBED_PART_CHARS = 1_000  # About the 256 tokens a small model reads.
EMBED_PARTS_MAX = 4  # Of one page; what is beyond is found by its words.
EMBED_BEFORE_CHARS = 300  # Of the page before, put in front: a short answer means little without its question.
EMBED_PAGES = 16  # Pages embedded between two commits: what a crash costs.
EMBED_TEXTS = 16  # Texts in one call of the embedder, in the background.
EMBED_REST_S = 60.0  # Between two tries of an embedder that failed.
EMBED_LOOK_S = 60.0  # Between two looks at the store when nothing is heard.
EMBED_QUIET_S = 0.5  # Pages come in bursts.
VECTORS_COMPARED = 2_048  # Pages whose vectors a compaction reads: 3 MB for each part; of more, the newest.
VECTOR_DROP = 1_000  # Vectors of a former model dropped in one unit: other writers come between.
NOTE_LINKS_MAX = 16  # Of one note: more links tell nothing apart.
NOTE_LINK_COSINE = 0.6  # Notes whose vectors are nearer are linked: about where all-MiniLM-L6-v2 sees one subject.
NOTE_LINKS_FOUND = 3  # Links made by vectors at one note.
NOTE_CHANGES_MAX = 10_000  # Changes looked at in one unit of work.
CONSOLIDATION_NOTES_MAX = 100  # Notes in one consolidation's task; older ones are found by search.
FORGET_MAX = 20  # Agents in one unit: the search for who else uses their words reads every step, and writers wait.
FORGET_REST_S = 1.0  # Between two such units.
FORGET_LOOK_S = 3_600.0  # Between two looks at who ended long enough ago.
CONSOLIDATION_LOOK_S = 300.0  # Between two looks at whether one is due.
SEARCH_EXCERPT_CHARS = 80  # On either side of the first word that matches.

SUMMARY_S = 60.0  # What an agent waits for a summary of what left its window; then it goes on without.
SUMMARY_INPUT_TOKENS_MAX = 32_000  # Of what leaves, shown to the model that sums it up: more costs more than it tells.
SUMMARY_PAGES_MAX = 400  # In one summary, the newest: of more only the first words would be shown.
SUMMARY_TASK_CHARS = 2_000  # Of the agent's task, shown with what leaves.

# Sandbox -------------------------------------------------------------------------------------------------------------
EXEC_S_MAX = 3_600.0
EXEC_OUTPUT_BYTES_MAX = 256 * 2**10  # Kept of stdout and of stderr each; what is beyond is counted and dropped.
EXEC_STDIN_BYTES_MAX = 8 * 2**20  # Grows by a third on its way into the sandbox, and has to fit one line there.
EXEC_REPLY_GRACE_S = 10.0  # Beyond a command's own deadline; a supervisor silent for longer is taken for dead.
SANDBOX_SESSIONS_MAX = 64  # Sandboxes alive at once; the one idle for longest gives way.
SANDBOX_IDLE_S = 120.0  # A sandbox that ran nothing for this long is ended; only its /tmp is lost.
WORKSPACE_FILES_MAX = 50_000
WORKSPACE_BYTES_MAX = 2 * 2**30
SNAPSHOT_COMMIT_BYTES = 16 * 2**20  # Of files saved in one transaction: every other writer waits for it.
WORKSPACE_DEPTH_MAX = 64  # One open descriptor for each level of a walk.

# Mounts --------------------------------------------------------------------------------------------------------------
MOUNT_CALL_S = 120.0
MOUNT_START_S = 30.0
MOUNT_TOOLS_MAX = 256  # Of one downstream server.
MOUNT_LINE_BYTES_MAX = 8 * 2**20
MOUNT_BACKOFF_BASE_S = 0.5
MOUNT_BACKOFF_CAP_S = 60.0
MOUNT_STABLE_S = 30.0  # A server that was up for this long starts its back-off from the beginning.
MOUNT_WAKE_S = 5.0  # How long a call waits for a server that is just being started.
MOUNT_STOP_S = 2.0  # Between end of input, SIGTERM and SIGKILL, as the protocol's shutdown asks for.
MOUNT_QUIET_S = 0.2  # List changes come in bursts; one new listing serves them all.
MOUNT_PROGRESS_S = 0.2  # Between two reports of progress that are passed on.
MOUNT_PAGES_MAX = 100  # Of one tool listing: a paginator without end cannot hang the mount.
MOUNT_DEFINITION_BYTES_MAX = 256 * 2**10  # One tool's definition; a model could not use a longer one.
MOUNT_STDERR_BYTES = 4_096  # The last words of a server that died.
MOUNT_NOISE_LINES_MAX = 1_000  # Lines in a row that are not MCP before the program is taken for another one.
MOUNT_OUTBOX_MAX = 256  # Messages that wait for a server which does not read.
MOUNT_CONFIG_BYTES_MAX = 4 * 2**20  # A host's configuration file.
TOOL_NAME_CHARS_MAX = 112  # `mcp__aos__` and the like are put before it, and hosts drop names beyond 128.
TOOL_DESCRIPTION_CHARS_MAX = 2_048

# Approvals and audit -------------------------------------------------------------------------------------------------
APPROVAL_TTL_S = 24 * 3_600.0
UNKNOWN_TTL_S = 365 * 24 * 3_600.0  # Whether something happened is worth knowing for as long as records are kept.
APPROVALS_PENDING_MAX = 1_000
AUDIT_SEAL_S = 0.5  # Staged records are sealed at least this often; the promise is one second.
AUDIT_SEAL_BATCH = 2_000
AUDIT_DETAIL_CHARS_MAX = 2_000

# Daemon --------------------------------------------------------------------------------------------------------------
SHUTDOWN_S = 10.0
CONNECTIONS_MAX = 256
BOOT_S = 60.0  # What a call waits for a kernel that is still recovering.
ELICIT_S = 300.0  # What a call waits for a person's answer; the question itself outlives it.
SUBSCRIPTIONS_MAX = 256  # Resources one session may follow.
SESSIONS_MAX = 1_024  # Sessions that follow resources; the oldest gives way.
COALESCE_S = 0.05  # Changes within this time become one notification; each is only a hint to read again.

assert LEASE_RENEW_S * 2 < LEASE_S
assert RESULT_TOKENS_MAX * 4 <= REPLY_CHARS_MAX
assert AUDIT_SEAL_S < 1.0
