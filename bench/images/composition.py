# SPDX-License-Identifier: BSD-2-Clause
"""What the pages of memory images are made of. Usage: python3 composition.py IMAGE..."""
import hashlib
import sys
from pathlib import Path

PAGE = 4096
ZERO = bytes(PAGE)


class Count:
    """Pages by kind. A page counts once, as the first of: zero, same-filled, duplicate."""

    def __init__(self):
        self.pages = self.zero = self.same = self.duplicate = 0
        self.seen = set()

    def add(self, kind, digest):
        self.pages += 1
        if kind == "zero":
            self.zero += 1
        elif kind == "same":
            self.same += 1
        elif digest in self.seen:
            self.duplicate += 1
        else:
            self.seen.add(digest)

    def row(self, name):
        shares = [100 * count / max(self.pages, 1)
                  for count in (self.zero, self.same, self.duplicate, len(self.seen))]
        return (f"{name:<16} {self.pages * PAGE:>12} "
                "{:>7.1f} {:>12.1f} {:>11.1f} {:>8.1f}".format(*shares))


def classify(page):
    """Returns the kind of a page and, if it is neither zero nor same-filled, its digest."""
    if page == ZERO:
        return "zero", None
    if page[8:] == page[:-8]:  # one 8-byte word, repeated
        return "same", None
    return "other", hashlib.blake2b(page, digest_size=16).digest()


def print_table(images):
    print(f"{'file':<16} {'bytes':>12} {'zero %':>7} {'other same %':>12} {'duplicate %':>11}"
          f" {'unique %':>8}")
    total = Count()
    for image in images:
        count = Count()
        with image.open("rb") as file:
            while page := file.read(PAGE):
                kind, digest = classify(page)
                count.add(kind, digest)
                total.add(kind, digest)
        print(count.row(image.name), flush=True)
    print(total.row("all together"))
    print("other same: one 8-byte word repeated, not zero.\n"
          "duplicate: equal to an earlier page of the file (last row: of any file).")


if __name__ == "__main__":
    print_table([Path(name) for name in sys.argv[1:]])
