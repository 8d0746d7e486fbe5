#!/usr/bin/env python3
"""What is linked into the binary: licences, sources, and crates that must not be there.

cargo-deny would do this and ask for advisories too; it is not to be had built, and building it takes longer than all of
the tests. So: `cargo metadata`, and the three questions that need no database. Reads the lock file; changes nothing.
"""

import json
import re
import subprocess
import sys

# Each may be shipped in a binary under Apache-2.0, with its notice.
LICENCES = {
    "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Unicode-3.0", "Zlib",
    "0BSD", "CC0-1.0", "Unlicense", "CDLA-Permissive-2.0", "BSL-1.0",
}
# TLS is rustls, and nothing of the system.
BANNED = {"openssl", "openssl-sys", "native-tls", "schannel", "security-framework"}


def allowed(expression):
    """Is an SPDX expression satisfied by LICENCES? AND binds tighter than OR, as SPDX has it; `/` is the old form of OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either():
        result = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            result = both() or result
        return result

    def both():
        result = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            result = one() and result
        return result

    def one():
        token = tokens.pop(0)
        if token == "(":
            result = either()
            assert tokens.pop(0) == ")", expression
            return result
        if tokens[:1] == ["WITH"]:
            token = " ".join([token, tokens.pop(0), tokens.pop(0)])
        return token in LICENCES

    result = either()
    assert not tokens, expression
    return result


for expression, expected in [
    ("MIT OR Apache-2.0", True), ("GPL-3.0", False), ("GPL-3.0 OR MIT", True), ("MIT AND GPL-3.0", False),
    ("(MIT OR GPL-3.0) AND ISC", True), ("MIT/Apache-2.0", True), ("Apache-2.0 WITH LLVM-exception", True),
    ("MIT OR ISC AND GPL-3.0", True),
]:
    assert allowed(expression) == expected, expression

target = re.search(r"host: (\S+)", subprocess.check_output(["rustc", "-vV"], text=True))[1]
command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
metadata = json.loads(subprocess.check_output(command, text=True))
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
linked, waiting = set(), [metadata["resolve"]["root"]]
while waiting:
    package = waiting.pop()
    if package not in linked:
        linked.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])

problems = []
for package in sorted((packages[id] for id in linked), key=lambda package: package["name"]):
    name = f"{package['name']} {package['version']}"
    if package["id"] == metadata["resolve"]["root"]:
        continue
    if not (package["source"] or "").startswith(("registry+", "sparse+")):
        problems.append(f"{name} comes from {package['source']}, which is no registry")
    if package["name"] in BANNED:
        problems.append(f"{name} must not be linked")
    if not package["license"] or not allowed(package["license"]):
        problems.append(f"{name} has the licence {package['license']!r}")
print(f"{len(linked) - 1} crates are linked")
if problems:
    sys.exit("\n".join(problems))
