-- name: note_insert
INSERT INTO note (page, page_id, owner, namespace, valid_from, valid_until, superseded_by)
SELECT page.serial, :page_id, :owner, :namespace, :valid_from, :valid_until, :superseded_by
FROM page WHERE page.page_id = :page_id;

-- name: note_get
SELECT * FROM note WHERE page_id = :page_id;

-- name: note_put
UPDATE note SET
    namespace = :namespace, valid_from = :valid_from, valid_until = :valid_until, superseded_by = :superseded_by
WHERE page_id = :page_id;

-- name: note_list
SELECT * FROM note
WHERE owner = :owner
    AND (:namespace IS NULL OR namespace = :namespace)
    AND (:former OR valid_until IS NULL)
ORDER BY page DESC LIMIT :limit;

-- name: note_members
SELECT page FROM note WHERE owner = :owner AND namespace = :namespace;

-- part: out_of_sight
-- Notes in other readers' own namespaces, and those that no longer hold, or did not at the end of the span that is asked
-- about.
(:reader IS NOT NULL AND substr(note.namespace, 1, 1) = '~' AND note.namespace <> :reader)
OR (note.valid_until IS NOT NULL AND (:until IS NULL OR note.valid_until < :until))

-- name: note_hidden
-- Which of some pages are notes out of the reader's sight.
SELECT note.page AS serial FROM json_each(:serials) AS wanted JOIN note ON note.page = wanted.value
WHERE {out_of_sight};

-- name: note_linked
SELECT wanted.value AS serial, other.page AS other
FROM json_each(:serials) AS wanted
JOIN note ON note.page = wanted.value
JOIN note_link ON note_link.source = note.page_id
JOIN note AS other ON other.page_id = note_link.target
UNION
SELECT wanted.value, other.page
FROM json_each(:serials) AS wanted
JOIN note ON note.page = wanted.value
JOIN note_link ON note_link.target = note.page_id
JOIN note AS other ON other.page_id = note_link.source
ORDER BY 1, 2;

-- name: note_link_put
INSERT INTO note_link (source, target, made_by, made_at) VALUES (:source, :target, :made_by, :made_at)
ON CONFLICT (source, target) DO NOTHING;

-- name: note_link_drop
DELETE FROM note_link WHERE source = :source AND target = :target;

-- name: note_links
SELECT note_link.* FROM json_each(:page_ids) AS wanted JOIN note_link ON note_link.source = wanted.value
UNION
SELECT note_link.* FROM json_each(:page_ids) AS wanted JOIN note_link ON note_link.target = wanted.value
ORDER BY 4, 1, 2;

-- name: note_change_insert
INSERT INTO note_change (owner, writer, kind, page_id, other, at, undone_at)
VALUES (:owner, :writer, :kind, :page_id, :other, :at, :undone_at);

-- name: note_changes
SELECT * FROM note_change
WHERE owner = :owner AND (:writer IS NULL OR writer = :writer) AND serial > :after AND undone_at IS NULL
ORDER BY serial LIMIT :limit;

-- name: note_change_undo
UPDATE note_change SET undone_at = :at WHERE serial = :serial;
