-- name: connection_wal
PRAGMA journal_mode = WAL;

-- name: connection_wal_keep
-- Bytes of write-ahead log that stay on disk after a checkpoint.
PRAGMA journal_size_limit = 16777216;

-- name: connection_checkpoint_pages
-- Sixteen megabytes of log before the writer copies it into the file: each copy flushes twice, a long log slows reads.
PRAGMA wal_autocheckpoint = 4000;

-- name: connection_no_checkpoint
PRAGMA wal_autocheckpoint = 0;

-- name: connection_wait
-- Milliseconds that another program may hold the file before a unit is refused.
PRAGMA busy_timeout = 5000;

-- name: connection_no_wait
PRAGMA busy_timeout = 0;

-- name: connection_cache
-- Kilobytes, negative by SQLite's convention.
PRAGMA cache_size = -8192;

-- name: connection_sort_in_memory
PRAGMA temp_store = MEMORY;

-- name: connection_query_only
PRAGMA query_only = ON;

-- name: connection_flush
PRAGMA synchronous = FULL;

-- name: connection_no_flush
-- A commit survives the death of the process; only a power cut may take the last ones.
PRAGMA synchronous = NORMAL;

-- name: begin_write
BEGIN IMMEDIATE;

-- name: begin_read
BEGIN DEFERRED;

-- name: commit
COMMIT;

-- name: rollback
ROLLBACK;

-- name: unit_begin
SAVEPOINT unit;

-- name: unit_end
RELEASE unit;

-- name: unit_undo
ROLLBACK TO unit;
