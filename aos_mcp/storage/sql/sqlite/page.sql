-- name: page_insert
INSERT INTO page (
    page_id, pid, owner, kind, title, digest, tokens, size_bytes, position, "group", request_id, is_error, importance,
    pinned, resident, source, created_at, used_at, uses, faults, left_at, left_why,
    labels, origin, pieces, listed, stamp
) VALUES (
    :page_id, :pid, :owner, :kind, :title, :digest, :tokens, :size_bytes, :position, :group, :request_id, :is_error,
    :importance, :pinned, :resident, :source, :created_at, :used_at, :uses, :faults, :left_at, :left_why,
    :labels, :origin, :pieces, :listed,
    CASE WHEN :pid IS NULL THEN 0 ELSE (
        SELECT 1 + max(
            coalesce((SELECT max(stamp) FROM page WHERE pid = :pid), 0),
            coalesce((SELECT max(stamp) FROM page_version WHERE pid = :pid), 0)
        )
    ) END
)
RETURNING serial;

-- name: page_index
INSERT INTO page_text (rowid, title, body) VALUES (:serial, :title, :body);

-- name: page_put
UPDATE page SET
    owner = :owner, kind = :kind, title = :title, digest = :digest, tokens = :tokens,
    size_bytes = :size_bytes, position = :position, "group" = :group, request_id = :request_id, is_error = :is_error,
    importance = :importance, pinned = :pinned, resident = :resident, source = :source, created_at = :created_at,
    used_at = :used_at, uses = :uses, faults = :faults, left_at = :left_at, left_why = :left_why,
    labels = :labels, origin = :origin, pieces = :pieces, listed = :listed,
    stamp = :stamp
WHERE page_id = :page_id AND pid IS :pid;

-- name: page_get
SELECT * FROM page WHERE page_id = :page_id;

-- name: page_table
SELECT * FROM page WHERE pid = :pid ORDER BY position, page_id;

-- name: page_named
-- The pieces of a page have five digits more than it has.
SELECT page_id FROM page
WHERE page_id >= :beginning AND page_id < :beginning || '{' AND length(page_id) = 29 AND owner = :owner LIMIT 2;

-- name: page_erased
-- Which of these pages have had their words taken out.
SELECT page.serial FROM json_each(:serials) AS wanted
CROSS JOIN page ON page.serial = wanted.value
CROSS JOIN payload ON payload.digest = page.digest
WHERE payload.erased_at IS NOT NULL;

-- name: page_labels
SELECT DISTINCT labels FROM page WHERE pid = :pid AND labels <> '[]';

-- name: page_changes
SELECT * FROM page WHERE pid = :pid AND stamp > :after;

-- name: page_changes_inherited
SELECT page_id FROM page_version WHERE pid = :pid AND stamp > :after AND until IS NULL;

-- name: page_stamp
-- The last stamp of a context.
SELECT max(
    coalesce((SELECT max(stamp) FROM page WHERE pid = :pid), 0),
    coalesce((SELECT max(stamp) FROM page_version WHERE pid = :pid), 0)
) AS stamp;

-- name: page_version_keep
-- What a page of one's own was until now.
INSERT INTO page_version (
    pid, page_id, stamp, until, title, position, importance, pinned, resident, used_at, uses, faults, left_at, left_why,
    listed
)
SELECT pid, page_id, stamp, :stamp, title, position, importance, pinned, resident, used_at, uses, faults, left_at, left_why,
    listed
FROM page WHERE page_id = :page_id AND pid = :pid;

-- name: page_version_end
UPDATE page_version INDEXED BY page_version_page SET until = :stamp
WHERE page_id = :page_id AND pid = :pid AND until IS NULL;

-- name: page_version_put
INSERT INTO page_version (
    pid, page_id, stamp, until, title, position, importance, pinned, resident, used_at, uses, faults, left_at, left_why,
    listed
) VALUES (
    :pid, :page_id, :stamp, NULL, :title, :position, :importance, :pinned, :resident, :used_at, :uses, :faults,
    :left_at, :left_why, :listed
);

-- name: page_table_at
-- A context at a stamp, with what it inherited: of each page the state in the nearest context that has one.
WITH place (base, through, depth) AS (
    SELECT :pid, :at, 0
    UNION ALL
    SELECT base, through, depth FROM lineage WHERE pid = :pid
),
state AS (
    SELECT
        place.depth, p.page_id, p.title, p.position, p.importance, p.pinned, p.resident, p.used_at, p.uses, p.faults,
        p.left_at, p.left_why, p.listed
    FROM place JOIN page AS p ON p.pid = place.base AND p.stamp <= place.through
    UNION ALL
    SELECT
        place.depth, v.page_id, v.title, v.position, v.importance, v.pinned, v.resident, v.used_at, v.uses, v.faults,
        v.left_at, v.left_why, v.listed
    FROM place JOIN page_version AS v
        ON v.pid = place.base AND v.stamp <= place.through AND (v.until IS NULL OR v.until > place.through)
),
nearest AS (
    -- The other columns are those of the row with the least depth.
    SELECT min(depth), * FROM state GROUP BY page_id
)
SELECT
    page.serial, page.page_id, :pid AS pid, page.owner, page.kind, page.digest, page.tokens, page.size_bytes,
    page."group", page.request_id, page.is_error, page.source, page.created_at,
    page.labels, page.origin, page.pieces,
    nearest.title, nearest.position, nearest.importance, nearest.pinned, nearest.resident, nearest.used_at,
    nearest.uses, nearest.faults, nearest.left_at, nearest.left_why, nearest.listed
