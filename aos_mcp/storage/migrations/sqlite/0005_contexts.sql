-- What a context was at any moment. Every write of a page gets the next stamp of its context; what it replaces is kept.
-- So a moment is one number, a checkpoint writes no page, and a fork shares the past it begins with.
ALTER TABLE page ADD COLUMN stamp INTEGER NOT NULL DEFAULT 0;
UPDATE page SET stamp = serial WHERE pid IS NOT NULL;
CREATE INDEX page_stamp ON page (pid, stamp) WHERE pid IS NOT NULL;
CREATE INDEX page_reply ON page (pid, position) WHERE kind = 'reply';

-- How a page stood in a context from `stamp` on, until it was written again. Of a page that was inherited, also how it
-- stands now: `until` is null then.
CREATE TABLE page_version (
    pid TEXT NOT NULL,
    page_id TEXT NOT NULL,
    stamp INTEGER NOT NULL,
    until INTEGER,
    title TEXT NOT NULL,
    position INTEGER NOT NULL,
    importance REAL NOT NULL,
    pinned INTEGER NOT NULL,
    resident INTEGER NOT NULL,
    used_at REAL NOT NULL,
    uses INTEGER NOT NULL,
    faults INTEGER NOT NULL,
    left_at REAL,
    left_why TEXT,
    listed INTEGER NOT NULL,
    PRIMARY KEY (pid, stamp)
) STRICT, WITHOUT ROWID;

CREATE INDEX page_version_page ON page_version (page_id, pid, stamp);

-- The context of `pid` begins as those of its bases were at their stamps; the nearest one says how a page stands.
CREATE TABLE lineage (
    pid TEXT NOT NULL,
    depth INTEGER NOT NULL,
    base TEXT NOT NULL,
    through INTEGER NOT NULL,
    PRIMARY KEY (pid, depth)
) STRICT, WITHOUT ROWID;

-- Whose pages are in the contexts of a program: those of its processes and of their bases.
CREATE VIEW context AS
SELECT program, pid AS member FROM process
UNION ALL
SELECT process.program, lineage.base FROM lineage JOIN process ON process.pid = lineage.pid;

-- The state of its context that a step began with.
ALTER TABLE step ADD COLUMN stamp INTEGER NOT NULL DEFAULT 0;

-- Mail that had not been read at some moment.
CREATE INDEX message_taken ON message (recipient, owner, taken_at) WHERE taken_at IS NOT NULL;
