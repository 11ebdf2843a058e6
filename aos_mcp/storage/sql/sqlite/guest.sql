-- name: guest_key_insert
INSERT INTO guest_key (key_id, digest, pid, created_at, revoked_at)
VALUES (:key_id, :digest, :pid, :created_at, :revoked_at);

-- name: guest_key_put
UPDATE guest_key SET revoked_at = :revoked_at WHERE key_id = :key_id;

-- name: guest_key_get
SELECT * FROM guest_key WHERE key_id = :key_id;

-- name: guest_key_by_digest
SELECT * FROM guest_key WHERE digest = :digest;

-- name: guest_key_list
SELECT k.* FROM guest_key AS k JOIN process AS p ON p.pid = k.pid
WHERE p.owner = :owner AND (:pid IS NULL OR k.pid = :pid)
ORDER BY k.created_at DESC, k.key_id DESC LIMIT :limit;
