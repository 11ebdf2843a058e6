-- name: message_insert
INSERT INTO message (message_id, owner, sender, recipient, text, topic, sent_at, taken_at)
VALUES (:message_id, :owner, :sender, :recipient, :text, :topic, :sent_at, :taken_at);

-- name: message_take
UPDATE message SET taken_at = :now
WHERE serial IN (
    SELECT serial FROM message
    WHERE recipient = :recipient AND owner = :owner AND taken_at IS NULL
    ORDER BY sent_at, serial LIMIT :limit
)
RETURNING *;

-- name: message_waiting
SELECT * FROM message
WHERE recipient = :recipient AND owner = :owner AND taken_at IS NULL
ORDER BY sent_at, serial LIMIT :limit;

-- name: message_count
SELECT count(*) AS n FROM message WHERE recipient = :recipient AND owner = :owner AND taken_at IS NULL;

-- name: message_waiting_at
SELECT * FROM message
WHERE recipient = :recipient AND owner = :owner AND taken_at IS NULL AND sent_at <= :at
UNION ALL
SELECT * FROM message
WHERE recipient = :recipient AND owner = :owner AND taken_at > :at AND sent_at <= :at
ORDER BY sent_at, serial LIMIT :limit;
