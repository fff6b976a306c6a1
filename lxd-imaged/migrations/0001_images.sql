-- The portable subset: TEXT and BIGINT, natural keys, JSON as TEXT, booleans as 0 and 1,
-- times as microseconds since the epoch (SQLite and PostgreSQL read the same file).

CREATE TABLE blobs (
    digest    TEXT   NOT NULL PRIMARY KEY,
    size      BIGINT NOT NULL,
    extension TEXT   NOT NULL
);

CREATE TABLE images (
    fingerprint  TEXT   NOT NULL PRIMARY KEY,
    kind         TEXT   NOT NULL,
    architecture TEXT   NOT NULL,
    filename     TEXT   NOT NULL,
    size         BIGINT NOT NULL,
    public       BIGINT NOT NULL,
    auto_update  BIGINT NOT NULL,
    cached       BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    uploaded_at  BIGINT NOT NULL,
    properties   TEXT   NOT NULL,
    profiles     TEXT   NOT NULL,
    source       TEXT   NOT NULL,
    verified     TEXT   NOT NULL,
    -- The unified file, or the metadata file of a split image.
    head         TEXT   NOT NULL REFERENCES blobs (digest),
    -- The root file system of a split image, empty for a unified one.
    rootfs       TEXT   NOT NULL
);

CREATE TABLE aliases (
    name        TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL REFERENCES images (fingerprint) ON DELETE CASCADE,
    description TEXT NOT NULL
);

CREATE INDEX aliases_by_image ON aliases (fingerprint);
CREATE INDEX images_by_head ON images (head);
CREATE INDEX images_by_rootfs ON images (rootfs);

CREATE TABLE config (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
