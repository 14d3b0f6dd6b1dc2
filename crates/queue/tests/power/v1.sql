-- A queue as the first version of the format had it, with 400 events: 100 of them are delivered, 100 are to be tried again.
PRAGMA application_id = 0x61717561;
PRAGMA user_version = 1;
CREATE TABLE projects (
    id INTEGER PRIMARY KEY, organization TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (organization, name)
) STRICT;
CREATE TABLE webhooks (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, suspended_at INTEGER, suspended_url TEXT
) STRICT;
CREATE TABLE events (
    key INTEGER PRIMARY KEY, id BLOB NOT NULL, project INTEGER NOT NULL, kind TEXT NOT NULL,
    accepted_at INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE TABLE deliveries (
    key INTEGER PRIMARY KEY, id BLOB NOT NULL, event INTEGER NOT NULL, webhook INTEGER NOT NULL,
    state INTEGER NOT NULL, attempts INTEGER NOT NULL, due_at INTEGER NOT NULL, settled_at INTEGER NOT NULL
) STRICT;
CREATE INDEX deliveries_due ON deliveries (webhook, due_at, key) WHERE state = 0;
CREATE INDEX deliveries_of_event ON deliveries (event);
CREATE TABLE attempts (
    delivery INTEGER NOT NULL, number INTEGER NOT NULL, started_at INTEGER NOT NULL, duration INTEGER NOT NULL,
    status INTEGER, failure TEXT, detail TEXT, excerpt BLOB, PRIMARY KEY (delivery, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE idempotency (
    organization TEXT NOT NULL, key TEXT NOT NULL, fingerprint BLOB NOT NULL,
    first_event INTEGER NOT NULL, events INTEGER NOT NULL, PRIMARY KEY (organization, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_of_event ON idempotency (first_event);
CREATE TABLE next_keys (event INTEGER NOT NULL, delivery INTEGER NOT NULL) STRICT;
INSERT INTO next_keys VALUES (401, 401);
INSERT INTO projects VALUES (1, 'acme', 'urban');
INSERT INTO webhooks VALUES (1, 'acme/urban/ops', NULL, NULL);
