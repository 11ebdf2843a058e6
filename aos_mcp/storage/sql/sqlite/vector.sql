-- name: vector_put
INSERT INTO vector (model, page, part, body)
SELECT :model, page.serial, :part, :body FROM page WHERE page.page_id = :page_id
ON CONFLICT (model, page, part) DO NOTHING;

-- name: vector_width
SELECT length(body) AS size_bytes FROM vector WHERE model = :model AND length(body) > 0 LIMIT 1;

-- name: vector_missing
-- Pages are given vectors in the order they were written, so the last one that has some divides them.
SELECT * FROM page
WHERE serial > coalesce((SELECT max(page) FROM vector WHERE model = :model), 0)
ORDER BY serial LIMIT :limit;

-- name: vector_load
-- The plus keeps the statement on the table's own order: the other index would sort every vector at every call.
SELECT vector.serial, vector.page, vector.body, page.owner, page.pid, page.kind, page.source, page.created_at
FROM vector
JOIN page ON page.serial = vector.page
WHERE vector.serial > :after AND +vector.model = :model AND length(vector.body) > 0
ORDER BY vector.serial LIMIT :limit;

-- name: vector_of
-- CROSS keeps the order of the joins: the other one reads every vector of the model for each page.
SELECT page.page_id, vector.body
FROM json_each(:page_ids) AS wanted
CROSS JOIN page ON page.page_id = wanted.value
CROSS JOIN vector ON vector.model = :model AND vector.page = page.serial
WHERE length(vector.body) > 0;

-- name: vector_drop
DELETE FROM vector WHERE serial IN (SELECT serial FROM vector WHERE model <> :model LIMIT :limit);
