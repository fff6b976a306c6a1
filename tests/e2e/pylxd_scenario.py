"""What a user of pylxd does with images; run against the daemon in LXD_DIR."""

import sys
import warnings

import pylxd
from pylxd.exceptions import LXDAPIException, NotFound

# A server may know more than this client does.
warnings.simplefilter("ignore")

unified, split = sys.argv[1:]
client = pylxd.Client()
assert client.trusted
assert client.host_info["api_version"] == "1.0"
assert client.images.all() == []

with open("unified.tar.gz", "rb") as file:
    image = client.images.create(file.read(), public=True, wait=True)
assert image.fingerprint == unified, image.fingerprint
assert image.public is True
assert image.properties["os"] == "tiny"

with open("meta.tar.xz", "rb") as meta, open("root.tar.gz", "rb") as root:
    second = client.images.create(root.read(), meta.read(), wait=True)
assert second.fingerprint == split, second.fingerprint
assert sorted(i.fingerprint for i in client.images.all()) == sorted([unified, split])

image.add_alias("py/one", "an alias")
found = client.images.get_by_alias("py/one")
assert found.fingerprint == unified
assert found.aliases[0]["description"] == "an alias"

found.properties["edited"] = "yes"
found.public = False
found.save(wait=True)
again = client.images.get(unified[:12])
assert again.properties["edited"] == "yes"
assert again.public is False

exported = again.export().read()
with open("unified.tar.gz", "rb") as file:
    assert exported == file.read()

try:
    with open("unified.tar.gz", "rb") as file:
        client.images.create(file.read(), wait=True)
    raise AssertionError("the same image twice")
except LXDAPIException as error:
    assert "already exists" in str(error), error

image.delete_alias("py/one")
assert not client.images.exists("py/one", alias=True)
for doomed in client.images.all():
    doomed.delete(wait=True)
try:
    client.images.get(unified)
    raise AssertionError("a deleted image")
except NotFound:
    pass
print("all steps passed")
