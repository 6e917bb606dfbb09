-- Whom alerts are sent to. `destination` is sealed: addresses can be secrets as well. `webhooks` of before are taken over at the start.
CREATE TABLE channels (
    tenant TEXT NOT NULL,
    number BIGINT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    address TEXT NOT NULL,
    least TEXT NOT NULL,
    matchers TEXT NOT NULL,
    destination TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_delivery TEXT,
    PRIMARY KEY (tenant, number)
);
CREATE UNIQUE INDEX channels_by_name ON channels (tenant, name);

-- What is to be sent, and what became of it. `body` is the alert as it was; `thread` is the mail that it went out with.
CREATE TABLE deliveries (
    number {serial},
    tenant TEXT NOT NULL,
    channel BIGINT NOT NULL,
    alert BIGINT,
    verb TEXT NOT NULL,
    message TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt BIGINT NOT NULL DEFAULT 0,
    queued_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    outcome TEXT,
    thread TEXT,
    FOREIGN KEY (tenant, channel) REFERENCES channels (tenant, number) ON DELETE CASCADE
);
CREATE INDEX deliveries_due ON deliveries (tenant, state, due_at);
CREATE INDEX deliveries_by_channel ON deliveries (tenant, channel, number);
CREATE INDEX deliveries_by_alert ON deliveries (tenant, channel, alert);
