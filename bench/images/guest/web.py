# SPDX-License-Identifier: BSD-2-Clause
"""nginx serves a site of generated pages; a Python client fetches them and keeps what it read."""
import collections
import html.parser
import http.client
import os
import subprocess
import time

import common

SITE = "/var/www/html"
PAGES = common.SCALE * 20
REQUESTS = PAGES * 2
CACHED = PAGES // 3


def write_site(data):
    for number in range(PAGES):
        links = "".join(f'<li><a href="/{other}.html">{data.text(30)}</a></li>'
                        for other in data.random.sample(range(PAGES), 6))
        body = "".join(f"<p>{data.text(data.random.randrange(100, 1500))}</p>\n"
                       for _ in range(data.random.randrange(3, 18)))
        with open(os.path.join(SITE, f"{number}.html"), "w") as page:
            page.write(f"<!DOCTYPE html>\n<html><head><title>{data.text(30)}</title></head>\n"
                       f"<body><nav><ul>{links}</ul></nav>\n{body}</body></html>\n")


def connect():
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1")
            connection.connect()
            return connection
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("nginx does not answer")


class Links(html.parser.HTMLParser):
    """The targets of all links of a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.found.append(dict(attrs)["href"])


def browse(data):
    """Fetches pages, popular ones more often, through a cache of those used last; returns it."""
    cache = collections.OrderedDict()
    connection = connect()
    for count in range(REQUESTS):
        path = f"/{int(PAGES * data.random.random() ** 2)}.html"
        if path not in cache:
            if count % 100 == 99:  # nginx closes a connection now and then
                connection = connect()
            agent = data.random.choice(common.AGENTS)
            connection.request("GET", path, headers={"User-Agent": agent})
            answer = connection.getresponse()
            page = answer.read().decode()
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status}")
            cache[path] = (page, Links(page[:2000]).found)
        cache.move_to_end(path)
        if len(cache) > CACHED:
            cache.popitem(last=False)
    return cache


def main():
    data = common.Generator("web")
    common.say("writing the site")
    write_site(data)
    subprocess.run(["nginx"], check=True)
    common.say("browsing it")
    cache = browse(data)
    common.say(f"{len(cache)} pages cached")
    common.ready()


main()
