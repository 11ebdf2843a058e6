-- name: payload_put
INSERT INTO payload (digest, size_bytes, body) VALUES (:digest, :size_bytes, :body) ON CONFLICT (digest) DO NOTHING;

-- name: payload_get
SELECT body FROM payload WHERE digest = :digest;
