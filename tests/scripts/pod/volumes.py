"""What a pod mounts, as folders of this machine, written as kubelet writes them.

A ConfigMap or a Secret is a folder of links: `tls.crt -> ..data/tls.crt`, `..data -> ..2026_01_02`. An
update writes another dated folder, and then one rename of `..data` changes all files at once.
"""

import base64
import os
import shutil
import time

from checks import Broken, expect

# What a group named by `fsGroup` may do with files and folders that are read-only, and with others.
READ, WRITE, ENTER = 0o440, 0o660, 0o110
SET_GROUP = 0o2000


class Swapped:
    """A folder whose files are replaced all at once."""

    def __init__(self, folder, files, group):
        self.folder, self.group = folder, group
        os.makedirs(folder)
        os.chmod(folder, 0o777)
        self.write(files)

    def write(self, files):
        """`files`: name: (content, mode)."""
        dated = f"..{time.strftime('%Y_%m_%d_%H_%M_%S')}.{time.time_ns() % 10**9:09d}"
        place = os.path.join(self.folder, dated)
        os.mkdir(place)
        os.chmod(place, 0o755)
        for name, (content, mode) in files.items():
            path = os.path.join(place, name)
            with open(path, "wb") as file:
                file.write(content)
            os.chmod(path, mode)
        if self.group is not None:
            belong(place, self.group, READ)
        data = os.path.join(self.folder, "..data")
        old = os.readlink(data) if os.path.islink(data) else None
        os.symlink(dated, data + "_tmp")
        os.rename(data + "_tmp", data)
        for name in files:
            link = os.path.join(self.folder, name)
            if not os.path.islink(link):
                os.symlink(os.path.join("..data", name), link)
        for name in os.listdir(self.folder):
            if not name.startswith("..") and name not in files:
                os.unlink(os.path.join(self.folder, name))
        if old:
            shutil.rmtree(os.path.join(self.folder, old))


def belong(folder, group, may):
    """Gives a folder and what is in it to the group as well."""
    for place, _, names in os.walk(folder):
        os.chown(place, -1, group)
        os.chmod(place, os.stat(place).st_mode | may | SET_GROUP | ENTER)
        for name in names:
            path = os.path.join(place, name)
            os.chown(path, -1, group)
            os.chmod(path, os.stat(path).st_mode | may)


def empty(folder, group):
    os.makedirs(folder)
    os.chmod(folder, 0o777)
    if group is not None:
        belong(folder, group, WRITE)


def contents(source, entry):
    """Files of a ConfigMap or Secret as the volume's entry wants them: name: (content, mode)."""
    held = {name: text.encode() for name, text in (source.get("data") or {}).items()}
    if source["kind"] == "Secret":
        held = {name: base64.b64decode(text) for name, text in held.items()}
        held |= {name: text.encode() for name, text in (source.get("stringData") or {}).items()}
    usual = entry.get("defaultMode", 0o644)
    if "items" not in entry:
        return {name: (content, usual) for name, content in held.items()}
    files = {}
    for item in entry["items"]:
        expect("/" not in item["path"], f"a path with folders is not provided for: {item}")
        if item["key"] not in held:
            raise Broken(f"{source['kind']} {source['metadata']['name']} has no {item['key']}")
        files[item["path"]] = (held[item["key"]], item.get("mode", usual))
    return files
