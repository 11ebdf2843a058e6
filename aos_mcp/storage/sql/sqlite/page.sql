-- name: page_insert
INSERT INTO page (
    page_id, pid, owner, kind, title, digest, tokens, size_bytes, position, "group", request_id, is_error, importance,
    pinned, resident, source, created_at, used_at, uses, faults, left_at, left_why
) VALUES (
    :page_id, :pid, :owner, :kind, :title, :digest, :tokens, :size_bytes, :position, :group, :request_id, :is_error,
    :importance, :pinned, :resident, :source, :created_at, :used_at, :uses, :faults, :left_at, :left_why
)
RETURNING serial;

-- name: page_index
INSERT INTO page_text (rowid, title, body) VALUES (:serial, :title, :body);

-- name: page_put
UPDATE page SET
    pid = :pid, owner = :owner, kind = :kind, title = :title, digest = :digest, tokens = :tokens,
    size_bytes = :size_bytes, position = :position, "group" = :group, request_id = :request_id, is_error = :is_error,
    importance = :importance, pinned = :pinned, resident = :resident, source = :source, created_at = :created_at,
    used_at = :used_at, uses = :uses, faults = :faults, left_at = :left_at, left_why = :left_why
WHERE page_id = :page_id;

-- name: page_get
SELECT * FROM page WHERE page_id = :page_id;

-- name: page_table
SELECT * FROM page WHERE pid = :pid ORDER BY position, page_id;

-- name: page_search
-- bm25 is negative, more so for a better match. A word of the title counts twice.
SELECT page.*, -bm25(page_text, 2.0, 1.0) AS score
FROM page_text
JOIN page ON page.serial = page_text.rowid
WHERE page_text MATCH :match
    AND page.owner = :owner
    AND (:pid IS NULL OR page.pid = :pid)
    AND (:kind IS NULL OR page.kind = :kind)
    AND (
        :program IS NULL OR page.pid IS NULL
        OR page.pid IN (SELECT process.pid FROM process WHERE process.program = :program)
    )
ORDER BY score DESC, page.serial LIMIT :limit;
