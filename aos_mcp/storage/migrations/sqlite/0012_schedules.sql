-- Spawns that repeat. Each has an account under its id.

CREATE TABLE schedule (
    schedule_id TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    form TEXT NOT NULL,
    zone TEXT NOT NULL,
    spawn TEXT NOT NULL,
    missed TEXT NOT NULL CHECK (missed IN ('skip', 'once', 'all')),
    paused INTEGER NOT NULL,
    next_at REAL,
    last_at REAL,
    last_pid TEXT,
    last_outcome TEXT NOT NULL,
    runs INTEGER NOT NULL,
    created_at REAL NOT NULL,
    UNIQUE (owner, name)
) STRICT;
