-- name: store_usage
SELECT
    (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM pragma_page_size()) AS file_bytes,
    (SELECT freelist_count FROM pragma_freelist_count()) * (SELECT page_size FROM pragma_page_size()) AS free_bytes,
    (SELECT count(*) FROM payload) AS payloads,
    (SELECT coalesce(sum(length(body)), 0) FROM payload) AS payload_bytes,
    (SELECT count(*) FROM payload WHERE erased_at IS NOT NULL) AS erased,
    (SELECT count(*) FROM process) AS processes,
    (SELECT count(*) FROM step) AS steps,
    (SELECT count(*) FROM page) AS pages,
    (SELECT count(*) FROM audit_record) AS records;

-- name: payload_of_process
-- A fork names the pages of its bases too: it may be the last that holds on to them.
SELECT intent AS digest FROM step WHERE pid = :pid
UNION SELECT result FROM step WHERE pid = :pid AND result IS NOT NULL
UNION SELECT basis FROM step WHERE pid = :pid AND basis IS NOT NULL
UNION SELECT digest FROM page WHERE pid = :pid
UNION SELECT page.digest FROM lineage JOIN page ON page.pid = lineage.base WHERE lineage.pid = :pid
UNION SELECT result FROM process WHERE pid = :pid AND result IS NOT NULL;

-- name: payload_users
-- Who else uses one of these payloads; '' is long-term memory. A context that was forked uses the pages of its bases.
WITH wanted AS MATERIALIZED (SELECT value AS digest FROM json_each(:digests)),
user (digest, pid) AS (
SELECT intent, pid FROM step WHERE pid <> :pid AND intent IN wanted
UNION SELECT result, pid FROM step WHERE pid <> :pid AND result IN wanted
UNION SELECT basis, pid FROM step WHERE pid <> :pid AND basis IN wanted
UNION SELECT digest, coalesce(pid, '') FROM page WHERE coalesce(pid, '') <> :pid AND digest IN wanted
UNION SELECT result, pid FROM process WHERE pid <> :pid AND result IN wanted
UNION SELECT snapshot, pid FROM checkpoint WHERE pid <> :pid AND snapshot IN wanted
UNION SELECT manifest, pid FROM checkpoint WHERE pid <> :pid AND manifest IN wanted
UNION SELECT page.digest, lineage.pid FROM page JOIN lineage ON lineage.base = page.pid
    WHERE lineage.pid <> :pid AND page.digest IN wanted
)
SELECT digest, pid FROM user WHERE pid NOT IN (SELECT pid FROM forgotten);

-- name: payload_erase
UPDATE payload SET body = x'', packed = 0, erased_at = :at WHERE digest = :digest AND erased_at IS NULL;

-- name: payload_unreferenced
SELECT digest FROM payload
WHERE digest NOT IN (
    SELECT intent FROM step
    UNION SELECT result FROM step WHERE result IS NOT NULL
    UNION SELECT basis FROM step WHERE basis IS NOT NULL
    UNION SELECT digest FROM page
    UNION SELECT result FROM process WHERE result IS NOT NULL
    UNION SELECT snapshot FROM checkpoint
    UNION SELECT manifest FROM checkpoint WHERE manifest IS NOT NULL
    UNION SELECT payload FROM audit_record WHERE payload IS NOT NULL
    UNION SELECT payload FROM audit_stage WHERE payload IS NOT NULL
);

-- name: payload_drop
DELETE FROM payload WHERE digest = :digest;

-- name: page_of_payloads
SELECT serial, page_id, title, digest FROM page WHERE digest IN (SELECT value FROM json_each(:digests));

-- name: page_unindex
-- A copy of a page in another context is not indexed: to take it out would spoil the index's own sums.
INSERT INTO page_text (page_text, rowid, title, body)
SELECT 'delete', :serial, :title, :body WHERE EXISTS (SELECT 1 FROM page_text WHERE rowid = :serial);

-- name: page_text_merge
-- What was taken out of the index stays in its older segments until they are merged.
INSERT INTO page_text (page_text) VALUES ('optimize');

-- name: page_untitle
UPDATE page SET title = :title WHERE serial = :serial;

-- name: page_version_untitle
UPDATE page_version INDEXED BY page_version_page SET title = :title
WHERE page_id = (SELECT page_id FROM page WHERE serial = :serial);

-- name: vector_drop_page
DELETE FROM vector WHERE page = :serial;

-- name: message_blank
UPDATE message SET text = :text WHERE sender = :pid OR recipient = :pid;

-- name: checkpoint_drop_all
DELETE FROM checkpoint WHERE pid = :pid;

-- name: forgotten_insert
INSERT OR IGNORE INTO forgotten (pid, at) VALUES (:pid, :at);

-- name: process_forgettable
-- Ended, and nobody is left who may ask for its words: its whole tree has ended, nothing is to start with its result,
-- nobody saved it, and no question about it is open.
SELECT pid FROM process AS ended
WHERE state = 'exited' AND updated_at < :before
AND NOT EXISTS (SELECT 1 FROM forgotten WHERE forgotten.pid = ended.pid)
AND NOT EXISTS (SELECT 1 FROM process AS kin WHERE kin.program = ended.program AND kin.state <> 'exited')
AND NOT EXISTS (
    SELECT 1 FROM dependency JOIN process AS heir ON heir.pid = dependency.pid
    WHERE dependency.target = ended.pid AND heir.state <> 'exited'
)
AND NOT EXISTS (SELECT 1 FROM checkpoint WHERE checkpoint.pid = ended.pid AND checkpoint.label <> :automatic)
AND pid NOT IN (SELECT pid FROM approval WHERE state = 'pending' AND pid IS NOT NULL)
ORDER BY updated_at, pid LIMIT :limit;

-- name: manifest_list
SELECT DISTINCT manifest FROM checkpoint WHERE manifest IS NOT NULL;

-- name: store_compact
VACUUM;

-- name: log_truncate
PRAGMA wal_checkpoint(TRUNCATE);

-- name: store_check
PRAGMA integrity_check(3);
