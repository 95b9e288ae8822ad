"""Files that are not what their names say: pointers of Git LFS, web pages, archives, raw data of cameras."""

from __future__ import annotations

import zipfile
from pathlib import PurePath
from typing import NamedTuple

HEAD_BYTES = 512
"""First bytes of a file that `wrong_kind` has to see."""

# First bytes of archives. Sources: APPNOTE 4.3.7 (zip), RFC 1952 (gzip), the formats' own documents.
_ARCHIVES = {
    b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard",
}  # fmt: skip
_TAR_MAGIC = slice(257, 262)

# Cameras' raw files that are no TIFF: Fujifilm, Canon (CRW, CR3), Sigma, Minolta; and TIFFs with another magic number.
_RAW_HEADS = (b"FUJIFILMCCD-RAW", b"FOVb", b"\x00MRM", b"IIRO", b"IIRS", b"MMOR", b"IIU\x00")
_CANON = {b"HEAPCCDR": slice(6, 14), b"ftypcrx ": slice(4, 12)}
RAW_SUFFIXES = (
    ".3fr", ".ari", ".arw", ".bay", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc",
    ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw",
    ".x3f",
)  # fmt: skip
RAW_MESSAGE = "is a camera's raw file; a developed picture is needed. Export it as JPEG, PNG or TIFF first."


class WrongKind(NamedTuple):
    """What a file is instead, as the rest of a sentence after its name, and what to do."""

    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}. {self.advice}"


def wrong_kind(head: bytes) -> WrongKind | None:
    """What the first HEAD_BYTES of a file say that it is, if it is one of the usual results of a failed download."""
    if not head:
        return WrongKind("is empty", "Download or export it again.")
    if head.startswith(b"version https://git-lfs"):
        return WrongKind(
            "is a pointer of Git LFS and not the file itself",
            "Run git lfs pull in the repository that it is from, or download the file itself.",
        )
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return WrongKind(
            "is a web page", "The address leads to a page about the file: open it in a browser and download the file."
        )
    if text.startswith((b'{"error', b'{"message', b"<?xml", b"<error")):
        return WrongKind("is the answer of a server in text form", "Check the address and download the file again.")
    kind = next((kind for magic, kind in _ARCHIVES.items() if head.startswith(magic)), None)
    if kind is None and head[_TAR_MAGIC] == b"ustar":
        kind = "tar"
    return WrongKind(f"is an archive ({kind})", "Unpack it and name the file inside.") if kind else None


def is_raw(head: bytes, name: str) -> bool:
    """Whether a file is a camera's raw file, by its first bytes or else by its suffix; `tiff` looks into its tags."""
    canon = any(head[where] == magic for magic, where in _CANON.items())
    return canon or head.startswith(_RAW_HEADS) or PurePath(name).suffix.lower() in RAW_SUFFIXES


def is_video(head: bytes) -> bool:
    """Whether the first bytes are those of an MP4 or QuickTime, Matroska or WebM, or AVI file.

    AVIF, HEIC and CR3 files also start as MP4 files do: ask for these first.
    """
    return head[4:8] == b"ftyp" or head.startswith(b"\x1aE\xdf\xa3") or head[8:12] == b"AVI "


def is_torch_archive(file: str | PurePath) -> bool:
    """Whether a zip file is what `torch.save` writes: it holds a file data.pkl. A zip file cut short counts too."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(PurePath(name).name == "data.pkl" for name in archive.namelist())
    except Exception:  # zipfile raises errors of many kinds on damaged data
        return True
