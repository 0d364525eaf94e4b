# SPDX-License-Identifier: BSD-2-Clause
"""What the workloads share: the seed, the size of the guest, text and records to work on."""
import glob
import os
import random
import time

SEED = int(os.environ["SEED"])
# Sizes of data sets are multiples of this. Found by trying: of 128, 192 and 1024 MiB of RAM, 22, 32
# and 59 % stay zero.
SCALE = int(os.environ["MEM_MIB"]) - 92

AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:121.0) Gecko/20100101 Firefox/121.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_2) AppleWebKit/605.1.15 Version/17.2 Safari/605.1",
    "curl/7.88.1",
)
CITIES = ("Lisbon", "Porto", "Lyon", "Ghent", "Turin", "Graz", "Bergen", "Tartu", "Brno", "Cork")


def say(text):
    print("@libvmem " + text, flush=True)


def ready():
    """Tells the host to take the image now, and keeps this process as it is."""
    say("ready")
    while True:
        time.sleep(1000)


class Generator:
    """Data that looks like an application's, the same for the same seed and name."""

    def __init__(self, name):
        self.random = random.Random(f"{name} {SEED}")
        texts = [open(path, errors="replace").read()
                 for path in sorted(glob.glob("/usr/share/common-licenses/*"))]
        tokens = [token for token in " ".join(texts).split() if len(token) < 20]  # no rulers
        self.corpus = " ".join(tokens)
        self.words = sorted({token.lower() for token in tokens if token.isalpha()})

    def text(self, length):
        """About length characters of English, put together from fragments."""
        pieces = []
        while length > 0:
            size = self.random.randrange(30, 150)
            start = self.random.randrange(len(self.corpus) - size)
            pieces.append(self.corpus[start:start + size])
            length -= size
        return " ".join(pieces)

    def token(self):
        return f"{self.random.getrandbits(128):032x}"

    def word(self):
        return self.random.choice(self.words)

    def person(self):
        first, last = self.word(), self.word()
        return {
            "name": f"{first.title()} {last.title()}",
            "email": f"{first}.{last}@example.org",
            "city": self.random.choice(CITIES),
            "born": 1940 + self.random.randrange(65),
        }
