-- name: payload_known
SELECT 1 AS known FROM payload WHERE digest = :digest AND erased_at IS NULL;

-- name: payload_put
INSERT INTO payload (digest, size_bytes, packed, body) VALUES (:digest, :size_bytes, :packed, :body)
ON CONFLICT (digest) DO UPDATE SET packed = excluded.packed, body = excluded.body, erased_at = NULL
WHERE erased_at IS NOT NULL;

-- name: payload_get
SELECT size_bytes, packed, body, erased_at FROM payload WHERE digest = :digest;

-- name: payload_opening
-- The stored bytes that are enough to make the first `size_bytes` of the body.
SELECT packed, coalesce(substr(body, 1, :size_bytes), x'') AS opening FROM payload WHERE digest = :digest;
