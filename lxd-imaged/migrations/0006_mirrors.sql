-- Mirrors: selections of other servers' images that are kept here, and which image is whose.

CREATE TABLE mirrors (
    name       TEXT   NOT NULL PRIMARY KEY,
    -- JSON: what a person has decided.
    config     TEXT   NOT NULL,
    -- Whether it stands in the file of mirrors.
    declared   BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    -- JSON: the last run; empty before the first.
    last_run   TEXT   NOT NULL
);

CREATE TABLE mirror_images (
    mirror      TEXT   NOT NULL REFERENCES mirrors (name) ON DELETE CASCADE,
    fingerprint TEXT   NOT NULL REFERENCES images (fingerprint) ON DELETE CASCADE,
    product     TEXT   NOT NULL,
    serial      TEXT   NOT NULL,
    -- Whether a person has put the image in too: then it is not the mirror's to change or remove.
    shared      BIGINT NOT NULL,
    PRIMARY KEY (mirror, fingerprint)
);

CREATE INDEX mirror_images_by_image ON mirror_images (fingerprint);

-- The aliases that mirrors have set. One that leads elsewhere by now belongs to whoever did that.
CREATE TABLE mirror_aliases (
    name        TEXT NOT NULL PRIMARY KEY,
    mirror      TEXT NOT NULL REFERENCES mirrors (name) ON DELETE CASCADE,
    fingerprint TEXT NOT NULL
);