FROM nearest JOIN page ON page.page_id = nearest.page_id
ORDER BY nearest.position, page.page_id;

-- name: page_inherited
-- One page as it stands in a context that inherited it.
WITH place (base, through, depth) AS (
    SELECT :pid, 9223372036854775807, 0
    UNION ALL
    SELECT base, through, depth FROM lineage WHERE pid = :pid
),
state AS (
    SELECT
        place.depth, p.title, p.position, p.importance, p.pinned, p.resident, p.used_at, p.uses, p.faults, p.left_at,
        p.left_why, p.listed
    FROM place JOIN page AS p ON p.page_id = :page_id AND p.pid = place.base AND p.stamp <= place.through
    UNION ALL
    SELECT
        place.depth, v.title, v.position, v.importance, v.pinned, v.resident, v.used_at, v.uses, v.faults, v.left_at,
        v.left_why, v.listed
    FROM place JOIN page_version AS v INDEXED BY page_version_page
        ON v.page_id = :page_id AND v.pid = place.base AND v.stamp <= place.through
        AND (v.until IS NULL OR v.until > place.through)
)
SELECT
    page.serial, page.page_id, :pid AS pid, page.owner, page.kind, page.digest, page.tokens, page.size_bytes,
    page."group", page.request_id, page.is_error, page.source, page.created_at,
    page.labels, page.origin, page.pieces,
    state.title, state.position, state.importance, state.pinned, state.resident, state.used_at, state.uses,
    state.faults, state.left_at, state.left_why, state.listed
FROM state JOIN page ON page.page_id = :page_id
ORDER BY state.depth LIMIT 1;

-- name: page_last_reply
-- A page that was written again since is known by its older version.
SELECT position FROM page
WHERE pid = :base AND position >= 0 AND kind = 'reply' AND (
    stamp <= :through
    OR EXISTS (
        SELECT 1 FROM page_version AS v
        WHERE v.page_id = page.page_id AND v.pid = page.pid AND v.stamp <= :through
    )
)
ORDER BY position DESC LIMIT 1;

-- name: page_tail
SELECT * FROM page
WHERE pid = :base AND position >= :position AND (
    stamp <= :through
    OR EXISTS (
        SELECT 1 FROM page_version AS v
        WHERE v.page_id = page.page_id AND v.pid = page.pid AND v.stamp <= :through
    )
)
ORDER BY position, page_id;

-- name: lineage_insert
INSERT INTO lineage (pid, depth, base, through) VALUES (:pid, :depth, :base, :through);

-- name: lineage_list
SELECT base, through, depth FROM lineage WHERE pid = :pid ORDER BY depth;

-- name: page_before
SELECT * FROM page WHERE pid = :pid AND position >= 0 AND position < :position ORDER BY position DESC LIMIT 1;

-- name: page_match_count
-- How many pages have a word, as far as the limit: a tenth of what it costs to rank them.
SELECT count(*) AS n FROM (SELECT 1 FROM page_text WHERE page_text MATCH :match LIMIT :limit);

-- name: page_last
SELECT coalesce(max(serial), 0) AS serial FROM page;

-- part: within_bounds
-- What a search asks of a page besides its words.
page.owner = :owner
AND (
    :pid IS NULL OR page.pid = :pid OR page.pid IN (SELECT base FROM lineage WHERE lineage.pid = :pid)
)
AND (:kind IS NULL OR page.kind = :kind)
AND (:source IS NULL OR page.source = :source)
AND (:since IS NULL OR page.created_at >= :since)
AND (:until IS NULL OR page.created_at < :until)
AND (
    :program IS NULL OR page.pid IS NULL
    OR page.pid IN (SELECT member FROM context WHERE context.program = :program)
)
AND (
    :namespace IS NULL
    OR EXISTS (SELECT 1 FROM note WHERE note.page = page.serial AND note.namespace = :namespace)
)
AND (:label IS NULL OR EXISTS (SELECT 1 FROM json_each(page.labels) AS one WHERE one.value = :label))
AND NOT EXISTS (
    SELECT 1 FROM note WHERE note.page = page.serial AND (
        {out_of_sight}
    )
)

-- name: page_match_any
-- The best matches of the whole store, and whether each is within the bounds: far cheaper than to look every match up.
-- A word of the title counts twice.
SELECT found.serial, found.score, (
    {within_bounds}
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
WHERE page_text MATCH :match AND {within_bounds}
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
WHERE {within_bounds}
    AND EXISTS (SELECT 1 FROM page_text WHERE page_text.rowid = page.serial);

-- name: page_by_serial
SELECT page.* FROM json_each(:serials) AS wanted JOIN page ON page.serial = wanted.value ORDER BY wanted.key;

-- name: page_contexts
SELECT member FROM context WHERE program = :program;

-- name: page_labelled
SELECT page.serial FROM page
WHERE page.owner = :owner AND page.labels <> '[]'
    AND EXISTS (SELECT 1 FROM json_each(page.labels) AS one WHERE one.value = :label);
