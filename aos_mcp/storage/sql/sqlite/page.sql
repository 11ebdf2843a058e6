-- name: page_insert
INSERT INTO page (
    page_id, pid, owner, kind, title, digest, tokens, size_bytes, position, "group", request_id, is_error, importance,
    pinned, resident, source, created_at, used_at, uses, faults, left_at, left_why,
    labels, origin, pieces, listed
) VALUES (
    :page_id, :pid, :owner, :kind, :title, :digest, :tokens, :size_bytes, :position, :group, :request_id, :is_error,
    :importance, :pinned, :resident, :source, :created_at, :used_at, :uses, :faults, :left_at, :left_why,
    :labels, :origin, :pieces, :listed
)
RETURNING serial;

-- name: page_index
INSERT INTO page_text (rowid, title, body) VALUES (:serial, :title, :body);

-- name: page_put
UPDATE page SET
    pid = :pid, owner = :owner, kind = :kind, title = :title, digest = :digest, tokens = :tokens,
    size_bytes = :size_bytes, position = :position, "group" = :group, request_id = :request_id, is_error = :is_error,
    importance = :importance, pinned = :pinned, resident = :resident, source = :source, created_at = :created_at,
    used_at = :used_at, uses = :uses, faults = :faults, left_at = :left_at, left_why = :left_why,
    labels = :labels, origin = :origin, pieces = :pieces, listed = :listed
WHERE page_id = :page_id;

-- name: page_get
SELECT * FROM page WHERE page_id = :page_id;

-- name: page_table
SELECT * FROM page WHERE pid = :pid ORDER BY position, page_id;

-- name: page_before
SELECT * FROM page WHERE pid = :pid AND position >= 0 AND position < :position ORDER BY position DESC LIMIT 1;

-- name: page_match_count
-- How many pages have a word, as far as the limit: a tenth of what it costs to rank them.
SELECT count(*) AS n FROM (SELECT 1 FROM page_text WHERE page_text MATCH :match LIMIT :limit);

-- name: page_last
SELECT coalesce(max(serial), 0) AS serial FROM page;

-- name: page_match_any
-- The best matches of the whole store, and whether each is within the bounds: far cheaper than to look every match up.
-- A word of the title counts twice. Of notes, those of other readers' own namespaces are hidden, and those that no longer
-- hold, or did not at the end of the span that is asked about.
SELECT found.serial, found.score, (
    page.owner = :owner
    AND (:pid IS NULL OR page.pid = :pid)
    AND (:kind IS NULL OR page.kind = :kind)
    AND (:source IS NULL OR page.source = :source)
    AND (:since IS NULL OR page.created_at >= :since)
    AND (:until IS NULL OR page.created_at < :until)
    AND (
        :program IS NULL OR page.pid IS NULL
        OR page.pid IN (SELECT process.pid FROM process WHERE process.program = :program)
    )
    AND (
        :namespace IS NULL
        OR EXISTS (SELECT 1 FROM note WHERE note.page = page.serial AND note.namespace = :namespace)
    )
    AND NOT EXISTS (
        SELECT 1 FROM note WHERE note.page = page.serial AND (
            (:reader IS NOT NULL AND substr(note.namespace, 1, 1) = '~' AND note.namespace <> :reader)
            OR (note.valid_until IS NOT NULL AND (:until IS NULL OR note.valid_until < :until))
        )
    )
) AS fits
FROM (
    SELECT rowid AS serial, -rank AS score FROM page_text
    WHERE page_text MATCH :match AND rank MATCH 'bm25(2.0, 1.0)'
    ORDER BY rank LIMIT :wide
) AS found
JOIN page ON page.serial = found.serial
ORDER BY found.score DESC, found.serial;

-- name: page_match_within
-- The best matches within the bounds. bm25 is negative, more so for a better match.
SELECT page.serial, -bm25(page_text, 2.0, 1.0) AS score
FROM page_text
JOIN page ON page.serial = page_text.rowid
WHERE page_text MATCH :match AND page.owner = :owner
    AND (:pid IS NULL OR page.pid = :pid)
    AND (:kind IS NULL OR page.kind = :kind)
    AND (:source IS NULL OR page.source = :source)
    AND (:since IS NULL OR page.created_at >= :since)
    AND (:until IS NULL OR page.created_at < :until)
    AND (
        :program IS NULL OR page.pid IS NULL
        OR page.pid IN (SELECT process.pid FROM process WHERE process.program = :program)
    )
    AND (
        :namespace IS NULL
        OR EXISTS (SELECT 1 FROM note WHERE note.page = page.serial AND note.namespace = :namespace)
    )
    AND NOT EXISTS (
        SELECT 1 FROM note WHERE note.page = page.serial AND (
            (:reader IS NOT NULL AND substr(note.namespace, 1, 1) = '~' AND note.namespace <> :reader)
            OR (note.valid_until IS NOT NULL AND (:until IS NULL OR note.valid_until < :until))
        )
    )
ORDER BY score DESC, page.serial LIMIT :limit;

-- name: page_around
-- Pages with those that stand before and behind them in the same context.
SELECT page.serial, page.pid, page.source, (
    SELECT other.serial FROM page AS other
    WHERE other.pid = page.pid AND other.position < page.position AND other.position >= 0
    ORDER BY other.position DESC LIMIT 1
) AS before, (
    SELECT other.serial FROM page AS other
    WHERE other.pid = page.pid AND other.position > page.position AND page.position >= 0
    ORDER BY other.position LIMIT 1
) AS behind
FROM json_each(:serials) AS wanted
JOIN page ON page.serial = wanted.value;

-- name: page_fitting
-- Which of some pages are within the bounds and may be found at all.
SELECT page.serial, page.pid, page.source
FROM json_each(:serials) AS wanted
JOIN page ON page.serial = wanted.value
WHERE page.owner = :owner
    AND (:pid IS NULL OR page.pid = :pid)
    AND (:kind IS NULL OR page.kind = :kind)
    AND (:source IS NULL OR page.source = :source)
    AND (:since IS NULL OR page.created_at >= :since)
    AND (:until IS NULL OR page.created_at < :until)
    AND (
        :program IS NULL OR page.pid IS NULL
        OR page.pid IN (SELECT process.pid FROM process WHERE process.program = :program)
    )
    AND (
        :namespace IS NULL
        OR EXISTS (SELECT 1 FROM note WHERE note.page = page.serial AND note.namespace = :namespace)
    )
    AND NOT EXISTS (
        SELECT 1 FROM note WHERE note.page = page.serial AND (
            (:reader IS NOT NULL AND substr(note.namespace, 1, 1) = '~' AND note.namespace <> :reader)
            OR (note.valid_until IS NOT NULL AND (:until IS NULL OR note.valid_until < :until))
        )
    )
    AND EXISTS (SELECT 1 FROM page_text WHERE page_text.rowid = page.serial);

-- name: page_by_serial
SELECT page.* FROM json_each(:serials) AS wanted JOIN page ON page.serial = wanted.value ORDER BY wanted.key;

-- name: page_contexts
SELECT pid FROM process WHERE program = :program;
