"""Certificates for the balancers, by openssl."""

import base64
import os

from commands import run


class Authority:
    def __init__(self, folder):
        self.folder = os.path.join(folder, "authority")
        os.makedirs(self.folder)
        self.certificate = os.path.join(self.folder, "ca.pem")
        self.openssl("req", "-x509", "-days=2", "-subj=/CN=authority", *self.key("ca.key"), "-out=ca.pem")

    def key(self, name):
        return ["-newkey=ec", "-pkeyopt=ec_paramgen_curve:prime256v1", "-nodes", f"-keyout={name}"]

    def openssl(self, command, *flags):
        words = [word for flag in flags for word in flag.split("=", 1)]
        run("env", "-C", self.folder, "openssl", command, *words)

    def issue(self, name):
        """Chain and key in PEM."""
        with open(os.path.join(self.folder, "names"), "w", encoding="utf-8") as file:
            file.write(f"subjectAltName=DNS:{name}\n")
        self.openssl("req", f"-subj=/CN={name}", *self.key("leaf.key"), "-out=leaf.csr")
        flags = ["-req", "-days=1", "-in=leaf.csr", "-CA=ca.pem", "-CAkey=ca.key", "-extfile=names", "-out=leaf.pem"]
        self.openssl("x509", *flags, "-CAcreateserial")
        return [read(os.path.join(self.folder, part)) for part in ("leaf.pem", "leaf.key")]

    def secret(self, namespace, name, host, files=("tls.crt", "tls.key")):
        data = {file: base64.b64encode(part).decode() for file, part in zip(files, self.issue(host))}
        return {"kind": "Secret", "metadata": {"namespace": namespace, "name": name}, "data": data}


def read(path):
    with open(path, "rb") as file:
        return file.read()
