-- A file may have left with several images. Making one of them private takes back what was promised
-- with that one, and nothing else.

CREATE TABLE withdrawn_files (
    digest       TEXT   NOT NULL,
    -- What the catalog calls the file: it is served under no other name.
    name         TEXT   NOT NULL,
    -- The image that it left with.
    image        TEXT   NOT NULL,
    size         BIGINT NOT NULL,
    withdrawn_at BIGINT NOT NULL,
    PRIMARY KEY (digest, name, image)
);

-- Of which image it was is not known any more: it goes by its time alone, so it is named by itself.
INSERT INTO withdrawn_files (digest, name, image, size, withdrawn_at)
    SELECT digest, name, digest, size, withdrawn_at FROM withdrawn;

DROP TABLE withdrawn;
