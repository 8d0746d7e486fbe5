#!/usr/bin/env python3
"""What is linked into the binary: licences, sources, crates that must not be there, and known vulnerabilities.

cargo-deny would do this; it is not to be had built, and building it takes longer than all of the tests. So: `cargo metadata`,
and the three questions that need no database. The fourth one is asked where there is a copy of RustSec's database:

    git clone https://github.com/rustsec/advisory-db DIRECTORY
    python3 scripts/supply-chain.py --advisories DIRECTORY

Reads the lock file; changes nothing.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tomllib

# Each may be shipped in a binary under Apache-2.0, with its notice.
LICENCES = {
    "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Unicode-3.0", "Zlib",
    "0BSD", "CC0-1.0", "Unlicense", "CDLA-Permissive-2.0", "BSL-1.0",
}
# TLS is rustls, and nothing of the system.
BANNED = {"openssl", "openssl-sys", "native-tls", "schannel", "security-framework"}
# Advisories that are known and lived with, and why.
ACCEPTED = {
    "RUSTSEC-2025-0057": "fxhash is unmaintained; sled 0.34 needs it, for maps of its own",
    "RUSTSEC-2024-0384": "instant is unmaintained; sled 0.34 needs it through parking_lot 0.11",
}


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


def version(text):
    """Orders as semantic versions do, a pre-release before its release."""
    core, _, before = text.split("+")[0].partition("-")
    numbers = [int(part) for part in core.split(".")]
    return (*numbers, *[0] * (3 - len(numbers))), before == "", before


def fits(text, requirement):
    """Does a version meet a requirement as Cargo writes it, such as `>=0.3.1, <0.4.0`?"""
    for comparator in requirement.split(","):
        operator, bound = re.fullmatch(r"\s*(>=|<=|>|<|=|\^|~|)\s*(\S+)\s*", comparator).groups()
        one, other = version(text), version(bound)
        if operator in ("^", "", "~"):
            numbers = [int(part) for part in bound.split("-")[0].split(".")]
            # The first number that is not 0 may not grow; with ~ the second one.
            fixed = next((i for i, n in enumerate(numbers) if n), len(numbers) - 1) if operator != "~" else min(1, len(numbers) - 1)
            above = numbers[:fixed] + [numbers[fixed] + 1]
            if not (one >= other and one[0] < tuple(above + [0] * (3 - len(above)))):
                return False
        elif not {">=": one >= other, "<=": one <= other, ">": one > other, "<": one < other, "=": one == other}[operator]:
            return False
    return True


for text, requirement, expected in [
    ("1.2.3", ">=1.2.3", True), ("1.2.2", ">= 1.2.3", False), ("0.4.1", ">=0.3.1, <0.4.0", False), ("0.3.9", "^0.3.1", True),
    ("0.4.0", "^0.3.1", False), ("2.0.0", "^1.0", False), ("1.9.0", "1.2", True), ("1.3.0", "~1.2", False), ("1.2.9", "~1.2.1", True),
    ("1.0.0-rc.1", ">=1.0.0", False), ("1.0.0", ">1.0.0-rc.1", True), ("0.2.0", "=0.2.0", True),
]:
    assert fits(text, requirement) == expected, (text, requirement)


def advisories(directory, name):
    """What RustSec's database says of a crate: id, kind, requirements of versions that are not concerned."""
    for path in sorted((directory / "crates" / name).glob("*.md")):
        entry = tomllib.loads(re.search(r"```toml\n(.*?)```", path.read_text(), re.S)[1])
        advisory, versions = entry["advisory"], entry.get("versions", {})
        if "withdrawn" not in advisory:
            kind = advisory.get("informational", "vulnerability")
            yield advisory["id"], kind, versions.get("patched", []) + versions.get("unaffected", [])


arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
arguments.add_argument("--advisories", type=pathlib.Path, metavar="DIRECTORY", help="a copy of RustSec's database")
arguments = arguments.parse_args()
if arguments.advisories and not (arguments.advisories / "crates").is_dir():
    sys.exit(f"{arguments.advisories} has no directory `crates`: it is no copy of RustSec's database")

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
    for id, kind, safe in advisories(arguments.advisories, package["name"]) if arguments.advisories else []:
        if not any(fits(package["version"], requirement) for requirement in safe):
            if id in ACCEPTED:
                print(f"{id} is accepted: {ACCEPTED[id]}")
            else:
                problems.append(f"{name}: {id} ({kind})")
print(f"{len(linked) - 1} crates are linked")
if problems:
    sys.exit("\n".join(problems))
