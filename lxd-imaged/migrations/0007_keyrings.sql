-- Armoured OpenPGP keys, one of which must have signed what the origin says; empty when it is
-- believed without.
ALTER TABLE origins ADD COLUMN keyring TEXT NOT NULL DEFAULT '';
