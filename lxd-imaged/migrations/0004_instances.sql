-- Containers and their snapshots. Their files lie under instances/ and snapshots/.

CREATE TABLE instances (
    name         TEXT   NOT NULL PRIMARY KEY,
    -- The image whose unpacked tree lies under the instance; empty for an instance made of nothing.
    image        TEXT   NOT NULL,
    -- How the root is kept: `overlay` on the image's tree, or `plain`.
    disk         TEXT   NOT NULL,
    architecture TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    ephemeral    BIGINT NOT NULL,
    description  TEXT   NOT NULL,
    -- JSON objects and lists.
    config       TEXT   NOT NULL,
    devices      TEXT   NOT NULL,
    profiles     TEXT   NOT NULL
);

CREATE INDEX instances_by_image ON instances (image);

CREATE TABLE snapshots (
    instance     TEXT   NOT NULL REFERENCES instances (name) ON DELETE CASCADE ON UPDATE CASCADE,
    name         TEXT   NOT NULL,
    -- What the instance was at that time.
    image        TEXT   NOT NULL,
    disk         TEXT   NOT NULL,
    architecture TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    ephemeral    BIGINT NOT NULL,
    description  TEXT   NOT NULL,
    config       TEXT   NOT NULL,
    devices      TEXT   NOT NULL,
    profiles     TEXT   NOT NULL,
    PRIMARY KEY (instance, name)
);
