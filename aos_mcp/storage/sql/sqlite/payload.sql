-- name: payload_known
SELECT 1 AS known FROM payload WHERE digest = :digest;

-- name: payload_put
INSERT INTO payload (digest, size_bytes, packed, body) VALUES (:digest, :size_bytes, :packed, :body)
ON CONFLICT (digest) DO NOTHING;

-- name: payload_get
SELECT size_bytes, packed, body FROM payload WHERE digest = :digest;

-- name: payload_opening
-- The stored bytes that are enough to make the first `size_bytes` of the body.
SELECT packed, substr(body, 1, :size_bytes) AS opening FROM payload WHERE digest = :digest;
