-- The first schema. Released migrations never change: their checksums are recorded in every store.
-- The CHECKs repeat the enums of aos_mcp.abi; a test holds both to each other. Times are seconds since the epoch.

CREATE TABLE process (
    pid TEXT NOT NULL PRIMARY KEY,
    parent TEXT,
    program TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    agent TEXT,
    state TEXT NOT NULL CHECK (state IN ('ready', 'running', 'blocked', 'stopped', 'exited')),
    model TEXT NOT NULL,
    priority INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    rights TEXT NOT NULL,
    workspace TEXT NOT NULL,
    step INTEGER NOT NULL,
    position INTEGER NOT NULL,
    waiting_for TEXT,
    pending TEXT CHECK (pending IN ('stop', 'cont', 'term', 'kill')),
    finishing INTEGER NOT NULL,
    faults INTEGER NOT NULL,
    wake_at REAL,
    exit_code TEXT CHECK (exit_code IN ('done', 'failed', 'terminated', 'killed', 'budget_exhausted', 'hung')),
    exit_reason TEXT,
    result TEXT,
    fence INTEGER NOT NULL,
    version INTEGER NOT NULL,
    lease_holder TEXT,
    lease_until REAL,
    idempotency_key TEXT,
    forked_from TEXT,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    ended_at REAL
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX process_key ON process (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX process_created ON process (created_at, pid);
CREATE INDEX process_state ON process (state, updated_at);
CREATE INDEX process_parent ON process (parent, created_at) WHERE parent IS NOT NULL;
CREATE INDEX process_program ON process (program);
CREATE INDEX process_lease ON process (lease_holder) WHERE lease_holder IS NOT NULL;

CREATE TABLE account (
    account TEXT NOT NULL PRIMARY KEY,
    parent TEXT,
    limit_microusd INTEGER,
    limit_tokens INTEGER,
    limit_turns INTEGER,
    limit_tool_calls INTEGER,
    limit_wall_s REAL,
    used_input_tokens INTEGER NOT NULL,
    used_cached_tokens INTEGER NOT NULL,
    used_written_tokens INTEGER NOT NULL,
    used_output_tokens INTEGER NOT NULL,
    used_microusd INTEGER NOT NULL,
    used_turns INTEGER NOT NULL,
    used_tool_calls INTEGER NOT NULL,
    reserved_microusd INTEGER NOT NULL CHECK (reserved_microusd >= 0),
    reserved_tokens INTEGER NOT NULL CHECK (reserved_tokens >= 0),
    opened_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE reservation (
    reservation_id TEXT NOT NULL PRIMARY KEY,
    account TEXT NOT NULL,
    microusd INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- With a rowid: a table without one keeps less of a large row in its leaf, and 5 KB would take 8.
CREATE TABLE payload (
    digest TEXT NOT NULL PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    packed INTEGER NOT NULL CHECK (packed IN (0, 1)),
    body BLOB NOT NULL
) STRICT;

CREATE TABLE step (
    pid TEXT NOT NULL,
    number INTEGER NOT NULL,
    call TEXT NOT NULL,
    effect TEXT NOT NULL CHECK (effect IN ('pure', 'idempotent', 'unsafe', 'llm')),
    state TEXT NOT NULL CHECK (state IN ('intent', 'done', 'failed', 'unknown')),
    intent TEXT NOT NULL,
    result TEXT,
    request_id TEXT,
    idempotency_key TEXT NOT NULL,
    fence INTEGER NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    PRIMARY KEY (pid, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX step_request ON step (pid, request_id, number) WHERE request_id IS NOT NULL;
CREATE INDEX step_open ON step (pid, number) WHERE state = 'intent';

CREATE TABLE page (
    serial INTEGER PRIMARY KEY,
    page_id TEXT NOT NULL UNIQUE,
    pid TEXT,
    owner TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN (
        'system', 'task', 'plan', 'message', 'reply', 'result', 'document', 'note', 'summary'
    )),
    title TEXT NOT NULL,
    digest TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    position INTEGER NOT NULL,
    "group" INTEGER,
    request_id TEXT,
    is_error INTEGER NOT NULL,
    importance REAL NOT NULL,
    pinned INTEGER NOT NULL,
    resident INTEGER NOT NULL,
    source TEXT NOT NULL,
    created_at REAL NOT NULL,
    used_at REAL NOT NULL,
    uses INTEGER NOT NULL,
    faults INTEGER NOT NULL,
    left_at REAL,
    left_why TEXT
) STRICT;

CREATE INDEX page_position ON page (pid, position, page_id) WHERE pid IS NOT NULL;

-- Contentless: the bytes are in payload already; only the inverted index is kept here.
CREATE VIRTUAL TABLE page_text USING fts5 (title, body, content = '', tokenize = 'porter unicode61');

CREATE TABLE message (
    serial INTEGER PRIMARY KEY,
    message_id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    text TEXT NOT NULL,
    topic TEXT NOT NULL,
    sent_at REAL NOT NULL,
    taken_at REAL
) STRICT;

CREATE INDEX message_waiting ON message (recipient, owner, sent_at, serial) WHERE taken_at IS NULL;

CREATE TABLE checkpoint (
    serial INTEGER PRIMARY KEY,
    checkpoint_id TEXT NOT NULL UNIQUE,
    pid TEXT NOT NULL,
    owner TEXT NOT NULL,
    step INTEGER NOT NULL,
    label TEXT NOT NULL,
    at REAL NOT NULL,
    snapshot TEXT NOT NULL,
    manifest TEXT
) STRICT;

CREATE INDEX checkpoint_pid ON checkpoint (pid, at, serial);

CREATE TABLE approval (
    serial INTEGER PRIMARY KEY,
    approval_id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    pid TEXT,
    call TEXT NOT NULL,
    tool TEXT NOT NULL,
    digest TEXT NOT NULL,
    question TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'allowed', 'denied', 'claimed', 'expired')),
    asked_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    answered_at REAL,
    answered_by TEXT NOT NULL,
    remember INTEGER NOT NULL,
    note TEXT NOT NULL
) STRICT;

CREATE INDEX approval_digest ON approval (owner, digest, asked_at, serial);
CREATE INDEX approval_state ON approval (state, asked_at, serial);

CREATE TABLE decision (
    owner TEXT NOT NULL,
    agent TEXT NOT NULL,
    tool TEXT NOT NULL,
    decision TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (owner, agent, tool)
) STRICT, WITHOUT ROWID;

CREATE TABLE pin (
    name TEXT NOT NULL PRIMARY KEY,
    digest TEXT NOT NULL,
    definition TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pinned', 'quarantined')),
    pinned_at REAL NOT NULL,
    offered_digest TEXT NOT NULL,
    offered_definition TEXT NOT NULL
) STRICT;

-- AUTOINCREMENT: a stage id is never used twice, so "sealed through id" stays true for ever.
CREATE TABLE audit_stage (
    stage INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    category TEXT NOT NULL,
    actor TEXT NOT NULL,
    pid TEXT NOT NULL,
    call TEXT NOT NULL,
    outcome TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    payload TEXT
) STRICT;

CREATE TABLE audit_record (
    seq INTEGER PRIMARY KEY,
    previous TEXT NOT NULL,
    digest TEXT NOT NULL,
    at REAL NOT NULL,
    category TEXT NOT NULL,
    actor TEXT NOT NULL,
    pid TEXT NOT NULL,
    call TEXT NOT NULL,
    outcome TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    payload TEXT
) STRICT;

CREATE INDEX audit_record_pid ON audit_record (pid, seq) WHERE pid <> '';

CREATE TABLE audit_head (
    seq INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    at REAL NOT NULL,
    key_id TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT;

CREATE TABLE fact (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
