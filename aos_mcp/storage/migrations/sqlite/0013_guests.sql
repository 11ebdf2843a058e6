-- Programs outside the kernel that make their model calls through it, and the keys they do it with.
ALTER TABLE process ADD COLUMN guest INTEGER NOT NULL DEFAULT 0 CHECK (guest IN (0, 1));

CREATE TABLE guest_key (
    key_id TEXT NOT NULL PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    pid TEXT NOT NULL,
    created_at REAL NOT NULL,
    revoked_at REAL
) STRICT, WITHOUT ROWID;

CREATE INDEX guest_key_pid ON guest_key (pid);
