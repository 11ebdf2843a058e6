-- Who ran how long, who was served how much, and who starts after whom.

ALTER TABLE process ADD COLUMN since REAL;
ALTER TABLE process ADD COLUMN ready_at REAL;
ALTER TABLE process ADD COLUMN waiting_s REAL NOT NULL DEFAULT 0;
ALTER TABLE process ADD COLUMN running_s REAL NOT NULL DEFAULT 0;
ALTER TABLE process ADD COLUMN blocked_s REAL NOT NULL DEFAULT 0;
ALTER TABLE process ADD COLUMN preempted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE process ADD COLUMN wasted_tokens INTEGER NOT NULL DEFAULT 0;
UPDATE process SET since = updated_at, ready_at = updated_at;

CREATE TABLE share (
    name TEXT NOT NULL PRIMARY KEY,
    served REAL NOT NULL,
    floor REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE size_hint (
    agent TEXT NOT NULL,
    model TEXT NOT NULL,
    turns REAL NOT NULL,
    turn_units REAL NOT NULL,
    runs INTEGER NOT NULL,
    PRIMARY KEY (agent, model)
) STRICT, WITHOUT ROWID;

CREATE TABLE pick (
    serial INTEGER PRIMARY KEY,
    pid TEXT NOT NULL,
    since REAL NOT NULL,
    at REAL NOT NULL,
    why TEXT NOT NULL
) STRICT;

CREATE TABLE dependency (
    serial INTEGER PRIMARY KEY,
    pid TEXT NOT NULL,
    target TEXT NOT NULL,
    UNIQUE (pid, target)
) STRICT;

CREATE INDEX dependency_target ON dependency (target);
