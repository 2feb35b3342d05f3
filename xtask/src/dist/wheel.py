"""Writes a wheel that contains one program.

usage: wheel.py WHEEL PROGRAM README VERSION PLATFORM DESCRIPTION LICENSE TIMESTAMP
"""

import base64
import hashlib
import sys
import time
import zipfile

wheel, program, readme, version, platform, description, license, timestamp = sys.argv[1:]
name = f"greenwave-{version}"
tags = "".join(f"Tag: py3-none-{tag}\n" for tag in platform.split("."))
metadata = (
    f"Metadata-Version: 2.4\nName: greenwave\nVersion: {version}\nSummary: {description}\n"
    f"License-Expression: {license}\nDescription-Content-Type: text/markdown\n\n"
)
with open(program, "rb") as file:
    content = file.read()
with open(readme, encoding="utf-8") as file:
    metadata += file.read()
files = [
    (f"{name}.data/scripts/greenwave", content, 0o755),
    (f"{name}.dist-info/METADATA", metadata.encode(), 0o644),
    (
        f"{name}.dist-info/WHEEL",
        f"Wheel-Version: 1.0\nGenerator: greenwave\nRoot-Is-Purelib: false\n{tags}".encode(),
        0o644,
    ),
]
record = "".join(
    f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
    for path, data, _ in files
)
files.append((f"{name}.dist-info/RECORD", f"{record}{name}.dist-info/RECORD,,\n".encode(), 0o644))
# A file in an archive cannot be older than 1980.
moment = time.gmtime(max(int(timestamp), 315532800))[:6]
with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
    for path, data, mode in files:
        entry = zipfile.ZipInfo(path, moment)
        entry.external_attr = (0o100000 | mode) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, data)
