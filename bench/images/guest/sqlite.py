# SPDX-License-Identifier: BSD-2-Clause
"""A shop's database: filled, indexed, queried from Python and with the sqlite3 shell."""
import sqlite3
import subprocess

import common

DATABASE = "/var/lib/shop.db"
CUSTOMERS = common.SCALE * 118
ORDERS = CUSTOMERS * 3
PRODUCTS = 4000

SCHEMA = """
PRAGMA cache_size = -16000;
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, email TEXT, city TEXT, born INTEGER,
                       notes TEXT);
CREATE TABLE product (id INTEGER PRIMARY KEY, sku TEXT, title TEXT, description TEXT, price REAL);
CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer INTEGER, product INTEGER, quantity INTEGER,
                       placed TEXT, remark TEXT);
"""
INDEXES = """
CREATE INDEX customer_email ON customer (email);
CREATE INDEX customer_city ON customer (city, born);
CREATE INDEX purchase_customer ON purchase (customer, placed);
CREATE INDEX purchase_product ON purchase (product);
ANALYZE;
"""
REPORT = """
SELECT city, count(*), sum(quantity * price) FROM purchase
JOIN customer ON customer.id = customer JOIN product ON product.id = product GROUP BY city;
"""


def customers(data):
    for number in range(CUSTOMERS):
        person = data.person()
        yield (number, person["name"], person["email"], person["city"], person["born"],
               data.text(data.random.randrange(40, 900)))


def products(data):
    for number in range(PRODUCTS):
        yield (number, f"SKU-{number:05d}", data.text(40), data.text(400),
               data.random.randrange(100, 20000) / 100)


def purchases(data):
    for number in range(ORDERS):
        yield (number, data.random.randrange(CUSTOMERS), data.random.randrange(PRODUCTS),
               data.random.randrange(1, 5),
               f"2023-{data.random.randrange(1, 13):02d}-{number % 28 + 1:02d}",
               data.text(data.random.randrange(1, 300)))


def query(database, data):
    for _ in range(CUSTOMERS // 4):
        customer = int(CUSTOMERS * data.random.random() ** 3)
        kind = data.random.randrange(4)
        if kind == 0:
            database.execute("UPDATE customer SET notes = ? WHERE id = ?",
                             (data.text(200), customer))
        elif kind == 1:
            database.execute("DELETE FROM purchase WHERE id = ?", (data.random.randrange(ORDERS),))
        else:
            database.execute("SELECT * FROM purchase JOIN product ON product.id = product "
                             "WHERE customer = ? ORDER BY placed", (customer,)).fetchall()
    database.commit()


def main():
    data = common.Generator("sqlite")
    database = sqlite3.connect(DATABASE)
    database.executescript(SCHEMA)
    common.say("filling tables")
    database.executemany("INSERT INTO customer VALUES (?, ?, ?, ?, ?, ?)", customers(data))
    database.executemany("INSERT INTO product VALUES (?, ?, ?, ?, ?)", products(data))
    database.executemany("INSERT INTO purchase VALUES (?, ?, ?, ?, ?, ?)", purchases(data))
    database.commit()
    common.say("indexing and querying")
    database.executescript(INDEXES)
    query(database, data)
    report = database.execute(REPORT).fetchall()
    shell = subprocess.run(["sqlite3", DATABASE, REPORT],
                           check=True, capture_output=True, text=True)
    if len(report) != len(shell.stdout.splitlines()):
        raise RuntimeError("the two reports differ")
    common.ready()


main()
