-- name: account_insert
INSERT INTO account (
    account, parent, limit_microusd, limit_tokens, limit_turns, limit_tool_calls, limit_wall_s, used_input_tokens,
    used_cached_tokens, used_written_tokens, used_output_tokens, used_microusd, used_turns, used_tool_calls,
    reserved_microusd, reserved_tokens, opened_at
) VALUES (
    :account, :parent, :limit_microusd, :limit_tokens, :limit_turns, :limit_tool_calls, :limit_wall_s,
    :used_input_tokens, :used_cached_tokens, :used_written_tokens, :used_output_tokens, :used_microusd, :used_turns,
    :used_tool_calls, :reserved_microusd, :reserved_tokens, :opened_at
);

-- name: account_get
SELECT * FROM account WHERE account = :account;

-- name: account_chain
WITH RECURSIVE chain AS (
    SELECT account.*, 0 AS height FROM account WHERE account = :account
    UNION ALL
    SELECT above.*, chain.height + 1
    FROM chain JOIN account AS above ON above.account = chain.parent
    WHERE chain.height < :height_max
)
SELECT * FROM chain ORDER BY height;

-- name: account_put
UPDATE account SET
    parent = :parent, limit_microusd = :limit_microusd, limit_tokens = :limit_tokens, limit_turns = :limit_turns,
    limit_tool_calls = :limit_tool_calls, limit_wall_s = :limit_wall_s, used_input_tokens = :used_input_tokens,
    used_cached_tokens = :used_cached_tokens, used_written_tokens = :used_written_tokens,
    used_output_tokens = :used_output_tokens, used_microusd = :used_microusd, used_turns = :used_turns,
    used_tool_calls = :used_tool_calls, reserved_microusd = :reserved_microusd, reserved_tokens = :reserved_tokens,
    opened_at = :opened_at
WHERE account = :account;

-- name: account_add
UPDATE account SET
    used_input_tokens = used_input_tokens + :used_input_tokens,
    used_cached_tokens = used_cached_tokens + :used_cached_tokens,
    used_written_tokens = used_written_tokens + :used_written_tokens,
    used_output_tokens = used_output_tokens + :used_output_tokens,
    used_microusd = used_microusd + :used_microusd,
    used_turns = used_turns + :used_turns,
    used_tool_calls = used_tool_calls + :used_tool_calls,
    reserved_microusd = reserved_microusd + :reserved_microusd,
    reserved_tokens = reserved_tokens + :reserved_tokens
WHERE account IN (
    WITH RECURSIVE chain (account, height) AS (
        VALUES (:account, 0)
        UNION ALL
        SELECT account.parent, chain.height + 1
        FROM chain JOIN account ON account.account = chain.account
        WHERE account.parent IS NOT NULL AND chain.height < :height_max
    )
    SELECT account FROM chain
);

-- name: accounts_get
SELECT * FROM account WHERE account IN (SELECT value FROM json_each(:accounts));

-- name: reservation_insert
INSERT INTO reservation (reservation_id, account, microusd, tokens, at)
VALUES (:reservation_id, :account, :microusd, :tokens, :at);

-- name: reservation_take
DELETE FROM reservation WHERE reservation_id = :reservation_id RETURNING *;

-- name: reservation_list
SELECT * FROM reservation ORDER BY at, reservation_id;
